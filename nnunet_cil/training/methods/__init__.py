"""One module a method: its loss and its trainer."""
