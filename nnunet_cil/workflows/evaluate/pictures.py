"""The files that ``nnunet_cil evaluate`` leaves beside the numbers: figures, a LaTeX table, ``report.html``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_cil.evaluation.charts import score_charts, training_curves
from nnunet_cil.evaluation.figures import comparison
from nnunet_cil.evaluation.report import Picture, report
from nnunet_cil.evaluation.results import short
from nnunet_cil.evaluation.scores import case_means, last_rows, rows_of
from nnunet_cil.files import moved_into_place
from nnunet_cil.host.reading.images import as_seen, read_images, read_labels
from nnunet_cil.workflows.evaluate.cases import Case
from nnunet_cil.workflows.evaluate.predict import Prediction
from nnunet_cil.workflows.model_fold import ModelFold

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


def write_charts(output: Path, content: Mapping[str, Any], table: DataFrame) -> list[Picture]:
    """Draws the figures of the scores."""
    return [
        Picture(_save(figure, output / "figures" / name).with_suffix(".svg"), text)
        for name, (figure, text) in score_charts(content, table).items()
    ]


def write_training_curves(output: Path, models: Mapping[str, Sequence[ModelFold]]) -> list[Picture]:
    """Draws loss terms over the epochs, from the checkpoints.

    Args:
        output: folder.
        models: trainer -> its model of every step, all of one fold.
    """
    from nnunet_cil.training.progress import terms_in
    from nnunet_cil.training.state import read_checkpoint

    def terms(model: ModelFold) -> dict[str, list[float]]:
        logged = read_checkpoint(model.checkpoint)["logging"]
        return terms_in(logged) or {"loss": logged["train_losses"]}

    figure = training_curves({short(t): [terms(m) for m in own] for t, own in models.items()})
    fold = next(iter(models.values()))[0].fold
    text = f"Loss terms as weighted in the loss, mean of each epoch, fold {fold}."
    return [Picture(_save(figure, output / "figures" / "training").with_suffix(".svg"), text)]


def write_overlays(
    output: Path, finals: Mapping[str, tuple[ModelFold, Sequence[Prediction]]], table: DataFrame
) -> list[Picture]:
    """Draws the worst and the median case of the first trainer after the last step: image, reference, every trainer.

    Args:
        output: folder.
        finals: trainer -> its last model and what it has predicted, all of one fold. Cases without an image are not shown.
        table: scores of every trainer's models.
    """
    first, (model, predictions) = next(iter(finals.items()))
    scores = case_means(rows_of(last_rows(table), trainer=first, fold=model.fold), model.plan.seen_classes)
    drawable = [p.case for p in predictions if p.case.name in scores and p.case.image.is_file()]
    ordered = sorted(drawable, key=lambda case: scores[case.name])
    if not ordered:
        return []
    pictures = []
    for name, case in {"worst": ordered[0], "median": ordered[len(ordered) // 2]}.items():
        text = f"The {name} case of {short(first)}: {case.name}, mean Dice {scores[case.name]:.3f}."
        figure = _overlay(case, finals, text)
        pictures.append(Picture(_save(figure, output / "figures" / f"case_{name}").with_suffix(".png"), text))
    return pictures


def _overlay(case: Case, finals: Mapping[str, tuple[ModelFold, Sequence[Prediction]]], title: str) -> Figure:
    classes = next(model.plan.seen_classes for model, _ in finals.values())
    reader = next(model.model.reader for model, _ in finals.values())
    background, aspect = as_seen(read_images([case.image], reader))
    labels = {"reference": _by_class(as_seen(read_labels(case.reference, reader))[0], case.labels, classes)}
    for trainer, (model, predictions) in finals.items():
        file = next(p.file for p in predictions if p.case.name == case.name)
        labels[short(trainer)] = _by_class(as_seen(read_labels(file, reader))[0], model.plan.labels, classes)
    return comparison(background, labels, classes, aspect=aspect, title=title)


def _by_class(array: Any, numbers: Mapping[str, int], classes: Sequence[str]) -> Any:
    """Returns labels by the order of ``classes``, from 1; anything else, and a class without a number, is 0."""
    ordered = np.zeros(array.shape, dtype=np.int16)
    for index, name in enumerate(classes, start=1):
        if name in numbers:
            ordered[array == numbers[name]] = index
    return ordered


def _save(figure: Figure, stem: Path) -> Path:
    """Saves as PNG and SVG; returns the path without an ending."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(stem.with_suffix(".svg"))
    figure.savefig(stem.with_suffix(".png"), dpi=150)
    return stem


def write_report(output: Path, content: Mapping[str, Any], **pictures: Sequence[Picture]) -> Path:
    """Writes ``report.html`` aside, and moves it into place."""
    file = output / "report.html"
    with moved_into_place(file) as temporary:
        temporary.write_text(report(content, **pictures), encoding="utf-8")
    return file
