"""Adds and reads the arguments that several commands share."""

from __future__ import annotations

import argparse
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nnunet_cil.errors import CILError
from nnunet_cil.files import parse_json, shortened
from nnunet_cil.limits import DEVICES, MAX_TOLERANCE_MM, is_fold

if TYPE_CHECKING:
    from nnunet_cil.workflows.evaluate.options import EvaluationOptions
    from nnunet_cil.workflows.experiment import Experiment

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # argparse has no public name for it


def add_schedule_arguments(parser: argparse.ArgumentParser, *, trainers: str = "one trainer or several") -> None:
    """Adds the arguments of run, status and evaluate that say which models are meant; ``trainers`` is the help of -tr.

    The usage gives the order that works: FOLD and -tr take all that follows.
    """
    parser.usage = "%(prog)s DATASET CONFIG FOLD [FOLD ...] SCHEDULE -tr TRAINER [TRAINER ...] [options]"
    parser.add_argument(
        "dataset", metavar="DATASET", help="ID or name of the data set; where steps have different ones, that of step 0"
    )
    parser.add_argument(
        "configuration",
        metavar="CONFIG",
        help="nnU-Net's configuration: 2d, 3d_lowres, 3d_fullres or 3d_cascade_fullres",
    )
    parser.add_argument("folds", metavar="FOLD", nargs="+", type=fold, help="one fold or several (0 to 4), or all")
    add_schedule(parser)
    parser.add_argument(
        "-tr",
        dest="trainers",
        nargs="+",
        action="extend",
        required=True,
        metavar="TRAINER",
        help=trainers,
    )
    add_base_plans(parser)


def add_schedule(parser: argparse.ArgumentParser) -> None:
    """Adds SCHEDULE."""
    parser.add_argument("schedule", metavar="SCHEDULE", help="name of a shipped schedule, or a JSON file")


def add_base_plans(parser: argparse.ArgumentParser) -> None:
    """Adds ``-p``."""
    parser.add_argument(
        "-p",
        dest="base_plans",
        default="nnUNetPlans",
        metavar="BASE_PLANS",
        help="base plans, which each step's plans copy (default: %(default)s)",
    )


def add_test_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of run and evaluate that say which cases are scored, and where."""
    parser.add_argument("-i", dest="images", type=Path, metavar="IMAGES", help="folder of test images")
    parser.add_argument(
        "-l",
        dest="labels",
        type=Path,
        metavar="LABELS",
        help="folder of their reference labels; the dataset.json in it or above it names them, else that of the data set",
    )
    parser.add_argument(
        "--cases",
        choices=["test", "validation"],
        help="cases to score: test (imagesTs with labelsTs, refused where there are none) or validation (the fold's validation "
        "cases); default: test where there are test cases, else validation",
    )
    parser.add_argument(
        "-o",
        dest="output",
        type=Path,
        metavar="OUT",
        help="folder that takes predictions, tables and figures (default: in nnUNet_results)",
    )
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds ``-device``, as nnU-Net's commands have it."""
    parser.add_argument(
        "-device",
        default="cuda",
        choices=DEVICES,
        help="device for nnU-Net's commands (default: %(default)s)",
    )


def add_trained_folds(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds ``-f`` of a command that takes trained models; ``what`` says what the folds are for."""
    parser.add_argument(
        "-f",
        dest="folds",
        nargs="+",
        default=[],
        metavar="FOLD",
        help=f"{what} (default: all that are trained)",
    )


def add_npz(parser: argparse._ActionsContainer) -> None:
    """Adds ``--npz`` of a command that trains."""
    parser.add_argument(
        "--npz",
        action="store_true",
        help="keep the probabilities of the validation cases, as nnUNetv2_train --npz: ensembles need them",
    )


COMPARED_TRAINERS = "trainers; the first is compared with each other one, above all with the second"

WHICH_CASES = (
    "Without -i and -l, the cases are imagesTs with labelsTs of the raw data set, or else the fold's validation cases. With "
    "several data sets, the cases of each count; a class is scored on the data sets that label it."
)


def experiment_of(args: argparse.Namespace) -> Experiment:
    """Returns the experiment that the arguments of ``add_schedule_arguments`` describe."""
    from nnunet_cil.workflows.experiment import Experiment

    return Experiment(
        dataset=args.dataset,
        configuration=args.configuration,
        folds=tuple(args.folds),
        schedule_name=args.schedule,
        trainers=tuple(args.trainers),
        base_plans=args.base_plans,
    )


def evaluation_options(args: argparse.Namespace, **more: Any) -> EvaluationOptions:
    """Returns the options that the arguments of ``add_test_arguments`` describe.

    Args:
        args: as parsed.
        more: options of the command's own.
    """
    from nnunet_cil.workflows.evaluate.options import EvaluationOptions

    return EvaluationOptions(
        images=args.images, labels=args.labels, cases=args.cases, output=args.output, device=args.device, **more
    )


def fold(text: str) -> int | str:
    """Reads a fold: a number from 0 on, or all.

    Raises:
        ArgumentTypeError: it is neither.
    """
    if text == "all":
        return text
    if re.fullmatch(r"[0-9]{1,9}", text) and is_fold(int(text)):
        return int(text)
    raise ArgumentTypeError(
        f"{shortened(text)} is not a fold (0 to 4, or all). The order is DATASET CONFIG FOLD SCHEDULE"
    )


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Returns a reader of whole numbers from ``least`` to ``most``. It raises ArgumentTypeError on all else."""

    def read(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,18}", text) and least <= int(text) <= most:
            return int(text)
        raise ArgumentTypeError(f"{shortened(text)} is not a whole number from {least} to {most}")

    return read


def tolerance_mm(text: str) -> float:
    """Reads the tolerance of the normalised surface Dice.

    Raises:
        ArgumentTypeError: it is not a number within the limits.
    """
    with suppress(ValueError):
        number = float(text)
        if 0 <= number <= MAX_TOLERANCE_MM:
            return number
    raise ArgumentTypeError(f"{shortened(text)} is not a distance in mm: a number from 0 to {MAX_TOLERANCE_MM}")


def key_values(option: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Reads KEY=VALUE pairs, whose values may be JSON.

    ``["partition=gpu", "timeout_min=60"]`` becomes ``{"partition": "gpu", "timeout_min": 60}``.

    Raises:
        CILError: one is not KEY=VALUE.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not key or not separator:
            raise CILError(f"{option} takes KEY=VALUE, not {shortened(pair)}.")
        try:
            found[key] = parse_json(value)
        except ValueError:
            found[key] = value
    return found


def add_trusted_packages(parser: argparse.ArgumentParser) -> None:
    """Adds ``--trust-package``."""
    parser.add_argument(
        "--trust-package",
        dest="trusted",
        nargs="+",
        default=[],
        metavar="PACKAGE",
        help="packages besides nnU-Net's own whose network classes the model's plans may name: they are imported and run",
    )
