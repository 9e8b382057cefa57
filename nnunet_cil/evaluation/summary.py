"""The tables of ``summary.md``, of the report and of ``tables.tex``, made from the content of ``results.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunet_cil.evaluation.answers import Answer, answers
from nnunet_cil.evaluation.bootstrap import NUM_REPLICATES
from nnunet_cil.evaluation.results import dice_of, fold_mean, last_mean, pooled, ranked, short
from nnunet_cil.evaluation.scores import METRICS
from nnunet_cil.evaluation.standings import standings_table
from nnunet_cil.evaluation.tables import (
    Table,
    costs_table,
    deviation,
    differences_table,
    matrix_table,
    pair_text,
    schedule_table,
    step_table,
)
from nnunet_cil.names import markdown_text

_FEW_TRAININGS = 8
"""With fewer the intervals may be too narrow, whichever is taken."""


@dataclass(frozen=True)
class Section:
    """A table with its title, and a text that says how to read it."""

    title: str
    text: str
    table: Table

    def markdown(self) -> str:
        """Returns it with a heading."""
        text = map(markdown_text, (f"## {self.title}", self.text))
        return "\n\n".join(part for part in (*text, self.table.markdown()) if part)


def summary(content: Mapping[str, Any]) -> str:
    """Returns Markdown of everything in ``results.json`` that one would read."""
    parts: list[Answer | Section] = [*answers(content), *overview(content), *matrices(content)]
    return "\n\n".join([f"# {markdown_text(title(content))}", *(part.markdown() for part in parts)]) + "\n"


def latex(content: Mapping[str, Any]) -> str:
    """Returns LaTeX: Dice after the last step (mean and standard deviation over folds), and the schedule's numbers."""
    classes = [name for names in content["steps"] for name in names]
    groups = ["old", "new", "all"]
    body = []
    for name, folds in dice_of(content).items():
        last = fold_mean(folds, -1)
        cells = [deviation(last[c], [f["classes"][-1][c] for f in folds]) for c in classes]
        cells += [deviation(last_mean(folds, g), [f[g][-1] for f in folds]) for g in groups]
        body.append([name, *cells])
    table = Table(["method", *classes, *groups], body).latex(f"Dice after the last step of {title(content)}.")
    return f"{table}\n{_schedule(content).latex(f'The whole schedule of {title(content)}.')}"


def title(content: Mapping[str, Any]) -> str:
    """Says what was scored."""
    return f"{content['schedule']} on {content['dataset']}, {content['configuration']}"


def facts(content: Mapping[str, Any]) -> str:
    """Says how much was scored."""
    dice, steps = dice_of(content), content["steps"]
    counts = {
        "method": len(dice),
        "fold": len(next(iter(dice.values()))),
        "step": len(steps),
        "class": sum(map(len, steps)),
    }
    texts = [f"{number} {_plural(name) if number != 1 else name}" for name, number in counts.items()]
    return f"{', '.join(texts)}. Scored on {Path(content['cases']).name}."


def _plural(name: str) -> str:
    return f"{name}es" if name.endswith("s") else f"{name}s"


def overview(content: Mapping[str, Any]) -> list[Section]:
    """Returns the methods' standings, Dice per step and class, numbers of the schedule, distances, costs, and differences."""
    steps = content["steps"]
    dice = dice_of(content)
    folds = len(next(iter(dice.values())))
    which = f"Mean Dice over the cases ({Path(content['cases']).name}) and {folds} fold{'s' if folds > 1 else ''}."
    per_step = {t: [fold_mean(found, step) for step in range(len(steps))] for t, found in dice.items()}
    unit = content.get("distance_unit", "mm")
    distances = [
        [short(t), *(_final(found[metric], metric) for metric in METRICS[1:])]
        for t, found in _best_first(content["trainers"]).items()
    ]
    sections = [
        Section(
            "Methods, best first",
            _STANDINGS_TEXT + (_BEHIND_TEXT if len(dice) > 1 else ""),
            standings_table(dice, content["differences_to_best"]),
        ),
        Section("After each step", which, step_table(per_step, steps)),
        Section("Over the whole schedule", _SCHEDULE_TEXT, _schedule(content)),
        Section(
            "Distances after the last step",
            _DISTANCES_TEXT + ("" if unit == "mm" else _NO_SPACING_TEXT),
            Table(["method", f"HD95 {unit}", f"ASD {unit}", f"NSD at {content['tolerance_mm']:g} {unit}"], distances),
        ),
    ]
    if content["costs"]:
        costs = {short(t): content["costs"][t] for t in _best_first(content["trainers"])}
        sections.append(Section("Costs", _COSTS_TEXT, costs_table(costs)))
    if found := content["differences"]:
        sections.append(Section("Differences", differences_text(found), differences_table(found)))
    return sections


