"""Run folders: layout, reading and comparison."""
