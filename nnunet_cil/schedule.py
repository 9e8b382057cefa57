"""Schedules: which classes, by name, are learnt at which step, and which cases each step may see."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError, did_you_mean
from nnunet_cil.files import read_json, shortened
from nnunet_cil.limits import MAX_COUNT, MAX_RATE, is_number, is_whole_number
from nnunet_cil.names import is_dataset_id, is_dataset_name, is_readable, valid_name
from nnunet_cil.shipped import schedules_folder

TRAINING_SETTINGS: dict[str, type] = {
    "num_epochs": int,
    "num_iterations_per_epoch": int,
    "num_val_iterations_per_epoch": int,
    "save_every": int,
    "initial_lr": float,
    "weight_decay": float,
    "oversample_foreground_percent": float,
    "enable_deep_supervision": bool,
    "mirror_axes": list,
    "optimizer": str,
}
"""The settings of nnU-Net's trainer that a schedule may override, named as there, and their types.
``mirror_axes`` are axes (0, 1, 2) of the preprocessed volume; ``optimizer`` is one of ``OPTIMIZERS``."""

DEFAULT_EPOCHS = 1000
"""nnU-Net's."""

OPTIMIZERS = ("SGD", "AdamW")
"""nnU-Net's own, and that of its trainer variant nnUNetTrainerAdam."""

_SCHEDULE_KEYS = ("name", "citation", "steps", "cases", "training", "hyperparameters")
_STEP_KEYS = ("classes", "dataset", "training", "hyperparameters")
_RESERVED = ("background", "ignore")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step: the classes it adds, in channel order, and its own overrides.

    ``dataset`` is the ID or name of the data set that it learns from; None for the one that the schedule is used on.
    """

    classes: tuple[str, ...]
    training: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    dataset: str | None = None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A validated schedule. The order of ``steps`` and of their classes is the model's channel order."""

    name: str
    steps: tuple[Step, ...]
    cases: str = "shared"
    citation: str = ""

    def classes_until(self, step: int) -> tuple[str, ...]:
        """Returns the foreground classes that a model knows after ``step``, in channel order."""
        return tuple(name for s in self.steps[: step + 1] for name in s.classes)


def shipped_schedules() -> dict[str, Path]:
    """Returns the file of every schedule that ships with the package, by name."""
    return {path.stem: path for path in sorted(schedules_folder().glob("*.json"))}


def load_schedule(name_or_path: str | Path) -> Schedule:
    """Reads and validates a schedule: the name of a shipped one, or a path to a JSON file.

    Raises:
        CILError: naming the file, the step, the class or key, and the nearest valid spelling.
    """
    path = Path(name_or_path)
    shipped = shipped_schedules()
    if not os.path.isfile(path):  # unlike Path.is_file, never an error
        if str(name_or_path) not in shipped:
            raise CILError(
                f"There is no schedule {shortened(str(name_or_path), 140)}: neither a file nor a shipped name"
                f"{did_you_mean(str(name_or_path), shipped)}."
            )
        path = shipped[str(name_or_path)]
    return _parse(read_json(path, "A schedule has 'name' and 'steps'."), str(path))


def _parse(content: Mapping[str, Any], file: str) -> Schedule:
    _known_keys(content, _SCHEDULE_KEYS, file)
    name = valid_name(content.get("name"), f"{file}: 'name' is {shortened(content.get('name'))}, but it")
    cases = content.get("cases", "shared")
    if cases not in ("shared", "disjoint"):
        raise CILError(f"{file}: 'cases' is {shortened(cases)}, but must be 'shared' or 'disjoint'.")
    raw_steps = content.get("steps")
    if not isinstance(raw_steps, list) or not raw_steps:
        raise CILError(f"{file}: 'steps' must be a list with at least one step.")
    defaults = {key: _settings(content, key, file) for key in ("training", "hyperparameters")}
    steps = tuple(_parse_step(raw, defaults, f"{file}, step {i}") for i, raw in enumerate(raw_steps))
    first_step: dict[str, int] = {}
    for i, step in enumerate(steps):
        for class_name in step.classes:
            if class_name in first_step:
                raise CILError(
                    f"{file}: class {class_name!r} is named twice, in step {first_step[class_name]} and in step "
                    f"{i}; a class is learnt once."
                )
            first_step[class_name] = i
    citation = content.get("citation", "")
    if not isinstance(citation, str):
        raise CILError(f"{file}: 'citation' is {shortened(citation)}, but must be a text.")
    return Schedule(name=name, steps=steps, cases=cases, citation=citation)


def _parse_step(raw: Any, defaults: Mapping[str, Mapping[str, Any]], where: str) -> Step:
    if not isinstance(raw, dict):
        raise CILError(f"{where}: a step is a JSON object with 'classes'.")
    _known_keys(raw, _STEP_KEYS, where)
    classes = raw.get("classes")
    if not isinstance(classes, list) or not classes or not all(map(is_readable, classes)):
        raise CILError(f"{where}: 'classes' must be a list of at least one class name.")
    for class_name in classes:
        if class_name in _RESERVED:
            raise CILError(f"{where}: {class_name!r} is not a class to learn; remove it from 'classes'.")
    own = {key: {**defaults[key], **_settings(raw, key, where)} for key in defaults}
    return Step(classes=tuple(classes), **own, dataset=_dataset(raw, where))


def _dataset(raw: Mapping[str, Any], where: str) -> str | None:
    """Reads a data set's name or ID as nnU-Net takes it. Only a command that needs the data set can say whether it is there."""
    if "dataset" not in raw:
        return None
    value = raw["dataset"]
    is_text = isinstance(value, (str, int)) and not isinstance(value, bool)
    if not is_text or not (is_dataset_id(str(value)) or is_dataset_name(str(value))):
        raise CILError(
            f"{where}: 'dataset' is {shortened(value)}, but must be nnU-Net's name or ID of a data set, as "
            '"Dataset018_Spleen" or 18.'
        )
    return str(value)


def _settings(raw: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    settings = raw.get(key, {})
    if not isinstance(settings, dict):
        raise CILError(f"{where}: {key!r} must be a JSON object of settings.")
    if key == "training":
        check_training_settings(settings, where)
    return dict(settings)


def check_training_settings(settings: Mapping[str, Any], where: str) -> None:
    """Refuses unknown names and values of the wrong type or range among overrides of nnU-Net's training."""
    for name, value in settings.items():
        if name not in TRAINING_SETTINGS:
            raise CILError(f"{where}: unknown training setting {name!r}{did_you_mean(name, TRAINING_SETTINGS)}.")
        expected = TRAINING_SETTINGS[name]
        if name == "mirror_axes":
            fits = (
                isinstance(value, list) and all(is_whole_number(a, 0, 2) for a in value) and len({*value}) == len(value)
            )
            wanted = "a list of axes out of 0, 1, 2 (empty: no mirroring)"
        elif name == "optimizer":
            fits, wanted = value in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"
        elif expected is bool:
            fits, wanted = isinstance(value, bool), "true or false"
        elif expected is int:
            fits, wanted = is_whole_number(value, 1, MAX_COUNT), f"a whole number from 1 to {MAX_COUNT}"
        else:
            limit = 1 if name == "oversample_foreground_percent" else MAX_RATE
            fits, wanted = is_number(value, 0, limit), f"a number from 0 to {limit}"
        if not fits:
            raise CILError(f"{where}: training setting {name!r} is {shortened(value)}, but must be {wanted}.")


def _known_keys(raw: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in raw:
        if key not in known:
            raise CILError(f"{where}: unknown key {key!r}{did_you_mean(key, known)}.")
