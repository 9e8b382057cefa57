"""The cases on which models are scored: test cases, or the validation cases of each fold."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nnunet_cil.content import file_sha256, files_sha256
from nnunet_cil.errors import CILError, few_names
from nnunet_cil.host.case_files import first_images, image_cases
from nnunet_cil.host.dataset_json import description_of, read_dataset_json
from nnunet_cil.host.folders import nnunet_folder, raw_dataset_folder
from nnunet_cil.host.raw_dataset import read_raw
from nnunet_cil.host.reading.spacings import with_spacing_files
from nnunet_cil.host.splits import SPLITS_FILE, read_split
from nnunet_cil.labels import Label, labelled_classes
from nnunet_cil.predicted_from import PredictedFrom
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.fold_records import current_cases
from nnunet_cil.workflows.model_fold import ModelFold
from nnunet_cil.workflows.planned_experiment import PlannedExperiment


@dataclass(frozen=True, kw_only=True)
class Case:
    """A case on which a model is scored.

    Attributes:
        name: with the data set's before it, as ``Dataset018_Spleen/case_1``, where there are several data sets.
        reference: the file of its reference labels.
        image: the file of its first channel; it may be missing.
        labels: what the numbers of the reference labels mean, name -> number or region.
        classes: the model's classes that the reference labels.
    """

    name: str
    reference: Path
    image: Path
    labels: Mapping[str, Label]
    classes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """Images to predict, and their reference labels.

    Attributes:
        images: folder.
        labels: folder.
        dataset: nnU-Net's name of the data set, where the schedule has several.
        numbers: of the labels, by name, where they may be others than the model's data set's.
        description: the dataset.json that names the labels, where it is another data set's.
    """

    images: Path
    labels: Path
    dataset: str = ""
    numbers: Mapping[str, Label] = field(default_factory=dict)
    description: Path | None = None

    def labels_any_of(self, classes: Sequence[str]) -> bool:
        """Tells whether any of the classes is labelled. The model's data set labels those of every step."""
        return not self.numbers or not self.numbers.keys().isdisjoint(classes)


def test_sets(
    planned: PlannedExperiment, fold: int | str, options: EvaluationOptions, output: Path
) -> list[TestSet | None]:
    """Returns what every step's model is scored on: the test cases of each data set, or the fold's validation cases.

    None stands for validation cases that nnU-Net has predicted already, at the end of each step's training. Where steps learn
    from several data sets, or from different cases of one, each step has predicted others: then they are predicted here.

    Args:
        planned: whose models.
        fold: of the models.
        options: what to score.
        output: takes links to the images of validation cases.

    Raises:
        CILError: images are given for several data sets, or one has neither test nor validation cases.
    """
    experiment = planned.experiment
    check_test_cases(experiment, options)
    if not _steps_differ(experiment):
        return [test_set(experiment.dataset_name, options)]
    found = {name: test_set(name, options) or validation_set(name, fold, output) for name in experiment.data_sets}
    if len(found) == 1:
        return list(found.values())
    numbers = {file.parent.name: plan.dataset_labels for file, plan in zip(planned.files, planned.plans, strict=True)}
    return [replace(test, dataset=name, numbers=numbers[name]) for name, test in found.items()]


def _steps_differ(experiment: Experiment) -> bool:
    """Tells whether each step has validation cases of its own."""
    return len(experiment.data_sets) > 1 or experiment.schedule.cases == "disjoint"


def check_test_cases(experiment: Experiment, options: EvaluationOptions) -> None:
    """Refuses what models cannot be scored on; known before any training.

    Raises:
        CILError: a folder is missing; of several data sets, images are given; test cases are asked for and there are none; or
            there are none where fold "all" leaves no validation cases.
    """
    data_sets = experiment.data_sets
    if len(data_sets) > 1 and options.images is not None:
        raise CILError(
            f"-i and -l are for one data set, but the schedule has {', '.join(data_sets)}. Put the cases into imagesTs and "
            "labelsTs of each data set in nnUNet_raw."
        )
    found = {name: test_set(name, options) for name in data_sets}
    for test in found.values():
        if test is not None and not test.labels_any_of(
            [name for step in experiment.schedule.steps for name in step.classes]
        ):
            named = ", ".join(name for name in test.numbers if name != "background")
            raise CILError(
                f"The labels in {test.labels} are {named}, as {test.description} says: no class of the schedule. Classes are "
                f"matched by name: correct that file, or put one with the right names into {test.labels}."
            )
    if "all" not in experiment.folds:
        return
    if options.cases == "validation":
        raise CILError("--cases validation: fold all leaves no validation cases. Choose other folds, or --cases test.")
    for name, test in found.items():
        if test is None:
            raise CILError(
                f"{name} has no cases to score on: it has no imagesTs with labelsTs in nnUNet_raw, and fold all leaves no "
                "validation cases. Add test cases, give some with -i and -l, or train other folds."
            )


