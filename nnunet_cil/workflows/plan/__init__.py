"""A step's plans files."""
