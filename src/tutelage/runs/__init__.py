"""A run's folder: layout, reading, comparing."""
