"""Where a model's classes come from: one record a training, in order, carried from checkpoint to checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StepRecord:
    """One training.

    Attributes:
        step: index in the schedule.
        classes: that it added.
        schedule: its name.
        dataset: nnU-Net's name of the data set.
        num_cases: training cases of the fold.
        licence: of the data set, as its dataset.json says; empty where it says nothing.
        trainer: class name.
        plans: name.
        configuration: nnU-Net's.
        fold: nnU-Net's.
        date: when the checkpoint was written, UTC, ISO 8601.
        versions: package -> version.
        previous_sha256: of the checkpoint that it continued from; None at step 0.
    """

    step: int
    classes: tuple[str, ...]
    schedule: str
    dataset: str
    num_cases: int
    licence: str
    trainer: str
    plans: str
    configuration: str
    fold: str
    date: str
    versions: Mapping[str, str]
    previous_sha256: str | None

    def to_json(self) -> dict[str, Any]:
        """As plain Python."""
        return {**dataclasses.asdict(self), "classes": list(self.classes), "versions": dict(self.versions)}


def read_lineage(stored: Sequence[Mapping[str, Any]]) -> tuple[StepRecord, ...]:
    """The inverse of ``to_json``, for a list; keys that a later version added are left out."""
    names = [f.name for f in dataclasses.fields(StepRecord)]
    return tuple(
        StepRecord(**{**{n: record[n] for n in names}, "classes": tuple(record["classes"])}) for record in stored
    )
