"""The numbers that users may give, those that count where none is given, and the sentence that refuses others."""

from __future__ import annotations

from numbers import Integral

from nnunet_cil.errors import CILError
from nnunet_cil.files import shortened

MAX_DATASET_ID = 999
"""nnU-Net's: three digits."""

MAX_FOLD = 999
MAX_STEP = 999
MAX_GPUS = 64
"""nnU-Net trains on one machine."""

MAX_JOBS = 999
MAX_MINUTES = 1_000_000
"""The most that a job may have."""

MAX_PICTURES = 9999
COMPARED_PICTURES = 5
"""The number of cases that ``compare`` draws, unless another one is given."""
INSPECTED_PICTURES = 4
"""The number of cases that ``inspect`` draws, unless another one is given."""
MAX_SEED = 2**32 - 1
MAX_TOLERANCE_MM = 1000
DEFAULT_TOLERANCE_MM = 2.0
"""The tolerance of the normalised surface Dice, unless another one is given."""
MAX_COUNT = 1_000_000
"""The most epochs, iterations in one, and things that a trainer's hyper-parameter counts."""
MAX_RATE = 100
"""The largest learning rate and weight decay."""
MAX_WEIGHT = 1_000_000_000
"""The largest weight of a loss term, and other number of a trainer: far below float32's, also MAX_COUNT times."""

DEVICES = ("cpu", "cuda", "mps")
"""nnU-Net's."""


def is_whole_number(value: object, least: int, most: int) -> bool:
    """Returns whether a value is a whole number within the limits; true and false are none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most


def is_number(value: object, least: float, most: float) -> bool:
    """Returns whether a value is a number within the limits; true, false and NaN are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most


def is_fold(value: object) -> bool:
    """Returns whether a value is one of nnU-Net's folds: a number from 0 on, or "all"."""
    return value == "all" or is_whole_number(value, 0, MAX_FOLD)


def check_whole_number(value: object, what: str, least: int, most: int) -> None:
    """Refuses what is not a whole number within the limits.

    Args:
        value: that the user gave.
        what: the option or argument, for the message.
        least: the least number.
        most: the largest.

    Raises:
        CILError: it is something else.
    """
    if not is_whole_number(value, least, most):
        raise CILError(f"{what} is {shortened(value)}, but must be a whole number from {least} to {most}.")


def check_device(device: object) -> None:
    """Refuses a device that nnU-Net's commands do not take.

    Raises:
        CILError: it is none of ``DEVICES``.
    """
    if device not in DEVICES:
        raise CILError(f"-device is {shortened(device)}, but must be one of {', '.join(DEVICES)}.")