def _schedule(content: Mapping[str, Any]) -> Table:
    """Returns the numbers of the whole schedule."""
    return schedule_table({method: (asdict(pooled(folds)), folds) for method, folds in dice_of(content).items()})


def _best_first(trainers: Mapping[str, Any]) -> dict[str, Any]:
    return {trainer: trainers[trainer] for trainer in ranked(trainers)}


_STANDINGS_TEXT = "Dice after the last step; of new classes right after their own."

_BEHIND_TEXT = (
    " Behind the best: with its 95 % interval. The best was chosen by these scores, which flatters its lead a little."
)

_COSTS_TEXT = (
    "Parameters of the last model. Training: the steps after the first, with what comes before and after their epochs. "
    "Prediction: of the last model, start included; blank for validation cases that nnU-Net predicted. Times are those of the "
    "machines that were used, mean over folds."
)

_DISTANCES_TEXT = (
    "Mean over all classes; where one of prediction and reference lacks a class there is no distance (missing)."
)

_NO_SPACING_TEXT = (
    " The files do not say how large a voxel is: distances and the tolerance are in voxels, in the columns hd95_mm and asd_mm of "
    "per_case.csv, too."
)

_SCHEDULE_TEXT = (
    "Forgetting: best score of a step's classes less their last, the smaller the better. Backward transfer: last less "
    "first. Intransigence: joint training's score less the first, where joint training was evaluated too."
)


def matrices(content: Mapping[str, Any]) -> list[Section]:
    """Returns R of every trainer, over all folds."""
    return [
        Section(f"R of {t}", "Model after step (row), classes of step (column).", matrix_table(pooled(found).matrix))
        for t, found in dice_of(content).items()
    ]


def differences_text(found: Sequence[Mapping[str, Any]]) -> str:
    """Says what the intervals and p values are.

    Args:
        found: as in ``results.json``, one at least.
    """
    text = f"Mean Dice of the first method less that of another one, on the same cases. {_intervals_text(found)} "
    primary = next((d for d in found if d["is_primary"]), None)
    if primary is not None:
        text += (
            f"The primary comparison is {pair_text(primary)} in all classes. The p values of the others are corrected for their "
            "number (Holm). "
        )
    return text + "Where a class of a case has a Dice with one method only, it counts for neither (left out)."


def _intervals_text(found: Sequence[Mapping[str, Any]]) -> str:
    """Says how the intervals were found, what they are over, and where they tell less than 95 %."""
    parts = [
        f"Interval: 95 %, percentiles of {NUM_REPLICATES} draws, or of a t interval (t) where that reaches further."
    ]
    several = [d["num_trainings"] for d in found if d["over"] == "patients and trainings"]
    if several:
        where = "It is" if len(several) == len(found) else "Where there are several trainings, it is"
        parts.append(
            f"{where} over patients and trainings: each draw takes folds, and cases once for all of them; a case of one fold "
            "only comes with its fold, or all folds stay and their cases are drawn, whichever reaches further."
        )
        if min(several) < _FEW_TRAININGS:
            parts.append(f"With {min(several)} trainings it may cover less than 95 %.")
    if any(d["over"] == "patients" for d in found):
        where = "Where there is one, it is" if several else "It is"
        parts.append(f"{where} over patients alone and says nothing of another training: for that, train more folds.")
    return " ".join(parts)


def _final(folds: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Returns the last ``all``, over all folds; how many class scores of cases were undefined beside it."""
    value = last_mean(folds, "all")
    missing = sum(sum(f["missing"][-1].values()) for f in folds)
    text = "" if math.isnan(value) else f"{value:.3f}" if metric == "nsd" else f"{value:.2f}"
    return f"{text} ({missing} missing)" if missing else text
