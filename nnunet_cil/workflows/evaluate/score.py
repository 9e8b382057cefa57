"""A model on a set of cases: predicted with nnU-Net's own command, scored, and kept."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.files import score_files
from nnunet_cil.evaluation.segmentation import ClassScores
from nnunet_cil.files import files_sha256, is_cut_off, read_json, write_json
from nnunet_cil.host.commands import predict, user_environment
from nnunet_cil.host.folders import nnunet_folder, raw_dataset_folder
from nnunet_cil.labels import labelled_classes
from nnunet_cil.lineage import validation_means
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment, StepModel

Rows = Sequence[Mapping[str, Any]]
"""One a case and class."""

_FINISHED = "finished"
"""Stands with a folder's predictions once all are there. Without it the last files may be cut off by a kill."""


@dataclass(frozen=True)
class Case:
    """A case to score on.

    Attributes:
        name: with the data set's before it, as ``Dataset018_Spleen/case_1``, where there are several data sets.
        truth: the file of its true labels.
        image: the file of its first channel; it may be missing.
        labels: what the true labels' numbers mean, name -> number.
        classes: the model's classes that the true labels show.
    """

    name: str
    truth: Path
    image: Path
    labels: Mapping[str, int]
    classes: Sequence[str]

    def prediction(self, predictions: Path) -> Path:
        """Its file in a model's folder of predictions."""
        return predictions / Path(self.name).parent / self.truth.name


@dataclass(frozen=True)
class Scored:
    """A model's scores, and what they were taken from.

    Attributes:
        digest: SHA-256 of the checkpoint.
        cases: which were scored.
        predictions: folder, in which ``Case.prediction`` finds a case's.
        rows: one a case and class.
    """

    digest: str
    cases: Sequence[Case]
    predictions: Path
    rows: Rows


@dataclass(frozen=True)
class TestSet:
    """Images to predict, and their true labels.

    Attributes:
        images: folder.
        labels: folder.
        dataset: nnU-Net's name of the data set, where the schedule has several.
        numbers: of its labels, by name, where the schedule has several; else they are the model's data set's.
    """

    images: Path
    labels: Path
    dataset: str = ""
    numbers: Mapping[str, int] = field(default_factory=dict)


def test_sets(
    experiment: Experiment, fold: int | str, options: EvaluationOptions, output: Path
) -> list[TestSet | None]:
    """What every step's model is scored on: the test cases of each data set, else the fold's validation cases.

    None stands for validation cases that nnU-Net has predicted already, at the end of each step's training. Where steps learn
    from several data sets, or from different cases of one, each step has predicted others: then they are predicted here.

    Args:
        experiment: whose models.
        fold: of the models.
        options: what to score.
        output: takes links to the images of validation cases.

    Raises:
        CILError: images are given for several data sets, or one has neither test nor validation cases.
    """
    check_test_cases(experiment, options)
    if not _steps_differ(experiment):
        return [test_set(experiment.dataset_name, options)]
    found = {name: test_set(name, options) or _validation_set(name, fold, output) for name in experiment.data_sets}
    if len(found) == 1:
        return list(found.values())
    numbers = {model.folder.parent.name: model.plan.dataset_labels for model in experiment.models()}
    return [TestSet(test.images, test.labels, name, numbers[name]) for name, test in found.items()]


def _steps_differ(experiment: Experiment) -> bool:
    """Whether they have validation cases of their own each."""
    return len(experiment.data_sets) > 1 or experiment.schedule.cases == "disjoint"


def check_test_cases(experiment: Experiment, options: EvaluationOptions) -> None:
    """Refuses what models cannot be scored on; known before any training.

    Raises:
        CILError: a folder is missing; of several data sets, images are given; test cases are asked for and there are none; or
            there are none where fold "all" leaves no validation cases.
    """
    data_sets, folds = experiment.data_sets, experiment.folds
    if len(data_sets) > 1 and options.images is not None:
        raise CILError(
            f"-i and -l are for one data set, but the schedule has {', '.join(data_sets)}. Put the cases into imagesTs and "
            "labelsTs of each data set in nnUNet_raw."
        )
    found = {name: test_set(name, options) for name in data_sets}
    if options.cases == "validation" and "all" in folds:
        raise CILError("--cases validation: fold all leaves no validation cases. Choose other folds, or --cases test.")
    if not _steps_differ(experiment):
        return
    for name in data_sets:
        if "all" in folds and found[name] is None:
            raise CILError(
                f"{name} has no cases to score on: it has no imagesTs with labelsTs in nnUNet_raw, and fold all leaves no "
                "validation cases. Add test cases, or train other folds."
            )


