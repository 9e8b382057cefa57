"""The plans file of a step: what it holds, and when it may change."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json
from nnunet_cil.host.folders import nnunet_folder
from nnunet_cil.step_plans import StepPlan

_REDO = "Remove it and run 'nnunet_cil plan' again."


def step_plans_file(base: Mapping[str, Any], plans_name: str, step: StepPlan) -> dict[str, Any]:
    """Copies the base plans under another name, with the step's block.

    ``data_identifier`` stays, so that all steps share one preprocessed folder. ``next_stage`` goes: it makes
    nnU-Net predict for a cascade, which is not supported.
    """
    plans: dict[str, Any] = copy.deepcopy(dict(base))
    plans["plans_name"] = plans_name
    for configuration in plans["configurations"].values():
        configuration.pop("next_stage", None)
    plans["cil"] = step.to_json()
    return plans


def planned_first_trainer(file: Path) -> str | None:
    """Returns whose step 0 the plans file of step 1 continues; None: each trainer's own, or there is no file."""
    if not file.is_file():
        return None
    first: str | None = read_json(file, _REDO)["cil"]["previous"]["trainer"]
    return first


def refuse_if_trained(dataset: str, plans_name: str) -> None:
    """Refuses to change plans that a model was trained with.

    Args:
        dataset: nnU-Net's name.
        plans_name: the name of the plans.

    Raises:
        CILError: there is such a model.
    """
    results = nnunet_folder("nnUNet_results") / dataset
    used = sorted({c.parent.parent.name for c in results.glob(f"*__{plans_name}__*/fold_*/checkpoint_*.pth")})
    if used:
        raise CILError(
            f"The plans {plans_name!r} would change, but {', '.join(used)} was trained with them. Give the "
            "schedule another name, or remove that training."
        )
