"""Runs the command ``nnunet_cil``: collects the commands' parsers, and turns errors into sentences."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from nnunet_cil import __version__
from nnunet_cil.errors import CILError

COMMANDS = (
    "demo",
    "plan",
    "schedules",
    "run",
    "status",
    "evaluate",
    "nnunet",
    "extend",
    "compare",
    "export",
    "info",
    "convert",
    "inspect",
    "doctor",
    "trainers",
)
"""In the order of ``-h``. Each is a module of ``nnunet_cil.cli.commands``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    args, unknown = _parser().parse_known_args(arguments)
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    from nnunet_cil.cli.progress import printed_progress  # here, since -h does without logging

    try:
        with printed_progress():
            status: int = args.execute(args)
            return status
    except (CILError, NotImplementedError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        again = " Run the same command again: it goes on where it stopped." if args.resumes else ""
        return _fail(f"Interrupted.{again}", _INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        where = f" ({_shortened(str(error.filename))})" if error.filename else ""
        return _fail(f"{error.strerror}{where}. {_REMEDIES[error.errno]}")


def _fail(message: str, status: int = 1) -> int:
    _end_progress_bars()
    print(f"nnunet_cil: {message}", file=sys.stderr)
    return status


def _end_progress_bars() -> None:
    """Ends the lines of progress bars that an error has left behind: the message begins a line of its own."""
    if (progress := sys.modules.get("tqdm")) is not None:
        for bar in list(getattr(progress.tqdm, "_instances", ())):
            bar.close()


_INTERRUPTED = 128 + signal.SIGINT
"""As shells give it for a command that Ctrl-C ended."""

_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Make room and run the command again: what is finished is kept."),
    errno.EFBIG: "Raise the limit of a file's size ('ulimit -f'), or name another place.",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Change its permissions, or name another place."),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "Create what is missing, or name another place."),
    **dict.fromkeys((errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY), "Move away what is there, or name another place."),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), "Name another place."),
}
"""Remedies for errors of the file system."""


def entry() -> None:
    """Runs the console script. No process that it starts imports from the current folder, which may be a stranger's."""
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    sys.exit(main())


class _Parser(argparse.ArgumentParser):
    """Refuses arguments in one line; argparse would print the usage first."""

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong, and ends with argparse's status."""
        self.exit(2, f"{self.prog}: error: {' '.join(_shortened(message).split())}. '{self.prog} -h' explains.\n")


_LONGEST = 300


def _shortened(text: str) -> str:
    """Returns so much of a text as is shown of it: it may repeat what it was given."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="nnunet_cil",
        description="Teach an nnU-Net v2 model new organs, step by step, from data that labels only the new ones.",
        epilog="A step is one training that adds classes; a schedule, a JSON file, says which step learns which classes. Steps "
        "are trained and predicted with nnU-Net's own commands: nnUNetv2_train ... -tr nnUNetTrainerPGCD -p PLANS, where PLANS "
        "are those that plan or extend wrote. Every command explains itself with -h.",
    )
    parser.add_argument("--version", action="version", version=f"nnunet_cil {__version__}")
    parser.set_defaults(resumes=False)  # a command says so whose second call goes on where the first stopped
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        command = import_module(f"nnunet_cil.cli.commands.{name}")
        own = command.add_parser(commands)
        own.set_defaults(execute=command.execute, parser=own)  # the parser refuses what no command knows
    return parser
