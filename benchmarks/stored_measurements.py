"""The command line of measurements on a planned step, which are added to a JSON file one by one."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL
    from nnunet_cil.training.previous_step import PreviousStep


def step_parser(description: str | None, *, num_cases: int | None = None) -> argparse.ArgumentParser:
    """Returns a parser of the step, the number of cases, and the file.

    Args:
        description: of the command.
        num_cases: the default of ``-n``; None where all cases are measured.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?")
    parser.add_argument("plans", nargs="?")
    parser.add_argument("fold", type=int, nargs="?", default=0)
    parser.add_argument("-c", default="3d_fullres", help="configuration (default: %(default)s)")
    parser.add_argument("-tr", default="nnUNetTrainerPGCD", help="trainer (default: %(default)s)")
    if num_cases is not None:
        parser.add_argument("-n", type=int, default=num_cases, help="cases (default: %(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-o", dest="output", type=Path, help="JSON file; a measurement is added")
    parser.add_argument("--table", type=Path, help="measure nothing: print the table of a file")
    return parser


@contextmanager
def step_trainer(args: argparse.Namespace) -> Iterator[tuple[nnUNetTrainerCIL, PreviousStep]]:
    """Gives the initialized trainer of a later step, whose output goes to a temporary folder, and the previous model.

    Args:
        args: of ``step_parser``.
    """
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    trainer = get_trainer_from_args(
        args.dataset, args.c, args.fold, args.tr, args.plans, device=torch.device(args.device)
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer.output_folder = trainer.output_folder_base = folder
        trainer.log_file = str(Path(folder) / "log.txt")
        trainer.initialize()
        yield trainer, trainer._read_previous()


def measure_or_show(
    args: argparse.Namespace,
    measure: Callable[[argparse.Namespace], dict[str, Any]],
    show: Callable[[list[dict[str, Any]]], str],
) -> None:
    """Measures once more and adds it to the file, unless only its table is asked for; prints the table of all.

    Args:
        args: of ``step_parser``.
        measure: makes a measurement.
        show: returns the table of the measurements.
    """
    if args.table:
        print(show(json.loads(args.table.read_text())))
        return
    stored = json.loads(args.output.read_text()) if args.output and args.output.is_file() else []
    stored.append(measure(args))
    if args.output:
        args.output.write_text(json.dumps(stored) + "\n")
    print(show(stored))
