"""The plans file of a step: what it holds, and when it may change."""

from __future__ import annotations

import copy
import glob
import json
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json, shortened
from nnunet_cil.host.folders import model_folder_name, nnunet_folder
from nnunet_cil.step_plans import StepPlan
from nnunet_cil.validation import validated

_REDO = "Remove it and run 'nnunet_cil plan' again."


_LONGEST_NAME = 255
"""The number of bytes that the name of a file or folder can have."""

_RESERVE = 64
"""How many of them the names of logs, locks and temporary files have more than that of a model's folder."""

LONGEST_TRAINER = "nnUNetTrainerPseudoLabel"
"""The longest name of our trainers."""


NAME_REMEDY = "Give the schedule a shorter name."


def check_length(plans_name: str, configurations: Iterable[str], trainers: Iterable[str], remedy: str) -> None:
    """Refuses a plans' name that makes the name of a model's folder, or of a file that names the model, too long.

    Args:
        plans_name: of a step.
        configurations: that may be trained.
        trainers: that may train it.
        remedy: the error's last sentence.

    Raises:
        CILError: with the trainer.
    """
    for trainer, configuration in product(trainers, configurations):
        if len(model_folder_name(trainer, plans_name, configuration).encode()) > _LONGEST_NAME - _RESERVE:
            raise CILError(
                f"With {trainer} and {configuration} beside it, the plans' name {shortened(plans_name)} is too long for a "
                f"folder's. {remedy}"
            )


def step_plans_file(base: Mapping[str, Any], plans_name: str, step: StepPlan) -> dict[str, Any]:
    """Copies the base plans under another name, with the step's block.

    ``data_identifier`` stays, so that all steps share one preprocessed folder.
    """
    plans: dict[str, Any] = copy.deepcopy(dict(base))
    plans["plans_name"] = plans_name
    plans["cil"] = step.to_json()
    return plans


def planned_first_trainer(file: Path) -> str | None:
    """Returns whose step 0 the plans file of step 1 continues; None: each trainer's own, or there is no file."""
    if not file.is_file():
        return None
    block = read_json(file, _REDO).get("cil")
    plan: StepPlan = validated(StepPlan, block, f"The 'cil' block of {file}", _REDO)
    return None if plan.previous is None else plan.previous.trainer


def trained_models(file: Path) -> list[Path]:
    """Returns the folders of the models whose training has begun with a plans file."""
    results = nnunet_folder("nnUNet_results") / file.parent.name
    return sorted({c.parents[1] for c in results.glob(f"*__{glob.escape(file.stem)}__*/fold_*/checkpoint_*.pth")})


def without_kept(values: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Returns the hyper-parameters that a step's plans do not set already, if training has begun with them: that keeps these.

    Args:
        values: of the step, by name, as in a schedule.
        file: the step's plans.
    """
    models = trained_models(file)
    copies = [copy for copy in (file, *(model / "plans.json" for model in models)) if copy.is_file()]
    block = read_json(copies[0], _REDO).get("cil") if models and copies else None
    kept = block.get("hyperparameters", {}) if isinstance(block, dict) else {}
    return {name: value for name, value in values.items() if name not in kept or kept[name] != value}


def refuse_if_trained(file: Path, content: Mapping[str, Any]) -> None:
    """Refuses to change plans that a model was trained with.

    Args:
        file: of the plans; where it is missing, each model's own copy of them counts.
        content: that it is going to have.

    Raises:
        CILError: there is such a model.
    """
    used = [
        model for model in trained_models(file) if file.is_file() or not _has_same_step(model / "plans.json", content)
    ]
    if used:
        kept = read_json(file if file.is_file() else used[0] / "plans.json", _REDO)
        raise CILError(
            f"The plans {file.stem!r} would change, but {', '.join(model.name for model in used)} was trained with them. Restore "
            f"the schedule or give it another 'name', or remove that training.{_kept_settings(kept, content)}"
        )


def _kept_settings(kept: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Says what a trained step's hyper-parameters stay at, where the schedule changes them; a step may have its own."""
    then, now = kept.get("cil"), content["cil"]
    settings = then.get("hyperparameters", {}) if isinstance(then, dict) else now["hyperparameters"]
    if settings == now["hyperparameters"]:
        return ""
    other = {name: value for name, value in now["hyperparameters"].items() if settings.get(name) != value}
    instead = f", not {shortened(other)}" if other else ""
    return f' Step {now["step"]} keeps "hyperparameters": {json.dumps(settings)}{instead}; other steps may have others.'


def _has_same_step(file: Path, content: Mapping[str, Any]) -> bool:
    """Tells whether a model's copy of its plans says the same of the step, wherever the previous model is; true without one."""
    if not file.is_file():
        return True
    blocks = [plans.get("cil") for plans in (read_json(file, "Restore it, or remove that training."), content)]
    own, other = ({**block, "previous": None, "digest": None} if isinstance(block, dict) else None for block in blocks)
    return own == other
