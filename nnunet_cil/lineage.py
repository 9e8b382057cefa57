"""Where a model's classes come from: one record a training, in order, carried from checkpoint to checkpoint."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_cil.case_hashes import CaseHashes
from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json, shortened
from nnunet_cil.labels import Label
from nnunet_cil.names import is_path_component, is_readable
from nnunet_cil.predicted_from import is_validated
from nnunet_cil.validation import validated


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """The record of one training.

    Attributes:
        step: index in the schedule.
        classes: that it added.
        refined: earlier classes that it had labels of, and was told to learn from.
        schedule: its name; empty for a model that was not trained in steps.
        dataset: nnU-Net's name of the data set.
        num_cases: training cases of the fold; None where that is not known.
        case_hashes: the training and validation cases of the fold, without their names; None where they are not known.
        licence: of the data set, as its dataset.json says; empty where it says nothing.
        trainer: class name.
        plans: name.
        configuration: nnU-Net's.
        fold: nnU-Net's.
        date: when the checkpoint was written, UTC, ISO 8601; empty where that is not known.
        versions: package -> version.
        previous_sha256: of the checkpoint that it continued from; None at step 0.
        previous_stage: the models whose predictions a cascade saw, fold -> SHA-256 of the checkpoint; empty elsewhere.
        hyperparameters: the trainer's, name -> value, defaults included; empty where they are not known.
        saw_old_labels: whether earlier steps' labels were used, too, as joint training and replay do.
        dice: class -> mean Dice on the fold's validation cases, as nnU-Net's summary says; empty where that is not known, and
            in fold ``all``, which has none. A record gets it when the next step begins.
        volumes: class -> mean volume in mm^3 of its labels, in the training cases that show it. Of a training that did not tell
            it is that in the fold's validation cases, as nnU-Net's summary tells: voxels, in the data set's median spacing.
    """

    step: int
    classes: tuple[str, ...]
    schedule: str
    dataset: str
    num_cases: int | None
    licence: str
    trainer: str
    plans: str
    configuration: str
    fold: str
    date: str
    versions: Mapping[str, str]
    previous_sha256: str | None
    saw_old_labels: bool = False
    case_hashes: CaseHashes | None = None
    refined: tuple[str, ...] = ()
    dice: Mapping[str, float] = field(default_factory=dict)
    volumes: Mapping[str, float] = field(default_factory=dict)
    previous_stage: Mapping[str, str] = field(default_factory=dict)
    hyperparameters: Mapping[str, bool | int | float | str] = field(default_factory=dict)

    @property
    def cases_text(self) -> str:
        """The number of cases; blank where it is not known."""
        return "" if self.num_cases is None else str(self.num_cases)

    def to_json(self) -> dict[str, Any]:
        """Returns the record as plain Python, without what only some models have where this one has none."""
        content = {**dataclasses.asdict(self), "classes": list(self.classes), "refined": list(self.refined)}
        del content["case_hashes"]
        for key in ("volumes", "previous_stage", "hyperparameters"):
            if not content[key]:
                del content[key]
        return content if self.case_hashes is None else {**content, "case_hashes": self.case_hashes.to_json()}


_WHERE = "A record of the trainings that the model comes from"
_REMEDY = "Restore the model, or export it again."
_HASH = re.compile("[0-9a-z]*")


def read_lineage(stored: object) -> tuple[StepRecord, ...]:
    """Reads a list of what ``to_json`` has written; keys that a later version added are left out.

    Raises:
        CILError: it is damaged.
    """
    kind = list[dict[str, Any]]
    records: list[dict[str, Any]] = validated(kind, stored, _WHERE, _REMEDY)
    return tuple(_read_record(record) for record in records)


def _read_record(stored: Mapping[str, Any]) -> StepRecord:
    """Reads a record; early versions took scores of fold ``all``, which are of training cases, for validation scores."""
    content = {f.name: stored[f.name] for f in dataclasses.fields(StepRecord) if f.name in stored}
    hashes = content.pop("case_hashes", None)
    if stored.get("fold") == "all":
        content["dice"] = {}
    record: StepRecord = validated(StepRecord, content, _WHERE, _REMEDY)
    _check_names(record)
    return record if hashes is None else dataclasses.replace(record, case_hashes=CaseHashes.from_json(hashes))


def _check_names(record: StepRecord) -> None:
    """Refuses a record whose names could be none of nnU-Net's: they stand in commands and on model cards."""
    for key in ("schedule", "dataset", "trainer", "plans", "configuration", "fold"):
        name = getattr(record, key)
        if name and not is_path_component(name):
            raise CILError(f"{_WHERE} has {shortened(name)} for {key!r}, which is no such name. {_REMEDY}")
    if unreadable := [name for name in record.classes if not is_readable(name)]:
        raise CILError(f"{_WHERE} has the class {shortened(unreadable[0])}, which is no such name. {_REMEDY}")
    if not _HASH.fullmatch(record.previous_sha256 or ""):
        raise CILError(
            f"{_WHERE} has {shortened(record.previous_sha256)} for 'previous_sha256', which is no hash. {_REMEDY}"
        )


