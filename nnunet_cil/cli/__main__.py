"""Runs the command line as ``python -m nnunet_cil.cli``."""

from nnunet_cil.cli.main import entry

entry()
