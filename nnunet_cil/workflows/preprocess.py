"""What ``nnunet_cil run`` does first: nnU-Net's planning and preprocessing, where it is missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from nnunet_cil.errors import CILError
from nnunet_cil.workflows.commands import call, user_environment
from nnunet_cil.workflows.folders import nnunet_folder, read_json

PLANNERS = {
    "nnUNetPlans": "ExperimentPlanner",
    **{f"nnUNetResEncUNet{size}Plans": f"nnUNetPlannerResEnc{size}" for size in ("M", "L", "XL")},
}
"""nnU-Net's plans -> the planner that makes them."""


def preprocess(
    dataset: str, configuration: str, base_plans: str, logs: Path, say: Callable[[str], None] = lambda _line: None
) -> None:
    """``nnUNetv2_plan_and_preprocess``, or ``nnUNetv2_preprocess`` where only the configuration's data are missing.

    Args:
        dataset: nnU-Net's name.
        configuration: nnU-Net's.
        base_plans: name; where they are missing, one of ``PLANNERS``.
        logs: folder of the commands' output.
        say: takes the command.

    Raises:
        CILError: the plans are not nnU-Net's own, or preprocessing failed.
    """
    folder = nnunet_folder("nnUNet_preprocessed") / dataset
    file = folder / f"{base_plans}.json"
    processes = ["-np", os.environ["nnUNet_def_n_proc"]] if "nnUNet_def_n_proc" in os.environ else []
    common = ["-d", str(int(dataset[7:10])), "-c", configuration, *processes]
    if file.is_file():
        known = read_json(file, "")["configurations"]
        identifier = known.get(configuration, {}).get("data_identifier")
        if identifier is None or (folder / identifier).is_dir():
            return  # what is wrong with the configuration, plan says
        command, arguments = "nnUNetv2_preprocess", [*common, "-plans_name", base_plans]
    elif base_plans in PLANNERS:
        command = "nnUNetv2_plan_and_preprocess"
        arguments = [*common, "-pl", PLANNERS[base_plans], "--verify_dataset_integrity"]
    else:
        raise CILError(
            f"{file} is missing, and only {', '.join(PLANNERS)} can be made here. Make it, or choose another -p."
        )
    say(f"{command} {' '.join(arguments)}")
    call(command, arguments, user_environment(), logs / "preprocessing.txt")
