"""A run as one HTML page, from its stored results alone."""
