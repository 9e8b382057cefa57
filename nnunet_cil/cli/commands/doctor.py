"""Checks the installation."""

from __future__ import annotations

import argparse

from nnunet_cil.cli.arguments import Commands


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    return commands.add_parser(
        "doctor",
        help="check the installation and say what to set",
        description="Checks versions, nnU-Net's folders and whether nnU-Net finds the trainers. Says how to mend what is "
        "missing, and then exits with status 1.",
    )


def execute(_args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.workflows.doctor import examine

    checks = examine()
    for check in checks:
        print(f"{'ok     ' if check.ok else 'MISSING'}  {check.name}: {check.found}")
        if not check.ok:
            print(f"         -> {check.remedy}")
    return 0 if all(check.ok for check in checks) else 1
