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
from nnunet_cil.host.label_record import LabelRecord
from nnunet_cil.host.plans_files import preprocessed_for, read_plans, stages
from nnunet_cil.host.preprocessed import PreprocessedCases
from nnunet_cil.locks import Lock

logger = logging.getLogger(__name__)

PLANNERS = {
    "nnUNetPlans": "ExperimentPlanner",
    **{f"nnUNetResEncUNet{size}Plans": f"nnUNetPlannerResEnc{size}" for size in ("M", "L", "XL")},
}
"""nnU-Net's plans -> the planner that makes them."""

_REDO = "Copy that of nnUNet_raw there, or plan and preprocess the data set again."

_CONFIGURATIONS = {
    **{name: (name,) for name in ("2d", "3d_lowres", "3d_fullres")},
    "3d_cascade_fullres": ("3d_lowres", "3d_fullres"),
}
"""The configurations that nnU-Net's planners make -> those that are preprocessed for them."""

_SHARED = ("2d", "3d_fullres")
"""Those whose cases all of nnU-Net's planners preprocess alike, into the folder of nnUNetPlans."""

_FIRST_LINES = '{\n    "'
"""How a JSON file of nnU-Net's begins."""


def is_planned_as_cascade(configuration: str) -> bool:
    """Tells whether nnU-Net's planners make a cascade of that name."""
    return len(_CONFIGURATIONS.get(configuration, ())) > 1


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
    lock, folder = _lock(dataset), nnunet_folder("nnUNet_preprocessed") / dataset
    lock.forget_ended()
    recover(dataset, base_plans)
    if missing_commands(dataset, configuration, base_plans):
        with lock.held_in_turn(logger.info):
            _preprocess(dataset, configuration, base_plans, logs)
    elif lock.holder() is None:
        for cases in _cases_folders(folder, configuration, base_plans):
            LabelRecord.finish(cases, _label_files(dataset))
        complete_label_copies(dataset)


def _lock(dataset: str) -> Lock:
    return Lock(nnunet_folder("nnUNet_preprocessed") / f".{dataset}.in_use.json", f"The preprocessing of {dataset}")


def recover(dataset: str, base_plans: str) -> None:
    """Removes or restores what nnU-Net's planning has not written to its end, since it was killed, and would fail on.

    Its fingerprint and its plans are removed: it makes them anew. Plans stay where something was preprocessed with them. The
    copy of dataset.json is made again where it holds the beginning of the original, or where it is missing beside plans and
    nothing is preprocessed. Nothing happens while another process preprocesses the data set.

    Args:
        dataset: nnU-Net's name.
        base_plans: the name of the plans.
    """
    folder, original = (nnunet_folder(v) / dataset for v in ("nnUNet_preprocessed", "nnUNet_raw"))
    anew = [folder / "dataset_fingerprint.json"]
    if base_plans in PLANNERS and not any(path.is_dir() for path in folder.glob(f"{glob.escape(base_plans)}_*")):
        anew.append(folder / f"{base_plans}.json")
    anew = [file for file in anew if _is_cut_off_json(file)]
    copy, original = folder / "dataset.json", original / "dataset.json"
    is_wanted = copy.is_file() or ((folder / f"{base_plans}.json").is_file() and not any(folder.glob("*/*.pkl")))
    is_lacking = is_wanted and original.is_file() and _is_cut_off_copy(copy, original)
    lock = _lock(dataset)
    if (anew or is_lacking) and lock.holder() is None:
        with lock.held():
            for file in anew:
                file.unlink(missing_ok=True)
            if is_lacking:
                with moved_into_place(copy) as temporary:
                    shutil.copyfile(original, temporary)


def complete_label_copies(dataset: str) -> None:
    """Copies the label files that nnU-Net has preprocessed but not copied, or not to the end, since it was killed.

    It copies them once all cases are preprocessed. Only a label file that is known to be the one that was preprocessed is
    copied: by the record of this package, or by a copy that holds the beginning of it.

    Args:
        dataset: nnU-Net's name; nothing happens where it is not preprocessed, or not in nnUNet_raw.
    """
    folder = nnunet_folder("nnUNet_preprocessed") / dataset
    if not (folder / "dataset.json").is_file():
        return
    ending = read_dataset_json(folder / "dataset.json", _REDO)["file_ending"]
    records: dict[Path, LabelRecord] = {}
    for case, labels in _label_files(dataset).items():
        copy = folder / "gt_segmentations" / f"{case}{ending}"
        if not labels.is_file() or not _is_cut_off_copy(copy, labels):
            continue
        made = [file.parent for file in folder.glob(f"*/{glob.escape(case)}.pkl")]
        records |= {own: LabelRecord.read(own) for own in made if own not in records}
        known = [records[own].is_from(own, case, labels) for own in made]
        is_begun = copy.is_file() and copy.stat().st_size > 0
        if made and False not in known and (is_begun or True in known):
            with moved_into_place(copy) as temporary:
                shutil.copy2(labels, temporary)


