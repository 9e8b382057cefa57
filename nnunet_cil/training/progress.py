"""Loss terms and the online Dice of old classes over the epochs: in nnU-Net's loggers, and in a plot beside its progress.png."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PREFIX = "loss_"
"""Prefix of the terms' names in nnU-Net's logger."""

_AROUND = "seconds_around_epochs"
"""Name of the times before the first and after the last epoch in nnU-Net's logger."""

ONLINE_DICE = ("old_class_agreement", "new_class_dice")
"""Names of the mean online Dice in nnU-Net's logger: of old classes against the teacher, of new ones against the labels."""


def record_terms(logger: Any, terms: Mapping[str, float], epoch: int) -> None:
    """Adds the epoch's mean of each loss term to nnU-Net's loggers; the checkpoint stores what the local one has.

    A term that no iteration of an epoch has is 0 there, as in an epoch that is shorter than ``distillation_interval``.
    """
    for name in dict(terms) | recorded_terms(logger):
        _record(logger, f"{_PREFIX}{name}", terms.get(name, 0.0), epoch, before=0.0)


def record_online_dice(logger: Any, old: Collection[int], epoch: int) -> None:
    """Adds the epoch's mean online Dice of the old and of the new classes to nnU-Net's loggers; NaN where none is defined.

    Args:
        logger: with nnU-Net's own online Dice of every class.
        old: which of the foreground classes are old, from 0.
        epoch: that ends.
    """
    dice = logger.get_value("dice_per_class_or_region", step=-1)
    for name, is_old in zip(ONLINE_DICE, (True, False), strict=True):
        defined = [float(d) for index, d in enumerate(dice) if (index in old) == is_old and not math.isnan(d)]
        mean = sum(defined) / len(defined) if defined else math.nan
        _record(logger, name, mean, epoch, before=math.nan)


def _record(logger: Any, name: str, value: float, epoch: int, *, before: float) -> None:
    """Adds a value of our own to nnU-Net's loggers; ``before`` stands for the epochs in which there was none."""
    logger.local_logger.my_fantastic_logging.setdefault(name, [before] * epoch)
    logger.log(name, value, epoch)


def recorded_terms(logger: Any) -> dict[str, list[float]]:
    """Returns each loss term's means, one an epoch, from nnU-Net's logger."""
    return terms_in(logger.get_checkpoint())


def terms_in(logged: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """Returns each loss term's means out of what nnU-Net's logger has kept, as it stands in a checkpoint."""
    return {name.removeprefix(_PREFIX): values for name, values in logged.items() if name.startswith(_PREFIX)}


@contextmanager
def around_epochs(logger: Any) -> Iterator[None]:
    """Adds the time that something takes to nnU-Net's logger, which times epochs only."""
    start = time.monotonic()
    yield
    _around(logger).append(time.monotonic() - start)


def fill_around_epochs(logger: Any, epoch: int) -> None:
    """Gives the times around the epochs an entry for every epoch: nnU-Net draws as many as its shortest list has."""
    times = _around(logger)
    times.extend([0.0] * (epoch + 1 - len(times)))


def _around(logger: Any) -> list[float]:
    times: list[float] = logger.local_logger.my_fantastic_logging.setdefault(_AROUND, [])
    return times


def training_seconds(logged: Mapping[str, Sequence[float]]) -> float:
    """Returns the time of a training out of what nnU-Net's logger has kept: the epochs, and what comes around them.

    NaN where no epoch was timed. Of a training by another trainer only the epochs are known.
    """
    begun, ended = (logged.get(f"epoch_{which}_timestamps", ()) for which in ("start", "end"))
    epochs = [end - start for start, end in zip(begun, ended, strict=False)]
    return sum(epochs) + sum(logged.get(_AROUND, ())) if epochs else math.nan


def plot_terms(terms: Mapping[str, Sequence[float]], file: Path) -> None:
    """Draws one curve for each loss term (its weighted contribution to the loss) over the epochs."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context("default"):  # nnU-Net sets fonts for figures four times as large
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes = figure.add_subplot()
        for name, values in terms.items():
            axes.plot(range(len(values)), values, label=name, marker="o" if len(values) < 3 else None)
        axes.set(xlabel="epoch", ylabel="weighted loss term", title="Loss terms (training, mean of the epoch)")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(file, dpi=100)
