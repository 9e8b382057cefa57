"""The methods, one module each: its loss and its trainer."""