def _label_files(dataset: str) -> dict[str, Path]:
    """Returns case -> label file in nnUNet_raw, as the preprocessed dataset.json lists them; empty where one is missing."""
    folder, raw = (nnunet_folder(variable) / dataset for variable in ("nnUNet_preprocessed", "nnUNet_raw"))
    file = folder / "dataset.json"
    file = file if file.is_file() else raw / "dataset.json"
    if not file.is_file() or not raw.is_dir():
        return {}
    content = read_dataset_json(file, _REDO)
    return {case: Path(files["label"]) for case, files in training_files(raw, content).items()}


def _cases_folders(folder: Path, configuration: str, base_plans: str) -> list[Path]:
    """Returns the folders of the cases that are preprocessed for a configuration, two for a cascade.

    Of plans that are not there, as nnU-Net will call them.
    """
    file = folder / f"{base_plans}.json"
    plans = read_plans(file, "") if file.is_file() else {"configurations": {}}
    if configuration in plans["configurations"]:
        return [PreprocessedCases.of(folder, plans, stage).folder for stage in stages(plans, configuration)]
    names = _CONFIGURATIONS.get(configuration, (configuration,))
    shared = _SHARED if base_plans in PLANNERS else ()
    return [folder / f"{'nnUNetPlans' if name in shared else base_plans}_{name}" for name in names]


def _is_cut_off_copy(copy: Path, original: Path) -> bool:
    """Tells whether a copy is missing, or ends early."""
    if not copy.is_file():
        return True
    if copy.stat().st_size >= original.stat().st_size:
        return False
    return original.read_bytes().startswith(copy.read_bytes())


def _is_cut_off_json(file: Path) -> bool:
    """Tells whether a JSON file of nnU-Net, whose last line is a brace, does not end with it, and is no JSON.

    A file of another form was written by a user, whose mistake in it is no reason to remove it.
    """
    if not file.is_file():
        return False
    text = file.read_text(encoding="utf-8", errors="replace")
    if not _FIRST_LINES.startswith(text[: len(_FIRST_LINES)]) or text.rstrip().splitlines()[-1:] == ["}"]:
        return False
    try:
        parse_json(text)
    except ValueError:
        return True
    return False


def _preprocess(dataset: str, configuration: str, base_plans: str, logs: Path) -> None:
    processes = ["-np", os.environ["nnUNet_def_n_proc"]] if "nnUNet_def_n_proc" in os.environ else []
    commands = missing_commands(dataset, configuration, base_plans)
    folder = nnunet_folder("nnUNet_preprocessed") / dataset
    is_preprocessed = any("preprocess" in command for command, *_ in commands)
    if is_preprocessed:
        folder.mkdir(exist_ok=True)
        for cases in _cases_folders(folder, configuration, base_plans):
            LabelRecord.begin(cases, _label_files(dataset))
    for command, *arguments in commands:
        logger.info(shlex.join([command, *arguments, *processes]))
        call(command, [*arguments, *processes], user_environment(), logs / "preprocessing.txt")
    if is_preprocessed:
        for cases in _cases_folders(folder, configuration, base_plans):
            LabelRecord.finish(cases, _label_files(dataset))


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
        how = ["-c", *_CONFIGURATIONS[configuration], "-pl", PLANNERS[base_plans], "--verify_dataset_integrity"]
        return [["nnUNetv2_plan_and_preprocess", "-d", id_argument(dataset), *how]]
    commands = []
    if not (folder / "dataset_fingerprint.json").is_file():  # plans from elsewhere; training wants it all the same
        commands.append(["nnUNetv2_extract_fingerprint", "-d", id_argument(dataset), "--verify_dataset_integrity"])
    content = read_plans(plans, "")
    known = configuration in content["configurations"]  # what is wrong with it, plan says
    names = preprocessed_for(content, configuration) if known else []
    if missing := [name for name in names if not _is_complete(PreprocessedCases.of(folder, content, name))]:
        commands.append(["nnUNetv2_preprocess", "-d", id_argument(dataset), "-c", *missing, "-plans_name", base_plans])
    return commands


def _is_complete(preprocessed: PreprocessedCases) -> bool:
    """Returns whether every case is there, with all of its files; where the raw files are gone, whether any is."""
    done, folder = set(preprocessed.complete_names()), preprocessed.folder.parent
    raw = nnunet_folder("nnUNet_raw") / folder.name
    # nnU-Net preprocesses what this copy of dataset.json says
    dataset_json = read_dataset_json(folder / "dataset.json", _REDO)
    return bool(done) and training_cases(raw, dataset_json) <= done