def _validation_set(dataset: str, fold: int | str, output: Path) -> TestSet:
    """The fold's validation cases as images to predict: no model of the fold was trained on them."""
    from nnunet_cil.host.raw_dataset import read_raw

    preprocessed = nnunet_folder("nnUNet_preprocessed") / dataset
    file = preprocessed / "splits_final.json"
    splits = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    if int(fold) >= len(splits):
        what = "neither imagesTs with labelsTs in nnUNet_raw, nor" if own_test_set(dataset) is None else "no"
        raise CILError(
            f"{dataset} has no cases to score on: {what} validation cases of fold {fold} in {file}. Add test cases, or choose "
            "another fold."
        )
    raw = raw_dataset_folder(dataset)
    content = read_json(preprocessed / "dataset.json", "Run 'nnunet_cil plan' first.")
    cases = read_raw(raw, content).cases
    folder = output / "validation_images" / f"{dataset}_fold{fold}"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {
        f"{case}_{channel:04d}{content['file_ending']}": Path(image).resolve()
        for case in splits[int(fold)]["val"]
        for channel, image in enumerate(cases[case]["images"])
    }
    for old in folder.iterdir():
        if old.name not in wanted:
            old.unlink()
    for name, original in wanted.items():
        if not (folder / name).exists():
            _link(original, folder / name)
    return TestSet(folder, preprocessed / "gt_segmentations")


def _link(original: Path, file: Path) -> None:
    """A copy where the disk cannot hold links."""
    try:
        file.symlink_to(original)
    except OSError:
        shutil.copyfile(original, file)


def test_set(dataset: str, options: EvaluationOptions) -> TestSet | None:
    """Returns the images and labels to predict and score on; None for each fold's validation cases.

    Raises:
        CILError: a folder is missing, or test cases are asked for and the data set has none.
    """
    if options.images is not None and options.labels is not None:
        for folder in (options.images, options.labels):
            if not folder.is_dir():
                raise CILError(f"{folder} is not a folder.")
        return TestSet(options.images, options.labels)
    if options.cases == "validation":
        return None
    found = own_test_set(dataset)
    if found is None and options.cases == "test":
        raise CILError(
            f"--cases test: {dataset} has no imagesTs with labelsTs in nnUNet_raw. Add test cases, or choose --cases validation."
        )
    return found


def own_test_set(dataset: str) -> TestSet | None:
    """Returns imagesTs and labelsTs of a raw data set; None where it has no labelled test cases."""
    images, labels = (_raw(dataset) / folder for folder in ("imagesTs", "labelsTs"))
    has_labels = images.is_dir() and labels.is_dir() and any(labels.iterdir())
    return TestSet(images, labels) if has_labels else None


def passes_over_test_cases(experiment: Experiment, options: EvaluationOptions) -> bool:
    """Tells whether validation cases are asked for although there are test cases, which are scored by default."""
    return options.cases == "validation" and any(own_test_set(name) is not None for name in experiment.data_sets)


def score_model(
    model: StepModel,
    fold: int | str,
    tests: Sequence[TestSet | None],
    output: Path,
    options: EvaluationOptions,
    pool: Executor,
) -> Scored:
    """Predicts and scores; what was stored for the same model, predictions and true labels is taken from there.

    Of several data sets, those that label none of the model's classes are left out.
    """
    digest = sha256(model.fold(fold) / "checkpoint_final.pth")
    useful = [
        t for t in tests if t is None or not t.dataset or not t.numbers.keys().isdisjoint(model.plan.seen_classes)
    ]
    parts = [_predictions(model, fold, test, output, digest, options.device) for test in useful]
    predictions, cases = parts[0][0], [case for _, own in parts for case in own]
    file = output / "scores" / f"{model.trainer}_step{model.step}_fold{fold}.json"
    files = [f for case in cases for f in (case.truth, case.prediction(predictions))]
    wanted = {
        "checkpoint": digest,
        "tolerance_mm": options.tolerance_mm,
        "cases": {c.name: list(c.classes) for c in cases},
        "files_sha256": files_sha256(files),
    }
    rows = _stored(file, wanted)
    if rows is None:
        rows = score_cases(model, predictions, cases, options.tolerance_mm, pool)
        file.parent.mkdir(exist_ok=True)
        write_json(file, {**wanted, "rows": rows})
    return Scored(digest, cases, predictions, rows)


def _raw(dataset: str) -> Path:
    return nnunet_folder("nnUNet_raw") / dataset


