"""``nnunet_cil evaluate``: every step's model on the same cases, scored, as files that others can read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.files import score_files, write_csv
from nnunet_cil.evaluation.summary import results, summary, without_nan
from nnunet_cil.workflows.commands import call, user_environment
from nnunet_cil.workflows.folders import nnunet_folder, read_json, write_json
from nnunet_cil.workflows.models import Experiment, StepModel, check_trained

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Case:
    """A case to score on: its name, and the file of its true labels."""

    name: str
    truth: Path


@dataclass(frozen=True)
class Evaluation:
    """What was found, and the files that hold it."""

    summary: str
    folder: Path


def evaluate(
    experiment: Experiment,
    *,
    images: Path | None = None,
    labels: Path | None = None,
    output: Path | None = None,
    device: str = "cuda",
    tolerance_mm: float = 2.0,
    say: Callable[[str], None] = lambda _line: None,
) -> Evaluation:
    """Predicts and scores every step's model of every trainer and fold; what is there already is not done again.

    Args:
        experiment: the models; each fold's are scored on the same test cases, or on the fold's own validation cases.
        images: test images, with ``labels``. Without: imagesTs and labelsTs of the raw data set; without these, the
            validation cases of each fold, which nnU-Net has predicted already.
        labels: the true labels, numbered as the data set's.
        output: takes everything; default: a folder ``evaluation`` in the data set's results.
        device: for predictions.
        tolerance_mm: of the normalised surface Dice.
        say: takes one line of progress at a time.

    Raises:
        CILError: a step is not trained, or prediction and truth do not fit.
    """
    name, configuration, folds = experiment.dataset_name, experiment.configuration, experiment.folds
    models = experiment.models()
    for model in models:
        for fold in folds:
            check_trained(model, fold)
    found = _test_set(name, images, labels)
    output = output or nnunet_folder("nnUNet_results") / name / "evaluation" / experiment.name
    output.mkdir(parents=True, exist_ok=True)
    scores: dict[tuple[str, int, int | str], list[dict[str, Any]]] = {}
    checkpoints = {}
    for fold in folds:
        for number, model in enumerate(models, start=1):
            say(f"[fold {fold}, {number}/{len(models)}] {model.trainer}, step {model.step}")
            checkpoint = model.fold(fold) / "checkpoint_final.pth"
            checkpoints[f"{model.trainer} step {model.step} fold {fold}"] = digest = _sha256(checkpoint)
            file = output / "scores" / f"{model.trainer}_step{model.step}_fold{fold}.json"
            predictions, cases = _predictions(model, configuration, fold, found, output, digest, device)
            wanted = {"checkpoint": digest, "tolerance_mm": tolerance_mm, "cases": [c.name for c in cases]}
            rows = _stored(file, wanted)
            if rows is None:
                rows = score_cases(model, predictions, cases, tolerance_mm)
                file.parent.mkdir(exist_ok=True)
                write_json(file, {**wanted, "rows": rows})
            scores[model.trainer, model.step, fold] = rows
            write_csv(output / "per_case.csv", scores)
    say("Writing tables...")
    steps = [step.classes for step in experiment.schedule.steps]
    per_trainer = {
        trainer: {fold: [scores[m.trainer, m.step, fold] for m in experiment.models_of(trainer)] for fold in folds}
        for trainer in experiment.trainers
    }
    content = {
        "schema_version": SCHEMA_VERSION,
        "dataset": name,
        "configuration": configuration,
        "schedule": experiment.schedule.name,
        "steps": [list(classes) for classes in steps],
        "cases": "validation" if found is None else str(found.labels),
        "tolerance_mm": tolerance_mm,
        "checkpoints_sha256": checkpoints,
        "trainers": results(per_trainer, steps),
    }
    write_json(output / "results.json", without_nan(content))
    text = summary(content)
    (output / "summary.md").write_text(text, encoding="utf-8")
    return Evaluation(text, output)


@dataclass(frozen=True)
class _TestSet:
    images: Path
    labels: Path


def _test_set(dataset: str, images: Path | None, labels: Path | None) -> _TestSet | None:
    """Images and labels to predict and score on; None for each fold's validation cases."""
    if (images is None) != (labels is None):
        raise CILError("Give -i IMAGES and -l LABELS together.")
    if images is None or labels is None:
        raw = Path(os.environ.get("nnUNet_raw", "")) / dataset
        images, labels = raw / "imagesTs", raw / "labelsTs"
        if not images.is_dir() or not labels.is_dir() or not any(labels.iterdir()):
            return None
    for folder in (images, labels):
        if not folder.is_dir():
            raise CILError(f"{folder} is not a folder.")
    return _TestSet(images, labels)


def _predictions(
    model: StepModel, configuration: str, fold: int | str, test: _TestSet | None, output: Path, digest: str, device: str
) -> tuple[Path, list[Case]]:
    """The folder of the model's predictions, made if need be, and the cases."""
    ending = str(read_json(model.folder / "dataset.json", "Train the step again.")["file_ending"])
    if test is None:
        predictions = model.fold(fold) / "validation"
        truth = nnunet_folder("nnUNet_preprocessed") / model.folder.parent.name / "gt_segmentations"
        names = sorted(p.name.removesuffix(ending) for p in predictions.glob(f"*{ending}"))
        if not names:
            raise CILError(
                f"{predictions} holds no predictions. Run 'nnUNetv2_train {model.folder.parent.name} {configuration} "
                f"{fold} -tr {model.trainer} -p {model.plans_name} --val'."
            )
    else:
        predictions = output / "predictions" / f"{model.trainer}_step{model.step}_fold{fold}"
        truth = test.labels
        names = sorted({p.name.removesuffix(ending).rsplit("_", 1)[0] for p in test.images.glob(f"*{ending}")})
        if not names:
            raise CILError(f"{test.images} holds no images that end in {ending}.")
    cases = [Case(name, truth / f"{name}{ending}") for name in names]
    for case in cases:
        if not case.truth.is_file():
            raise CILError(f"Case {case.name!r} has no true labels: {case.truth} is missing.")
    if test is not None:
        files = [predictions / f"{case.name}{ending}" for case in cases]
        _predict(model, configuration, fold, test.images, predictions, files, digest, device, output)
    return predictions, cases


def _predict(
    model: StepModel,
    configuration: str,
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
    arguments = ["-d", model.folder.parent.name, "-c", configuration, "-f", str(fold), "-tr", model.trainer]
    arguments += ["-p", model.plans_name, "-i", str(images), "-o", str(target), "-device", device]
    arguments += ["-npp", "1", "-nps", "1", *(["--continue_prediction"] if is_same else [])]
    call("nnUNetv2_predict", arguments, user_environment(), output / "logs" / f"{target.name}.txt")


def score_cases(
    model: StepModel, predictions: Path, cases: Sequence[Case], tolerance_mm: float
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
    with ProcessPoolExecutor(int(os.environ.get("nnUNet_def_n_proc", "8"))) as pool:
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


def _sha256(file: Path) -> str:
    from nnunet_cil.training.checkpoints import file_sha256

    return file_sha256(file)
