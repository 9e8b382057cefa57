"""The report of an extension: what was learnt, what was kept, what it took, and where everything is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from nnunet_cil.evaluation.answers import Answer
from nnunet_cil.evaluation.comparison_page import answers, sections
from nnunet_cil.evaluation.continual import mean
from nnunet_cil.evaluation.report import render
from nnunet_cil.evaluation.summary import Section
from nnunet_cil.evaluation.tables import Table, number
from nnunet_cil.files import write_text
from nnunet_cil.lineage import validation_dice
from nnunet_cil.training.progress import training_seconds
from nnunet_cil.workflows.compare.compare import Comparison
from nnunet_cil.workflows.evaluate.pictures import write_training_curves
from nnunet_cil.workflows.model_fold import ModelFold
from nnunet_cil.workflows.versions import versions


def write_extension_report(
    output: Path,
    models: Sequence[ModelFold],
    comparison: Comparison | None,
    exported: Path | None,
    command: str,
    before: Sequence[ModelFold] = (),
) -> Path:
    """Writes ``report.html``.

    Args:
        output: folder.
        models: the folds of the new model.
        comparison: of the old model and the new one; None where they were not compared.
        exported: the plain model; None where none was asked for.
        command: that did this.
        before: the folds of the new model before a cascade.

    Returns:
        The page.
    """
    plan = models[0].plan
    learnt = _learnt(models)
    tables = [
        Section("Dice on the validation cases", _DICE_TEXT, learnt),
        Section("Training", "", _costs([*before, *models])),
    ]
    if comparison is not None:
        tables.insert(1, sections(comparison.content)[0][0])
    where = [f"The new model: {models[0].model.folder}"]
    where += [
        f"The model whose predictions it sees: {model.folder}" for model in dict.fromkeys(m.model for m in before)
    ]
    where += ["A is the model that was continued, B the new one."] if comparison is not None else []
    where += [f"Exported for plain nnU-Net: {exported}"] if exported is not None else []
    text = render(
        "extension.html.jinja",
        title=f"{', '.join(plan.new_classes or plan.refined)}, learnt by {models[0].trainer}",
        answers=_answers(models, comparison),
        sections=tables,
        pictures=write_training_curves(output, {models[0].trainer: {f"fold {m.fold}": m for m in models}}, ""),
        where=where,
        has_comparison=comparison is not None,
        command=command,
        versions=versions(),
    )
    file = output / "report.html"
    write_text(file, text)
    return file


_DICE_TEXT = (
    "Of nnU-Net's final validation, mean over the cases that label the class. A class without a number is not labelled in the "
    "validation cases: the comparison tells how it changed."
)


def _answers(models: Sequence[ModelFold], comparison: Comparison | None) -> list[Answer]:
    """Answers whether the new classes were learnt, and the old ones kept."""
    plan = models[0].plan
    dice = [validation_dice(model.folder, plan.labels) for model in models]
    told = []
    for name in plan.target_classes:
        values = [found[name] for found in dice if name in found]
        told.append(f"{name}: Dice {mean(values):.3f}" if values else f"{name}: not measured")
    folds = "fold" if len(models) == 1 else "folds"
    learnt = f"{'; '.join(told)} ({folds} {', '.join(str(m.fold) for m in models)}, validation cases)."
    found = [Answer(question="Was it learnt?", text=learnt)]
    if comparison is None:
        return [*found, Answer(question="Were the classes of before kept?", text="Not compared.")]
    kept = answers(comparison.content)[0].text
    return [*found, Answer(question="Were the classes of before kept?", text=kept)]


def _learnt(models: Sequence[ModelFold]) -> Table:
    plan = models[0].plan
    dice = [validation_dice(model.folder, plan.labels) for model in models]
    body = []
    for name in (*plan.target_classes, *(c for c in plan.seen_classes if c not in plan.target_classes)):
        values = [found.get(name, math.nan) for found in dice]
        body.append([name, *map(number, values), *([number(mean(values))] if len(models) > 1 else [])])
    header = ["class", *(f"fold {model.fold}" for model in models), *(["mean"] if len(models) > 1 else [])]
    return Table(header, body)


def _costs(models: Sequence[ModelFold]) -> Table:
    from nnunet_cil.training.checkpoints import read_checkpoint

    body = []
    several = len({model.model.configuration for model in models}) > 1
    for model in models:
        checkpoint = read_checkpoint(model.checkpoint, lazily=True)
        seconds = training_seconds(checkpoint.get("logging", {}))
        time = "" if math.isnan(seconds) else f"{seconds / 3600:.2f}"
        fold = f"{model.fold} of {model.model.configuration}" if several else str(model.fold)
        body.append([fold, str(checkpoint.get("current_epoch", "")), time, model.checkpoint_sha256()[:16]])
    return Table(["fold", "epochs", "hours", "SHA-256"], body)
