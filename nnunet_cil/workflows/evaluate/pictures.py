"""The files that ``nnunet_cil evaluate`` leaves beside the numbers: figures, a LaTeX table, ``report.html``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_cil.evaluation.charts import score_charts, training_curves
from nnunet_cil.evaluation.figures import comparison, read_slices
from nnunet_cil.evaluation.report import Picture, report
from nnunet_cil.evaluation.significance import case_means
from nnunet_cil.evaluation.summary import short
from nnunet_cil.files import moved_into_place
from nnunet_cil.workflows.evaluate.score import Case, Rows, Scored
from nnunet_cil.workflows.experiment import StepModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_charts(output: Path, content: Mapping[str, Any], rows: Mapping[str, Rows]) -> list[Picture]:
    """Figures of the scores."""
    return [
        Picture(_save(figure, output / "figures" / name).with_suffix(".svg"), text)
        for name, (figure, text) in score_charts(content, rows).items()
    ]


def write_training_curves(output: Path, models: Mapping[str, Sequence[StepModel]], fold: int | str) -> list[Picture]:
    """Loss terms over the epochs, from the checkpoints of one fold.

    Args:
        output: folder.
        models: trainer -> its model of every step.
        fold: whose.
    """
    from nnunet_cil.training.state import read_checkpoint

    def terms(model: StepModel) -> dict[str, list[float]]:
        logged = read_checkpoint(model.fold(fold) / "checkpoint_final.pth")["logging"]
        found = {k.removeprefix("loss_"): v for k, v in logged.items() if k.startswith("loss_")}
        return found or {"loss": logged["train_losses"]}

    figure = training_curves({short(t): [terms(m) for m in own] for t, own in models.items()})
    text = f"Loss terms as weighted in the loss, mean of each epoch, fold {fold}."
    return [Picture(_save(figure, output / "figures" / "training").with_suffix(".svg"), text)]


def write_overlays(output: Path, models: Mapping[str, StepModel], found: Mapping[str, Scored]) -> list[Picture]:
    """The worst and the median case of the first trainer after the last step: image, truth, every trainer.

    Args:
        output: folder.
        models: trainer -> its last model.
        found: trainer -> the last model's scores in the fold that is shown. Cases without an image are not shown.
    """
    first = next(iter(found))
    scores = case_means(found[first].rows, models[first].plan.seen_classes)
    shown = sorted(
        (c for c in found[first].cases if c.name in scores and c.image.is_file()), key=lambda c: scores[c.name]
    )
    if not shown:
        return []
    pictures = []
    for name, case in {"worst": shown[0], "median": shown[len(shown) // 2]}.items():
        text = f"The {name} case of {short(first)}: {case.name}, mean Dice {scores[case.name]:.3f}."
        figure = _overlay(case, models, {t: case.prediction(s.predictions) for t, s in found.items()}, text)
        pictures.append(Picture(_save(figure, output / "figures" / f"case_{name}").with_suffix(".png"), text))
    return pictures


def _overlay(case: Case, models: Mapping[str, StepModel], found: Mapping[str, Path], title: str) -> Figure:
    plan = next(iter(models.values())).plan
    background, aspect = read_slices(case.image)
    labels = {"truth": _by_class(read_slices(case.truth)[0], case.labels, plan.seen_classes)}
    for trainer, file in found.items():
        labels[short(trainer)] = _by_class(read_slices(file)[0], models[trainer].plan.labels, plan.seen_classes)
    return comparison(background, labels, plan.seen_classes, aspect=aspect, title=title)


def _by_class(array: Any, numbers: Mapping[str, int], classes: Sequence[str]) -> Any:
    """Labels by the order of ``classes``, from 1; anything else, and a class without a number, is 0."""
    ordered = np.zeros(array.shape, dtype=np.int16)
    for index, name in enumerate(classes, start=1):
        if name in numbers:
            ordered[array == numbers[name]] = index
    return ordered


def _save(figure: Figure, stem: Path) -> Path:
    """As PNG and SVG; returns the path without an ending."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(stem.with_suffix(".svg"))
    figure.savefig(stem.with_suffix(".png"), dpi=150)
    return stem


def write_report(output: Path, content: Mapping[str, Any], **pictures: Sequence[Picture]) -> Path:
    """``report.html``, written aside and moved into place."""
    file = output / "report.html"
    with moved_into_place(file) as temporary:
        temporary.write_text(report(content, **pictures), encoding="utf-8")
    return file