def validation_data_sets(experiment: Experiment, options: EvaluationOptions) -> list[str]:
    """Returns the data sets whose validation cases are scored, by nnU-Net's names."""
    return [name for name in experiment.data_sets if test_set(name, options) is None]


def test_case_names(experiment: Experiment, options: EvaluationOptions) -> set[str]:
    """Returns the names of the test cases that are scored, of all data sets."""
    names: set[str] = set()
    for name in experiment.data_sets:
        if (test := test_set(name, options)) is not None:
            content = read_dataset_json(
                nnunet_folder("nnUNet_preprocessed") / name / "dataset.json", "Run 'nnunet_cil plan' first."
            )
            names |= set(image_cases(test.images, str(content["file_ending"])))
    return names


def check_predicted(planned: PlannedExperiment, options: EvaluationOptions) -> list[str]:
    """Refuses a model whose validation cases nnU-Net has not predicted, where these predictions are scored.

    Returns:
        Notes on predictions that somebody has changed.

    Raises:
        CILError: with the command that predicts them.
    """
    experiment, notes = planned.experiment, []
    if validation_data_sets(experiment, options) and not _steps_differ(experiment):
        for model in planned.model_folds():
            files = [
                model.folder / "validation" / case.reference.name for case in cases_of(model, None, options.device)
            ]
            record = PredictedFrom.read(model.folder / "validation")
            if changed := [file.name for file in files if record is not None and not record.holds(file)]:
                where = files[0].parent
                notes.append(
                    f"Note: {few_names(changed)} in {where} changed after the validation; they are scored as they are."
                )
    return notes


def test_set(dataset: str, options: EvaluationOptions) -> TestSet | None:
    """Returns the images and labels to predict and score on; None for the validation cases of each fold.

    Raises:
        CILError: a folder is missing, or test cases are asked for and the data set has none.
    """
    if options.images is not None and options.labels is not None:
        for folder in (options.images, options.labels):
            if not folder.is_dir():
                raise CILError(f"{folder} is not a folder.")
        return _given(dataset, options.images, options.labels)
    if options.cases == "validation":
        return None
    found = _own_test_set(dataset)
    if found is None and options.cases == "test":
        raise CILError(
            f"--cases test: {dataset} has no imagesTs with labelsTs in nnUNet_raw. Add test cases, or choose --cases validation."
        )
    return found


def _given(dataset: str, images: Path, labels: Path) -> TestSet:
    """Returns a test set whose labels are named by the dataset.json in their folder or above it, else as the data set's."""
    file = description_of(labels)
    own = {nnunet_folder(root) / dataset for root in ("nnUNet_raw", "nnUNet_preprocessed")}
    if file is None or file.resolve().parent in {folder.resolve() for folder in own}:
        return TestSet(images=images, labels=labels)
    return TestSet(images=images, labels=labels, numbers=read_dataset_json(file)["labels"], description=file)


def _own_test_set(dataset: str) -> TestSet | None:
    """Returns imagesTs and labelsTs of a raw data set; None where it has no labelled test cases."""
    images, labels = (nnunet_folder("nnUNet_raw") / dataset / folder for folder in ("imagesTs", "labelsTs"))
    has_labels = images.is_dir() and labels.is_dir() and any(not f.name.startswith(".") for f in labels.iterdir())
    return TestSet(images=images, labels=labels) if has_labels else None


def passes_over_test_cases(experiment: Experiment, options: EvaluationOptions) -> bool:
    """Tells whether validation cases are asked for although there are test cases, which are scored by default."""
    return options.cases == "validation" and any(_own_test_set(name) is not None for name in experiment.data_sets)


def validation_set(dataset: str, fold: int | str, output: Path) -> TestSet:
    """Returns the fold's validation cases as images to predict.

    Raises:
        CILError: the fold has none, or nnUNet_raw lacks one.
    """
    preprocessed = nnunet_folder("nnUNet_preprocessed") / dataset
    if int(fold) >= len(read_split(preprocessed)):
        what = "neither imagesTs with labelsTs in nnUNet_raw, nor" if _own_test_set(dataset) is None else "no"
        raise CILError(
            f"{dataset} has no cases to score on: {what} validation cases of fold {fold} in {preprocessed / SPLITS_FILE}. Add "
            "test cases, or choose another fold."
        )
    content = read_dataset_json(preprocessed / "dataset.json", "Run 'nnunet_cil plan' first.")
    raw, names = read_raw(raw_dataset_folder(dataset), content), current_cases(dataset, fold).validation
    if missing := [name for name in names if name not in raw.cases]:
        raise CILError(f"{raw.folder} lacks the validation cases {few_names(missing)} of fold {fold}. Restore them.")
    images = {
        f"{name}_{channel:04d}{content['file_ending']}": Path(image).absolute()
        for name in names
        for channel, image in enumerate(raw.cases[name]["images"])
    }
    folder = output / "validation_images" / f"{dataset}_fold{fold}"
    _link_all(with_spacing_files(images), folder)
    return TestSet(images=folder, labels=preprocessed / "gt_segmentations")


