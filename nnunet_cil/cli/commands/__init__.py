"""The commands: each module adds a parser (``add_parser``) and carries the command out (``execute``)."""
