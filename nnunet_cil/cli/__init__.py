"""The command ``nnunet_cil``."""

from nnunet_cil.cli.main import entry, main

__all__ = ["entry", "main"]