def _link_all(files: Mapping[str, Path], folder: Path) -> None:
    """Makes a folder that holds links to files, by their new names, and nothing else; copies where it cannot hold links."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.name not in files:
            old.unlink()
    for name, original in files.items():
        link = folder / name
        if link.is_symlink():
            is_right = Path(os.readlink(link)) == original  # not where the data were before they were moved
        else:
            is_right = link.is_file() and file_sha256(link) == file_sha256(original)
        if is_right:
            continue
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(original)
        except OSError:
            shutil.copyfile(original, link)


def cases_of(model: ModelFold, test: TestSet | None, device: str = "cuda") -> list[Case]:
    """Returns the cases of a test set on which a model is scored.

    Args:
        model: trained.
        test: None for the fold's validation cases.
        device: that the command which predicts validation cases is to name.

    Raises:
        CILError: there is no image, or a case has no reference labels; or nnU-Net has not predicted a validation case.
    """
    names, ending = _case_names(model, test, device)
    dataset = test.dataset if test is not None and test.dataset else model.model.dataset
    preprocessed = nnunet_folder("nnUNet_preprocessed") / dataset
    content = read_dataset_json(preprocessed / "dataset.json", "Run 'nnunet_cil plan' first.")
    if test is None:
        references = preprocessed / "gt_segmentations"
        images = first_images(nnunet_folder("nnUNet_raw") / dataset, content, names)
    else:
        references, images = test.labels, {name: test.images / f"{name}_0000{ending}" for name in names}
    is_named = test is not None and bool(test.dataset)
    labels = test.numbers if test is not None and test.numbers else model.plan.dataset_labels
    known = tuple(name for name in model.plan.seen_classes if name in labels)
    described = content if test is None or test.description is None else read_dataset_json(test.description)
    partly = labelled_classes(described, names, known)
    cases = [
        Case(
            name=f"{dataset}/{name}" if is_named else name,
            reference=references / f"{name}{ending}",
            image=images.get(name, Path()),
            labels=labels,
            classes=partly.get(name, known),
        )
        for name in names
    ]
    for case in cases:
        if not case.reference.is_file():
            raise CILError(f"Case {case.name!r} has no reference labels: {case.reference} is missing.")
    return cases


def _case_names(model: ModelFold, test: TestSet | None, device: str) -> tuple[list[str], str]:
    """Returns the names of the files that a model is scored on, and their ending."""
    ending = str(read_dataset_json(model.model.folder / "dataset.json", "Train the step again.")["file_ending"])
    if test is not None:
        names = image_cases(test.images, ending)
        if not names:
            raise CILError(f"{test.images} holds no images that end in {ending}.")
        return names, ending
    return _validated_cases(model, ending, device), ending


def _validated_cases(model: ModelFold, file_ending: str, device: str) -> list[str]:
    """Returns the validation cases of the fold, which nnU-Net must have predicted with the final checkpoint."""
    names = sorted(current_cases(model.model.dataset, model.fold).validation)
    predictions = model.folder / "validation"
    record = PredictedFrom.read(predictions) if model.is_validated else None
    files = {name: predictions / f"{name}{file_ending}" for name in names}
    missing = [n for n, file in files.items() if record is None or file.name not in record.files or not file.is_file()]
    if missing or record is None:
        command = model.train_command("--val", device=device)
        which = "" if record is None else f" of {few_names(missing)}"
        raise CILError(f"{predictions} does not hold the predictions of the final checkpoint{which}. Run '{command}'.")
    return names


def describe_cases(experiment: Experiment, options: EvaluationOptions) -> str:
    """Says which cases are scored; of several data sets, each one's."""
    found = {name: test_set(name, options) for name in experiment.data_sets}
    if len(found) == 1:
        return next("validation" if test is None else str(test.labels) for test in found.values())
    return ", ".join(f"{name}: {'validation' if test is None else test.labels.name}" for name, test in found.items())


def references_sha256(experiment: Experiment, options: EvaluationOptions) -> str:
    """Returns the SHA-256 of the reference labels, those of all data sets."""
    files: list[Path] = []
    for name in experiment.data_sets:
        test = test_set(name, options)
        folder = nnunet_folder("nnUNet_preprocessed") / name / "gt_segmentations" if test is None else test.labels
        files += sorted(file for file in folder.iterdir() if file.is_file())
        files += [test.description] if test is not None and test.description is not None else []
    return files_sha256(files)
