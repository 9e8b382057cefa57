"""nnU-Net's planning and preprocessing, where it is missing."""

from __future__ import annotations

import glob
import logging
import os
import shlex
import shutil
from pathlib import Path

from nnunet_cil.errors import CILError, did_you_mean
from nnunet_cil.files import moved_into_place, parse_json
from nnunet_cil.host.case_files import training_cases, training_files
from nnunet_cil.host.commands import call, user_environment
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import id_argument, nnunet_folder
from nnunet_cil.host.plans_files import read_plans
from nnunet_cil.host.preprocessed import PreprocessedCases
from nnunet_cil.locks import Lock

logger = logging.getLogger(__name__)

PLANNERS = {
    "nnUNetPlans": "ExperimentPlanner",
    **{f"nnUNetResEncUNet{size}Plans": f"nnUNetPlannerResEnc{size}" for size in ("M", "L", "XL")},
}
"""nnU-Net's plans -> the planner that makes them."""

_CONFIGURATIONS = ("2d", "3d_lowres", "3d_fullres")
"""The configurations that nnU-Net's planners make; cascades are not supported."""


def preprocess(dataset: str, configuration: str, base_plans: str, logs: Path) -> None:
    """Runs ``nnUNetv2_plan_and_preprocess``; where there are plans already, only what is missing beside them.

    Args:
        dataset: nnU-Net's name.
        configuration: nnU-Net's.
        base_plans: the name of the plans; where they are missing, one of ``PLANNERS``.
        logs: the folder of the commands' output.

    Raises:
        CILError: the plans are not nnU-Net's own, preprocessing failed, or another process is at it that cannot be watched.
    """
    lock = Lock(nnunet_folder("nnUNet_preprocessed") / f".{dataset}.in_use.json", f"The preprocessing of {dataset}")
    lock.forget_ended()
    folder = nnunet_folder("nnUNet_preprocessed") / dataset
    if missing_commands(dataset, configuration, base_plans):
        lock.wait(logger.info)
        with lock.held():
            _remove_cut_off(folder / "dataset_fingerprint.json")
            _preprocess(dataset, configuration, base_plans, logs)
    elif lock.holder() is None:
        complete_label_copies(dataset)


def complete_label_copies(dataset: str) -> None:
    """Copies the label files that nnU-Net has preprocessed but not copied, or not to the end, since it was killed.

    It copies them once all cases are preprocessed. A label file that is newer than a preprocessed case is left alone.

    Args:
        dataset: nnU-Net's name; nothing happens where it is not preprocessed, or not in nnUNet_raw.
    """
    folder, raw = (nnunet_folder(variable) / dataset for variable in ("nnUNet_preprocessed", "nnUNet_raw"))
    if not (folder / "dataset.json").is_file() or not raw.is_dir():
        return
    dataset_json = read_dataset_json(folder / "dataset.json", "Plan and preprocess the data set again.")
    for case, files in training_files(raw, dataset_json).items():
        labels, copy = Path(files["label"]), folder / "gt_segmentations" / f"{case}{dataset_json['file_ending']}"
        if not labels.is_file() or not _is_cut_off_copy(copy, labels):
            continue
        done = [file.stat().st_mtime for file in folder.glob(f"*/{glob.escape(case)}.pkl")]
        if done and labels.stat().st_mtime <= min(done):
            with moved_into_place(copy) as temporary:
                shutil.copy2(labels, temporary)


def _is_cut_off_copy(copy: Path, original: Path) -> bool:
    """Tells whether a copy is missing, or ends early."""
    if not copy.is_file():
        return True
    if copy.stat().st_size >= original.stat().st_size:
        return False
    return original.read_bytes().startswith(copy.read_bytes())


def _remove_cut_off(file: Path) -> None:
    """Removes a JSON file of nnU-Net that it has not written to the end, since it was killed: it would fail on it."""
    if file.is_file():
        text = file.read_text(encoding="utf-8", errors="replace").rstrip()
        if text.splitlines()[-1:] != ["}"] and not _is_json(text):
            file.unlink()


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except ValueError:
        return False
    return True


def _preprocess(dataset: str, configuration: str, base_plans: str, logs: Path) -> None:
    processes = ["-np", os.environ["nnUNet_def_n_proc"]] if "nnUNet_def_n_proc" in os.environ else []
    for command, *arguments in missing_commands(dataset, configuration, base_plans):
        logger.info(shlex.join([command, *arguments, *processes]))
        call(command, [*arguments, *processes], user_environment(), logs / "preprocessing.txt")


def missing_commands(dataset: str, configuration: str, base_plans: str) -> list[list[str]]:
    """Returns nnU-Net's commands that are left before a configuration can be trained; empty where all is there.

    Raises:
        CILError: there are no plans, and nnU-Net makes none of that name, or no such configuration; or it finds several data
            sets by the ID.
    """
    folder = nnunet_folder("nnUNet_preprocessed") / dataset
    plans = folder / f"{base_plans}.json"
    if not plans.is_file():
        if base_plans not in PLANNERS:
            raise CILError(
                f"{plans} is missing, and only {', '.join(PLANNERS)} can be made here. Make it, or choose another -p."
            )
        if configuration not in _CONFIGURATIONS:
            raise CILError(
                f"nnU-Net plans no configuration {configuration!r}{did_you_mean(configuration, _CONFIGURATIONS)}."
            )
        how = ["-c", configuration, "-pl", PLANNERS[base_plans], "--verify_dataset_integrity"]
        return [["nnUNetv2_plan_and_preprocess", "-d", id_argument(dataset), *how]]
    commands = []
    if not (folder / "dataset_fingerprint.json").is_file():  # plans from elsewhere; training wants it all the same
        commands.append(["nnUNetv2_extract_fingerprint", "-d", id_argument(dataset), "--verify_dataset_integrity"])
    content = read_plans(plans, "")
    known = configuration in content["configurations"]  # what is wrong with it, plan says
    if known and not _is_complete(PreprocessedCases.of(folder, content, configuration)):
        commands.append(
            ["nnUNetv2_preprocess", "-d", id_argument(dataset), "-c", configuration, "-plans_name", base_plans]
        )
    return commands


def _is_complete(preprocessed: PreprocessedCases) -> bool:
    """Returns whether every case is there, with all of its files; where the raw files are gone, whether any is."""
    done, folder = set(preprocessed.complete_names()), preprocessed.folder.parent
    raw = nnunet_folder("nnUNet_raw") / folder.name
    # nnU-Net preprocesses what this copy of dataset.json says
    dataset_json = read_dataset_json(folder / "dataset.json", "Plan and preprocess the data set again.")
    return bool(done) and training_cases(raw, dataset_json) <= done
