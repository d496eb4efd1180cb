"""HTML reports made from the stored results of runs."""
