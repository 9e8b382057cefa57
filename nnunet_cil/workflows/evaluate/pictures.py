"""The files that ``nnunet_cil evaluate`` leaves beside the numbers: figures, a LaTeX table, ``report.html``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_cil.evaluation import error_maps
from nnunet_cil.evaluation.charts import score_charts
from nnunet_cil.evaluation.error_maps import error_map
from nnunet_cil.evaluation.report import Picture, picture_address, report
from nnunet_cil.evaluation.results import short
from nnunet_cil.evaluation.scores import case_means, last_rows, rows_of
from nnunet_cil.evaluation.training_chart import Terms, training_chart
from nnunet_cil.files import write_text
from nnunet_cil.host.reading.images import as_seen, read_images, read_labels
from nnunet_cil.labels import Label, class_names, numbers_in
from nnunet_cil.workflows.evaluate.cases import Case
from nnunet_cil.workflows.evaluate.predict import Prediction
from nnunet_cil.workflows.model_fold import ModelFold

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

_SAVED: dict[str, Any] = {"dpi": 150, "bbox_inches": "tight", "pad_inches": 0.05}
"""How figures are saved."""


def write_charts(output: Path, content: Mapping[str, Any], table: DataFrame) -> dict[str, Picture]:
    """Draws the figures of the scores; returns them by the names of their files."""
    return {
        name: _picture(output, name, chart.draw, chart.text) for name, chart in score_charts(content, table).items()
    }


def write_training_curves(output: Path, models: Mapping[str, Mapping[str, ModelFold]], text: str) -> list[Picture]:
    """Draws loss terms over the epochs, from the checkpoints; those of a model that several trainers share once.

    Args:
        output: folder.
        models: trainer -> which of its models, as ``step 0`` or ``fold 3``, -> the model.
        text: what the picture shows, behind "Loss terms as weighted in the loss, mean of each epoch".
    """
    from nnunet_cil.training.checkpoints import read_checkpoint
    from nnunet_cil.training.progress import terms_in

    drawn: set[Path] = set()

    def terms(model: ModelFold) -> Terms | None:
        if model.checkpoint in drawn:
            return None
        drawn.add(model.checkpoint)
        logged = read_checkpoint(model.checkpoint)["logging"]
        return terms_in(logged) or {"loss": logged["train_losses"]}

    found = {short(t): {which: terms(m) for which, m in own.items()} for t, own in models.items()}
    told = f"Loss terms as weighted in the loss, mean of each epoch{text}."
    return [_picture(output, "training", partial(training_chart, found), told)]


def write_overlays(
    output: Path, finals: Mapping[str, tuple[ModelFold, Sequence[Prediction]]], table: DataFrame
) -> list[Picture]:
    """Draws the worst and the median case of the first trainer after the last step: the reference, and what each has wrong.

    Args:
        output: folder.
        finals: trainer -> its last model and what it has predicted, all of one fold. Cases without an image are not shown.
        table: scores of every trainer's models.
    """
    first, (model, predictions) = next(iter(finals.items()))
    last = rows_of(last_rows(table), fold=model.fold)
    scores = {t: case_means(rows_of(last, trainer=t), model.plan.seen_classes) for t in finals}
    drawable = [p.case for p in predictions if p.case.name in scores[first] and p.case.image.is_file()]
    ordered = sorted(drawable, key=lambda case: scores[first][case.name])
    if not ordered:
        return []
    pictures = []
    for name, case in {"worst": ordered[0], "median": ordered[len(ordered) // 2]}.items():
        dice = {t: own.get(case.name, math.nan) for t, own in scores.items()}
        text = f"The {name} case of {short(first)}: {case.name}, mean Dice {dice[first]:.3f}"
        draw = partial(error_map, _read_case(case, finals, dice))
        legend = "Lines: the reference. Colours: what a method has wrong; the number is its mean Dice in this case."
        pictures.append(_picture(output, f"case_{name}", draw, f"{text}. {legend}", shown=".png"))
    return pictures


def _read_case(
    case: Case, finals: Mapping[str, tuple[ModelFold, Sequence[Prediction]]], dice: Mapping[str, float]
) -> error_maps.Case:
    """Reads a case with every trainer's prediction, as a radiologist sees it."""
    classes = next(model.plan.seen_classes for model, _ in finals.values())
    reader = next(model.model.reader for model, _ in finals.values())
    image = read_images([case.image], reader)
    background, aspect = as_seen(image)
    predictions = []
    for trainer, (model, found) in finals.items():
        file = next(p.file for p in found if p.case.name == case.name)
        labels = _by_class(as_seen(read_labels(file, reader))[0], model.plan.labels, classes)
        predictions.append(error_maps.Prediction(name=short(trainer), labels=labels, dice=dice[trainer]))
    return error_maps.Case(
        image=background,
        reference=_by_class(as_seen(read_labels(case.reference, reader))[0], case.labels, classes),
        predictions=predictions,
        classes=classes,
        aspect=aspect,
        is_oriented=bool(image.grid.orientation),
    )


def _by_class(array: Any, labels: Mapping[str, Label], classes: Sequence[str]) -> Any:
    """Returns labels by the order of ``classes``, from 1; anything else, and a class without a number, is 0.

    Regions are painted as nnU-Net paints them: a later one covers an earlier one.
    """
    ordered = np.zeros(array.shape, dtype=np.int16)
    for name in class_names(labels):
        if name in classes:
            ordered[np.isin(array, numbers_in(labels[name]))] = 1 + classes.index(name)
    return ordered


def _picture(output: Path, name: str, draw: Callable[..., Figure], text: str, *, shown: str = ".svg") -> Picture:
    """Saves a figure as PNG and SVG, of which the page shows one; it holds another layout for a narrow screen itself."""
    file = output / "figures" / f"{name}{shown}"
    file.parent.mkdir(parents=True, exist_ok=True)
    figure = draw()
    for ending in (".svg", ".png"):
        figure.savefig(file.with_suffix(ending), **_SAVED)
    narrow = BytesIO()
    draw(narrow=True).savefig(narrow, format=shown[1:], **_SAVED)
    return Picture(file, text, picture_address(narrow.getvalue(), shown))


def write_report(output: Path, content: Mapping[str, Any], **pictures: Any) -> Path:
    """Writes ``report.html`` aside, and moves it into place."""
    file = output / "report.html"
    write_text(file, report(content, **pictures))
    return file
