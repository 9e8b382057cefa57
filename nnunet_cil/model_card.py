"""``MODEL_CARD.md``: what a model knows, where it learnt it, how good it is, and what it is not."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence

from nnunet_cil.lineage import StepRecord
from nnunet_cil.model_changes import ModelChanges
from nnunet_cil.names import markdown_text
from nnunet_cil.training_command import train_command


def model_card(
    lineage: Sequence[StepRecord],
    dice: Mapping[str, float],
    trainer: str | None = None,
    changes: ModelChanges | None = None,
    numbers: Mapping[str, int] | None = None,
) -> str:
    """Returns a fold's model card as Markdown.

    Args:
        lineage: the model's trainings, the last one its own.
        dice: class -> mean Dice of this model on the fold's validation cases; empty before they are predicted; NaN where no case
            has it. Those of the earlier steps' models are in their records.
        trainer: under whose name the model is predicted with; None for its own.
        changes: how much its classes have changed from the model that it continues; None where they were not compared.
        numbers: class -> its number in a prediction (``labels.predicted_numbers``); None for the order of learning.
    """
    own = lineage[-1]
    model = markdown_text(f"{own.plans}, {own.configuration}, fold {own.fold}")
    packages = markdown_text(", ".join(f"{name} {number}" for name, number in own.versions.items()))
    return "\n".join(
        [
            f"# Model card: {model}",
            "",
            f"An nnU-Net v2 model that has learnt its classes in steps ({markdown_text(own.schedule)}), each from labels of the "
            f"step's own classes (and of those that it was told to refine){_exceptions(lineage)}.",
            "",
            *_classes(lineage, dice, numbers),
            *_refinements(lineage),
            *_after_each_step(lineage, dice),
            *_changes(changes),
            *_data(lineage),
            *_use(own, trainer or own.trainer),
            "For research on images like those of the data sets above. **Not a medical device**: not for diagnosis or treatment. "
            "A class learnt in an early step may have become worse since: look at its score, and check on data of your own.",
            "",
            f"Trained with {packages}.",
            "",
        ]
    )


def _classes(lineage: Sequence[StepRecord], dice: Mapping[str, float], numbers: Mapping[str, int] | None) -> list[str]:
    """Returns the table of the classes; arguments as of ``model_card``."""
    learnt = [(name, record) for record in lineage for name in record.classes]
    numbers = numbers or {name: number for number, (name, _) in enumerate(learnt, start=1)}
    return [
        "| label | class | step | data set | training cases | method | date | Dice |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(numbers.get(name), name, record, dice) for name, record in learnt),
        "",
        _dice_text(lineage[-1].fold),
        "",
    ]


def _data(lineage: Sequence[StepRecord]) -> list[str]:
    """Returns the data sets with their licences, and the checkpoints that the steps continued from."""
    told = ((r.dataset, r.licence or "not given in its dataset.json") for r in lineage)
    licences = sorted({f"- {markdown_text(dataset)}: {markdown_text(licence)}" for dataset, licence in told})
    hashes = [f"- step {r.step} continued from a checkpoint with SHA-256 `{r.previous_sha256}`" for r in lineage[1:]]
    return ["## Data", "", *licences, *hashes, ""]


def _use(own: StepRecord, trainer: str) -> list[str]:
    """Returns the commands that predict with the model, under this trainer's name, and that trained it."""
    dataset, configuration, fold, plans = map(shlex.quote, (own.dataset, own.configuration, own.fold, own.plans))
    return [
        "## Use",
        "",
        "```bash",
        f"nnUNetv2_predict -d {dataset} -c {configuration} -f {fold} -tr {trainer} -p {plans} "
        f"-i IMAGES -o OUT{' -prev_stage_predictions BEFORE' if own.previous_stage else ''}",
        "```",
        "",
        *(_CASCADE if own.previous_stage else ()),
        "Its last step was trained with",
        "",
        "```bash",
        train_command(own.dataset, own.configuration, own.fold, own.trainer, own.plans),
        "```",
        "",
    ]


_CASCADE = (
    "It is a cascade: `BEFORE` holds what the stage before it predicts for the same images, by the same trainer, plans and fold. "
    "Its configuration is `previous_stage` in plans.json.",
    "",
)


def _row(number: int | None, name: str, record: StepRecord, dice: Mapping[str, float]) -> str:
    """Returns a class's row in the table of classes."""
    score = dice.get(name, math.nan)
    origin = [str(record.step), record.dataset, record.cases_text, record.trainer, record.date[:10]]
    cells = [
        "" if number is None else str(number),
        *map(markdown_text, (name, *origin)),
        "" if math.isnan(score) else f"{score:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def _refinements(lineage: Sequence[StepRecord]) -> list[str]:
    """Says which steps learnt from further labels of earlier classes; no line where none did."""
    lines = [
        f"- step {r.step} refined {markdown_text(', '.join(r.refined))} with labels of {r.dataset} ({r.trainer})"
        for r in lineage
        if r.refined
    ]
    return [*lines, ""] if lines else []


def _dice_text(fold: str) -> str:
    """Says what the column of Dice is."""
    if fold == "all":
        return "Dice: not measured, since fold all has no validation cases. Score the model on test cases."
    return "Dice: mean over this fold's validation cases, against all of the data set's labels; blank: not measured."


def _exceptions(lineage: Sequence[StepRecord]) -> str:
    """Says which steps used earlier labels, too."""
    steps = [f"step {record.step} ({record.trainer})" for record in lineage if record.saw_old_labels]
    return f"; but {', '.join(steps)} used labels of earlier steps, too" if steps else ""


def _after_each_step(lineage: Sequence[StepRecord], dice: Mapping[str, float]) -> list[str]:
    """Returns a table of the classes' Dice after each step, where it was measured."""
    scores = [*(record.dice for record in lineage[:-1]), dice]
    if not any(scores[:-1]):
        return []
    columns = [f"after step {record.step}" for record in lineage]
    lines = [f"| class | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    for name in (name for record in lineage for name in record.classes):
        cells = [f"{found[name]:.3f}" if not math.isnan(found.get(name, math.nan)) else "" for found in scores]
        lines.append(f"| {markdown_text(name)} | {' | '.join(cells)} |")
    return ["Dice of every step's model, each on the validation cases of its own data set:", "", *lines, ""]


def _changes(changes: ModelChanges | None) -> list[str]:
    """Returns a table of how far this model agrees with the one that it continues, the least agreement first."""
    if changes is None:
        return []
    lines = ["| class | Dice of the two | HD95 | ml before | ml now |", "|---|---|---|---|---|"]
    for found in changes.classes:
        distance = "" if found.hd95 is None else f"{found.hd95:.2f} {changes.distance_unit}"
        volumes = ["" if volume is None else f"{volume:.1f}" for volume in (found.ml_before, found.ml_now)]
        dice = "" if found.dice is None else f"{found.dice:.3f}"
        lines.append(f"| {' | '.join([markdown_text(found.name), dice, distance, *volumes])} |")
    return [
        "## What changed in the classes of before",
        "",
        f"Agreement with the model that it continues on the validation cases ({changes.num_cases}), without labels: mean "
        "over the cases in which either finds the class.",
        "",
        *lines,
        "",
    ]
