"""The cases of an experiment's folds as they are split now, held against the records in the models' checkpoints."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from nnunet_cil.errors import CILError, few_names
from nnunet_cil.fold_cases import FoldCases
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import nnunet_folder
from nnunet_cil.host.splits import SPLITS_FILE, fold_of, refuse_few_cases, split_of
from nnunet_cil.workflows.model_fold import ModelFold


def current_cases(dataset: str, fold: int | str) -> FoldCases:
    """Returns the cases of a fold of a preprocessed data set, as they are split now.

    Args:
        dataset: nnU-Net's name.
        fold: nnU-Net's.

    Raises:
        CILError: there is no such fold, or the split cannot be used.
    """
    folder = nnunet_folder("nnUNet_preprocessed") / dataset
    found = fold_of(folder, fold, _all_cases(folder))
    return FoldCases.of(dataset, fold, found.training, found.validation, folder / SPLITS_FILE)


def _all_cases(folder: Path) -> list[str]:
    """Returns the cases of a preprocessed data set, by their reference labels."""
    ending = str(read_dataset_json(folder / "dataset.json")["file_ending"])
    return sorted(file.name.removesuffix(ending) for file in (folder / "gt_segmentations").glob(f"[!.]*{ending}"))


def num_folds(datasets: Iterable[str]) -> int:
    """Returns how many folds the preprocessed data sets have.

    Raises:
        CILError: one has too few cases for any, or they have not the same number.
    """
    found = {}
    for name in datasets:
        folder = nnunet_folder("nnUNet_preprocessed") / name
        cases = _all_cases(folder)
        found[name] = len(split_of(folder, cases))
        if found[name] == 0:
            refuse_few_cases(folder, len(cases), " A cascade needs the models of all folds.")
    if len(set(found.values())) > 1:
        told = ", ".join(f"{name} {number}" for name, number in found.items())
        raise CILError(f"A cascade needs the same folds in every data set, but they have: {told}. Split them alike.")
    return max(found.values())


def check_validation_cases(models: Iterable[ModelFold], data_sets: Collection[str]) -> list[str]:
    """Refuses validation cases that a model was trained on, at any of its steps.

    Args:
        models: trained.
        data_sets: nnU-Net's names of those whose validation cases are scored.

    Returns:
        Remarks on models of which it is not known, and on splits that have changed since.

    Raises:
        CILError: names the cases and the step.
    """
    remarks: dict[str, None] = {}
    for model in models if data_sets else ():
        records = model.records()
        if not records:
            remarks[f"It is not recorded which cases {model.checkpoint} was trained on."] = None
        for name in data_sets:
            cases = current_cases(name, model.fold)
            remarks |= dict.fromkeys(cases.check_against(records))
            if records and model.plan.cases is None:
                remarks |= dict.fromkeys(cases.changes_since(records[-1]))
    return list(remarks)


def note_trained_test_cases(models: Iterable[ModelFold], names: Collection[str]) -> list[str]:
    """Returns a remark on test cases that have the names of cases that a model was trained on, at any of its steps."""
    remarks: dict[str, None] = {}
    for record in (record for model in models for record in model.records()):
        if record.case_hashes is not None and (trained := record.case_hashes.trained_on(sorted(names))):
            remarks[
                f"Note: Training cases of step {record.step} ({record.dataset}) are called as the test cases "
                f"{few_names(trained)}. If they are the same, these are no test scores."
            ] = None
    return list(remarks)


def check_trained_before(model: ModelFold, trained: ModelFold) -> None:
    """Refuses a split under which a training would begin, or go on, with cases that its origin was trained on.

    Args:
        model: that is going to be trained or validated.
        trained: the model itself, or the nearest one before it that has a checkpoint.

    Raises:
        CILError: says what has changed.
    """
    records = trained.records()
    if not records:
        return
    cases = current_cases(model.model.dataset, model.fold).with_validation_of(model.plan.cases)
    cases.check_against(records)
    hashes = records[-1].case_hashes
    if trained == model and not model.is_trained and hashes is not None and model.plan.cases is None:
        cases.check_resumed(hashes, model.folder)
