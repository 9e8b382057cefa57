"""The hyper-parameters of a training: as its plans set them, and of one that goes on, as it began."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_cil.errors import CILError
from nnunet_cil.step_plans import StepPlan
from nnunet_cil.training import hyperparameters
from nnunet_cil.training.hyperparameters import Hyperparameter
from nnunet_cil.training.state import StepState

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL

EARLY_SINCE = "2026-11-28T00:37:28"
"""When the last of ``EARLY_DEFAULTS`` became one (commit 6aa4b80)."""

EARLY_DEFAULTS: dict[str, dict[str, Any]] = {
    "nnUNetTrainerCIL": {"new_class_start": "balanced"},
    "nnUNetTrainerPGCD": {
        "new_class_start": "apart",
        "pgcd_weight": 30.0,
        "pgcd_merge": True,
        "pgcd_weighting": "prototypes",
    },
    "nnUNetTrainerPseudoLabel": {"drop_strays": True},
}
"""Trainer -> those defaults of the early development versions, whose states have no version, that are others today."""

LATER_TERMS = {"nnUNetTrainerPLOP": "pod_logits_weight"}
"""Trainer -> a hyper-parameter that came with another loss: no value of it gives the earlier one."""


WITHOUT: dict[str, Any] = {"absent_size": 0.0}
"""Hyper-parameter -> its value in a step that began before it was there."""


def take_planned(trainer: nnUNetTrainerCIL, step: StepPlan, folder: Path) -> CILError | None:
    """Sets what the plans set, as far as the trainer takes it.

    Args:
        trainer: of the step.
        step: of the plans.
        folder: of the fold.

    Returns:
        Why no training may begin with the rest; one that has begun keeps the values of its time.

    Raises:
        CILError: the same, where none has begun.
    """
    hyperparameters.set_values(trainer, hyperparameters.taken(type(trainer), step.hyperparameters))
    try:
        trainer.check_hyperparameters(step.hyperparameters, f"Schedule {step.schedule}")
    except CILError as refusal:
        if not any(folder.glob("checkpoint_*.pth")):
            raise
        return refusal
    return None


def take_recorded(trainer: nnUNetTrainerCIL, state: StepState) -> CILError | None:
    """Sets the values with which an unfinished training began, and says so in its log.

    Args:
        trainer: with what its plans set.
        state: of the training.

    Returns:
        Why it cannot go on, where a value is not to be had.
    """
    planned, kind, folder = trainer.step_plan.hyperparameters, type(trainer), trainer.output_folder
    chosen = hyperparameters.taken(kind, planned)
    began_with = _began_with(trainer, state)
    if began_with is None and trainer.step_plan.previous is None:
        began_with = {}  # step 0 is nnU-Net's training, whatever they are
    elif began_with is None:
        return CILError(
            f"The training in {folder} began with an early version of nnunet_cil, and today's {kind.__name__} cannot go on with "
            "what it began with. Remove that folder and train the step again."
        )
    if changed := hyperparameters.restore(trainer, began_with, chosen):
        told = ", ".join(f"{name} {value}" for name, value in changed.items())
        trainer.print_to_log_file(
            f"The training began with other values than today's defaults, and goes on with them: {told}"
        )
    held = vars(hyperparameters.settings(trainer))
    recorded = began_with if trainer.step_plan.previous is not None else {}  # step 0 used none of them
    for name in sorted((planned.keys() | recorded.keys()) - chosen.keys()):
        if name not in held or name not in began_with or began_with[name] != held[name]:
            value = began_with.get(name, planned.get(name))
            out = f", take {name} out of the schedule, run 'nnunet_cil plan'" if name in planned else ""
            return CILError(
                f"The training in {folder} began with {name} {value!r}, which {kind.__name__} does not take any more. "
                f"Remove that folder{out} and train the step again."
            )
    if came_later := sorted(held.keys() - recorded.keys() - chosen.keys()) if recorded else []:
        told = ", ".join(f"{name} {held[name]}" for name in came_later)
        trainer.print_to_log_file(
            f"The training goes on with what came after its beginning, at today's defaults: {told}"
        )
    return None


def _began_with(trainer: nnUNetTrainerCIL, state: StepState) -> dict[str, Any] | None:
    """Returns the values with which a training began, by name; None where they are not to be had.

    Where its record has none: the defaults of its time, but for what its plans set.
    """
    kind, record = type(trainer), state.lineage[-1]
    later = {LATER_TERMS[owner.__name__] for owner in kind.__mro__ if owner.__name__ in LATER_TERMS}
    if not later <= record.hyperparameters.keys():
        return None
    without = WITHOUT if trainer.step_plan.previous is not None else {}
    if record.hyperparameters:
        return {**without, **record.hyperparameters}
    found = _early_defaults(kind) | _as_today(kind, trainer.step_plan.hyperparameters)
    is_early = state.schema_version == 0 and record.date >= EARLY_SINCE
    is_as_today = all(getattr(trainer, name) == value for name, value in found.items())
    return found | without if is_early or is_as_today else None


def _early_defaults(trainer: type) -> dict[str, Any]:
    """Returns all defaults that a trainer had; what a class sets itself wins over those of its parents, as it does today."""
    known = hyperparameters.declared(trainer)
    found: dict[str, Any] = {}
    for owner in reversed(trainer.__mro__):
        own = {name: value for name, value in vars(owner).items() if name in known}
        found |= {n: v.default if isinstance(v, Hyperparameter) else v for n, v in own.items()}
        found |= EARLY_DEFAULTS.get(owner.__name__, {})
    return found


def _as_today(trainer: type, planned: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the plans of an early training set, by the names and in the types of today."""
    known = hyperparameters.declared(trainer)
    found = {n: type(known[n].default)(v) for n, v in planned.items() if n in known and known[n].check(v) is None}
    if "new_class_noise" in planned:  # it said where new classes start, too
        found["new_class_start"] = "apart" if planned["new_class_noise"] else "balanced"
    return found