def _predictions(
    model: StepModel, fold: int | str, test: TestSet | None, output: Path, digest: str, device: str
) -> tuple[Path, list[Case]]:
    """The folder of all of the model's predictions, made if need be, and the cases."""
    ending = str(read_json(model.folder / "dataset.json", "Train the step again.")["file_ending"])
    if test is None:
        predictions = target = model.fold(fold) / "validation"
        truth = nnunet_folder("nnUNet_preprocessed") / model.folder.parent.name / "gt_segmentations"
        images = _raw(model.folder.parent.name) / "imagesTr"
        names = sorted(p.name.removesuffix(ending) for p in predictions.glob(f"*{ending}"))
        if not names or not validation_means(model.fold(fold)):
            command = " ".join(["nnUNetv2_train", *model.train_arguments(fold), "--val"])
            raise CILError(f"{predictions} does not hold the predictions of the final checkpoint. Run '{command}'.")
    else:
        predictions = output / "predictions" / f"{model.trainer}_step{model.step}_fold{fold}"
        target = predictions / test.dataset
        truth, images = test.labels, test.images
        names = sorted({p.name.removesuffix(ending).rsplit("_", 1)[0] for p in test.images.glob(f"*{ending}")})
        if not names:
            raise CILError(f"{test.images} holds no images that end in {ending}.")
    before = f"{test.dataset}/" if test is not None and test.dataset else ""
    labels = test.numbers if test is not None and test.dataset else model.plan.dataset_labels
    dataset = nnunet_folder("nnUNet_preprocessed") / (test.dataset if before and test else model.folder.parent.name)
    content = read_json(dataset / "dataset.json", "Run 'nnunet_cil plan' first.")
    known = tuple(name for name in model.plan.seen_classes if name in labels)
    partly = labelled_classes(content, names, known)
    cases = [
        Case(
            f"{before}{name}",
            truth / f"{name}{ending}",
            images / f"{name}_0000{ending}",
            labels,
            partly.get(name, known),
        )
        for name in names
    ]
    for case in cases:
        if not case.truth.is_file():
            raise CILError(f"Case {case.name!r} has no true labels: {case.truth} is missing.")
    if test is not None:
        files = [case.prediction(predictions) for case in cases]
        _predict(model, fold, test.images, target, files, digest, device, output)
    return predictions, cases


def _predict(
    model: StepModel,
    fold: int | str,
    images: Path,
    target: Path,
    files: Sequence[Path],
    digest: str,
    device: str,
    output: Path,
) -> None:
    """nnUNetv2_predict, continued where files are missing; made anew when the model or the images are others."""
    sizes = "\n".join(
        f"{file.name} {file.stat().st_size}" for file in sorted(images.iterdir())
    )  # images are long to read
    source = f"{digest} {hashlib.sha256(sizes.encode()).hexdigest()[:16]} {images.resolve()}"
    mark = target / "predicted_from.txt"
    known = mark.read_text(encoding="utf-8").splitlines() if mark.is_file() else []
    is_same = known[:1] == [source]
    if is_same and _FINISHED in known and all(file.is_file() for file in files):
        return
    target.mkdir(parents=True, exist_ok=True)
    for file in files:  # before the mark, so that a kill leaves nothing that looks like this model's
        if file.is_file() and not (is_same and not is_cut_off(file)):
            file.unlink()
    mark.write_text(source, encoding="utf-8")
    arguments = ["-d", model.folder.parent.name, "-c", model.configuration, "-f", str(fold), "-tr", model.trainer]
    arguments += ["-p", model.plans_name, "-i", str(images), "-o", str(target), "-device", device]
    arguments += ["-npp", "1", "-nps", "1", *(["--continue_prediction"] if is_same else [])]
    missing = sum(not file.is_file() for file in files)
    log = "_".join(target.relative_to(output / "predictions").parts)
    if missing:
        predict(arguments, user_environment(), output / "logs" / f"{log}.txt", missing)
    mark.write_text(f"{source}\n{_FINISHED}\n", encoding="utf-8")


def score_cases(
    model: StepModel, predictions: Path, cases: Sequence[Case], tolerance_mm: float, pool: Executor
) -> list[dict[str, Any]]:
    """One row a case and class that its labels show, in parallel over the cases.

    Raises:
        CILError: a file is missing or unreadable, a grid or a label is not what it should be.
    """
    from tqdm import tqdm

    score = partial(_score, predictions, model.plan.labels, tolerance_mm)
    rows = []
    scored = pool.map(score, cases)
    for case, scores in zip(cases, tqdm(scored, total=len(cases), unit="case", leave=False), strict=True):
        rows += [{"case": case.name, "class": name, **asdict(s)} for name, s in scores.items()]
    return rows


def _score(predictions: Path, channels: Mapping[str, int], tolerance_mm: float, case: Case) -> dict[str, ClassScores]:
    """The scores of a case; called in another process."""
    return score_files(
        case.prediction(predictions),
        case.truth,
        classes={name: (channels[name], case.labels[name]) for name in case.classes},
        found_labels=frozenset(channels.values()),
        wanted_labels=frozenset(case.labels.values()),
        ignore_label=case.labels.get("ignore"),
        tolerance_mm=tolerance_mm,
    )


def _stored(file: Path, wanted: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Rows that were scored before, if they are of the same model, cases and files."""
    if not file.is_file():
        return None
    known = json.loads(file.read_text(encoding="utf-8"))
    return known["rows"] if {k: known.get(k) for k in wanted} == dict(wanted) else None


def sha256(file: Path) -> str:
    """Of a checkpoint."""
    from nnunet_cil.training.state import file_sha256

    return file_sha256(file)
