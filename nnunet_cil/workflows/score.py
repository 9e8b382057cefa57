"""A model on a set of cases: predicted with nnU-Net's own command, scored, and kept."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.files import score_files
from nnunet_cil.workflows.commands import predict, user_environment
from nnunet_cil.workflows.folders import nnunet_folder, read_json, write_json
from nnunet_cil.workflows.models import StepModel

Rows = Sequence[Mapping[str, Any]]
"""One a case and class."""


@dataclass(frozen=True)
class Case:
    """A case to score on: its name, the file of its true labels, and that of its first channel (it may be missing)."""

    name: str
    truth: Path
    image: Path


@dataclass(frozen=True)
class Scored:
    """A model's scores, and what they were taken from.

    Attributes:
        digest: SHA-256 of the checkpoint.
        cases: which were scored.
        predictions: folder.
        rows: one a case and class.
    """

    digest: str
    cases: Sequence[Case]
    predictions: Path
    rows: Rows


@dataclass(frozen=True)
class TestSet:
    """Images to predict, and their true labels."""

    images: Path
    labels: Path


def test_set(dataset: str, images: Path | None, labels: Path | None) -> TestSet | None:
    """Images and labels to predict and score on; None for each fold's validation cases."""
    if (images is None) != (labels is None):
        raise CILError("Give -i IMAGES and -l LABELS together.")
    if images is None or labels is None:
        raw = _raw(dataset)
        images, labels = raw / "imagesTs", raw / "labelsTs"
        if not images.is_dir() or not labels.is_dir() or not any(labels.iterdir()):
            return None
    for folder in (images, labels):
        if not folder.is_dir():
            raise CILError(f"{folder} is not a folder.")
    return TestSet(images, labels)


def score_model(
    model: StepModel,
    fold: int | str,
    test: TestSet | None,
    output: Path,
    device: str,
    tolerance_mm: float,
    pool: Executor,
) -> Scored:
    """Predicts and scores; what was stored for the same model and cases is taken from there."""
    digest = sha256(model.fold(fold) / "checkpoint_final.pth")
    predictions, cases = _predictions(model, fold, test, output, digest, device)
    file = output / "scores" / f"{model.trainer}_step{model.step}_fold{fold}.json"
    wanted = {"checkpoint": digest, "tolerance_mm": tolerance_mm, "cases": [c.name for c in cases]}
    rows = _stored(file, wanted)
    if rows is None:
        rows = score_cases(model, predictions, cases, tolerance_mm, pool)
        file.parent.mkdir(exist_ok=True)
        write_json(file, {**wanted, "rows": rows})
    return Scored(digest, cases, predictions, rows)


def _raw(dataset: str) -> Path:
    return Path(os.environ.get("nnUNet_raw", "")) / dataset


def _predictions(
    model: StepModel, fold: int | str, test: TestSet | None, output: Path, digest: str, device: str
) -> tuple[Path, list[Case]]:
    """The folder of the model's predictions, made if need be, and the cases."""
    ending = str(read_json(model.folder / "dataset.json", "Train the step again.")["file_ending"])
    if test is None:
        predictions = model.fold(fold) / "validation"
        truth = nnunet_folder("nnUNet_preprocessed") / model.folder.parent.name / "gt_segmentations"
        images = _raw(model.folder.parent.name) / "imagesTr"
        names = sorted(p.name.removesuffix(ending) for p in predictions.glob(f"*{ending}"))
        if not names:
            raise CILError(
                f"{predictions} holds no predictions. Run 'nnUNetv2_train {' '.join(model.train_arguments(fold))} --val'."
            )
    else:
        predictions = output / "predictions" / f"{model.trainer}_step{model.step}_fold{fold}"
        truth, images = test.labels, test.images
        names = sorted({p.name.removesuffix(ending).rsplit("_", 1)[0] for p in test.images.glob(f"*{ending}")})
        if not names:
            raise CILError(f"{test.images} holds no images that end in {ending}.")
    cases = [Case(name, truth / f"{name}{ending}", images / f"{name}_0000{ending}") for name in names]
    for case in cases:
        if not case.truth.is_file():
            raise CILError(f"Case {case.name!r} has no true labels: {case.truth} is missing.")
    if test is not None:
        files = [predictions / f"{case.name}{ending}" for case in cases]
        _predict(model, fold, test.images, predictions, files, digest, device, output)
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
    mark, source = target / "predicted_from.txt", f"{digest} {images.resolve()}"
    is_same = mark.is_file() and mark.read_text(encoding="utf-8") == source
    if is_same and all(file.is_file() for file in files):
        return
    target.mkdir(parents=True, exist_ok=True)
    if not is_same:
        for file in files:  # before the mark, so that a kill leaves nothing that looks like this model's
            file.unlink(missing_ok=True)
        mark.write_text(source, encoding="utf-8")
    arguments = ["-d", model.folder.parent.name, "-c", model.configuration, "-f", str(fold), "-tr", model.trainer]
    arguments += ["-p", model.plans_name, "-i", str(images), "-o", str(target), "-device", device]
    arguments += ["-npp", "1", "-nps", "1", *(["--continue_prediction"] if is_same else [])]
    missing = sum(not file.is_file() for file in files)
    predict(arguments, user_environment(), output / "logs" / f"{target.name}.txt", missing)


def score_cases(
    model: StepModel, predictions: Path, cases: Sequence[Case], tolerance_mm: float, pool: Executor
) -> list[dict[str, Any]]:
    """One row a case and class, in parallel over the cases.

    Raises:
        CILError: a file is missing or unreadable, a grid or a label is not what it should be.
    """
    from tqdm import tqdm

    ending = str(read_json(model.folder / "dataset.json", "Train the step again.")["file_ending"])
    classes = {name: (model.plan.labels[name], model.plan.dataset_labels[name]) for name in model.plan.seen_classes}
    score = partial(
        score_files,
        classes=classes,
        found_labels=frozenset(model.plan.labels.values()),
        wanted_labels=frozenset(model.plan.dataset_labels.values()),
        ignore_label=model.plan.dataset_labels.get("ignore"),
        tolerance_mm=tolerance_mm,
    )
    files = [predictions / f"{case.name}{ending}" for case in cases]
    rows = []
    scored = pool.map(score, files, [case.truth for case in cases])
    for case, scores in zip(cases, tqdm(scored, total=len(cases), unit="case", leave=False), strict=True):
        rows += [{"case": case.name, "class": name, **asdict(s)} for name, s in scores.items()]
    return rows


def _stored(file: Path, wanted: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Rows that were scored before, if they are of the same model and cases."""
    if not file.is_file():
        return None
    known = json.loads(file.read_text(encoding="utf-8"))
    return known["rows"] if {k: known.get(k) for k in wanted} == dict(wanted) else None


def sha256(file: Path) -> str:
    """Of a checkpoint."""
    from nnunet_cil.training.checkpoints import file_sha256

    return file_sha256(file)