def validation_means(fold: Path) -> dict[str, dict[str, float]]:
    """Reads the scores of nnU-Net's final validation of a fold: label -> metric -> mean over the cases.

    Empty where there is none, or half of one, or where it is not known to be of the final checkpoint that is there.
    """
    try:
        return _summary_means(fold) if is_validated(fold) else {}
    except (OSError, CILError):
        return {}


def _summary_means(fold: Path) -> dict[str, dict[str, float]]:
    """Reads the same of whatever model was validated; empty where there is none."""
    summary = fold / "validation" / "summary.json"
    try:
        means = read_json(summary, "").get("mean")
        found: dict[str, dict[str, float]] = validated(dict[str, dict[str, float]], means, str(summary), "")
    except (OSError, CILError):
        return {}
    return found


def validation_dice(fold: Path, labels: Mapping[str, Label | list[int]]) -> dict[str, float]:
    """Returns class -> mean Dice of a fold's final validation, without classes that no case has; empty where there is none.

    Fold ``all`` has no validation cases: what nnU-Net calls its validation are scores of training cases.
    """
    return _by_name(validation_means(fold) if fold.name != "fold_all" else {}, labels, "Dice")


def with_validation(
    record: StepRecord, fold: Path, labels: Mapping[str, Label | list[int]], plans: Mapping[str, Any]
) -> StepRecord:
    """Returns a record with what the final validation of its training tells; as it was where there is none.

    The volumes are those of the reference: any validation of the fold tells them, also plain nnU-Net's, and that of fold ``all``.

    Args:
        record: of the training.
        fold: nnU-Net's folder of it.
        labels: of the model.
        plans: of the model.
    """
    dice, voxels = validation_dice(fold, labels), _by_name(_summary_means(fold), labels, "n_ref")
    voxel = math.prod(plans.get("original_median_spacing_after_transp") or [0])
    volumes = {name: voxel * number for name, number in voxels.items() if voxel * number}
    return dataclasses.replace(record, dice=dice or record.dice, volumes=record.volumes or volumes)


def _by_name(
    means: Mapping[str, Mapping[str, float]], labels: Mapping[str, Label | list[int]], metric: str
) -> dict[str, float]:
    """Returns class -> the mean of a metric, where there is one."""
    keys = {
        name: str(tuple(label) if isinstance(label, list) else label) for name, label in labels.items()
    }  # nnU-Net's
    found = {name: means.get(key, {}).get(metric, math.nan) for name, key in keys.items()}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def foreign_record(checkpoint: Mapping[str, Any], classes: Sequence[str]) -> StepRecord:
    """Returns what a checkpoint of nnU-Net that was not trained in steps says of itself."""
    arguments = checkpoint["init_args"]
    plans, dataset_json = arguments["plans"], arguments["dataset_json"]
    return StepRecord(
        step=0,
        classes=tuple(classes),
        schedule="",
        dataset=str(plans["dataset_name"]),
        num_cases=None,
        licence=str(dataset_json.get("licence") or dataset_json.get("license") or ""),
        trainer=str(checkpoint.get("trainer_name", "")),
        plans=str(plans["plans_name"]),
        configuration=str(arguments["configuration"]),
        fold=str(arguments["fold"]),
        date="",
        versions={},
        previous_sha256=None,
    )
