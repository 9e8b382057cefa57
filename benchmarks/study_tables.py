"""Prints the tables of a study, or draws its figure, from the stored scores.

    python benchmarks/study_tables.py openkbp_2-2-1_cpu
    python benchmarks/study_tables.py openkbp_2-2-1_cpu --against PGCD --results mine.csv  # and each fold's difference to PGCD
    python benchmarks/study_tables.py openkbp_2-2-1_cpu --joint openkbp_joint_cpu          # with joint training in a last row
    python benchmarks/study_tables.py openkbp_2-2-1_cpu --methods MiB "PGCD(new_class_noise=0,pgcd_weight=10)"
    python benchmarks/study_tables.py openkbp_2-2-1_cpu --figure dice.svg

SCHEDULE is one of benchmarks/schedules, a shipped one, or a file; the scores are those that benchmarks/study.py has stored.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scores import Dice, mean_dice, method_of, read_scores, results_file, step_of

from nnunet_cil.evaluation.differences import Scores, fold_differences
from nnunet_cil.evaluation.differences import differences as paired_differences
from nnunet_cil.evaluation.scores import score_table
from nnunet_cil.schedule import Schedule, load_schedule, shipped_schedules

HERE = Path(__file__).resolve().parent
CASES = "validation", "test"

Folds = Mapping[int, Dice]


def schedule_file(name: str) -> Path:
    """Returns the file of a schedule in benchmarks/schedules, of a shipped one, or the file itself."""
    own = HERE / "schedules" / f"{name}.json"
    return own if own.is_file() else shipped_schedules().get(name, Path(name))


def groups(schedule: Schedule, step: int) -> dict[str, list[str]]:
    """Returns the classes that old, new and all stand for after a step."""
    steps = [list(s.classes) for s in schedule.steps]
    old = [c for names in steps[:step] for c in names]
    return {"old": old, "new": steps[step], "all": [*old, *steps[step]]}


def group_means(folds: Folds, group: Sequence[str]) -> dict[int, float]:
    """Returns each fold's mean Dice over the classes of the group."""
    means = {fold: mean_dice(dice) for fold, dice in folds.items()}
    return {fold: float(np.mean([found[c] for c in group])) for fold, found in means.items()}


def chosen(scores: Mapping[str, Folds], methods: Collection[str]) -> dict[str, Folds]:
    """Returns step 0 and the models of the methods (of all, where none is named), in the order of the steps."""
    kept = [m for m in scores if not methods or method_of(m) in (*methods, "step0")]
    return {model: scores[model] for model in sorted(kept, key=lambda m: (step_of(m), m))}


def table(schedule: Schedule, scores: Mapping[str, Folds], joint: Folds | None = None) -> str:
    """Returns Markdown: mean Dice over the cases; then mean and (smallest to largest) over the folds."""
    classes = [c for s in schedule.steps for c in s.classes]
    lines = [f"| model | {' | '.join(classes)} | old | new | all | folds |", "|" + "---|" * (len(classes) + 5)]
    rows = [(model, folds, groups(schedule, step_of(model))) for model, folds in scores.items()]
    if joint is not None:
        rows.append(("joint", joint, {"old": [], "new": classes, "all": classes}))
    for model, folds, own in rows:
        learnt = [[c] if c in next(iter(folds.values())) else [] for c in classes]
        cells = [spread(group_means(folds, group).values()) if group else "" for group in [*learnt, *own.values()]]
        lines.append(f"| {model} | {' | '.join(cells)} | {len(folds)} |")
    return "\n".join(lines)


def spread(means: Iterable[float]) -> str:
    """Returns the mean, and smallest to largest."""
    values = list(means)
    text = f"{np.mean(values):.3f}"
    return f"{text} ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else text


def differences(schedule: Schedule, scores: Mapping[str, Folds], reference: str) -> str:
    """Returns Markdown: a method's mean Dice less that of the reference, fold by fold, in the folds that both have.

    A Dice that one of them lacks counts for neither. In brackets the interval of the mean over folds
    (``nnunet_cil.evaluation.differences``).
    """
    lines = ["| model | old | new | all | folds |", "|---|---|---|---|---|"]
    for model, folds in scores.items():
        name = f"{reference}_step{step_of(model)}"
        against = scores.get(name, {})
        common = sorted(folds.keys() & against.keys())
        if not common or model == name:
            continue
        own, others = ({f: found[f] for f in common} for found in (folds, against))
        cells = [difference_cell(both, model, name) for both in scores_of_groups(schedule, model, own, name, others)]
        lines.append(f"| {model} | {' | '.join(cells)} | {', '.join(map(str, common))} |")
    return "\n".join(lines)


def scores_of_groups(schedule: Schedule, model: str, own: Folds, other: str, others: Folds) -> list[Scores]:
    """Returns the scores of two models of one step in its old, new and all classes; the names are their trainers."""
    rows = (
        {"trainer": t, "step": 0, **row} for t, folds in ((model, own), (other, others)) for row in case_rows(folds)
    )
    both = score_table(rows)
    return [Scores(table=both, steps=[classes]) for classes in groups(schedule, step_of(model)).values()]


def difference_cell(scores: Scores, model: str, other: str) -> str:
    """Returns each fold's difference, and the interval of their mean; blank where no case has a Dice with both."""
    each = ", ".join(f"{value:+.3f}" for value in fold_differences(scores, model, other).values())
    return "".join(f"{each} [{d.low:+.3f} to {d.high:+.3f}]" for d in paired_differences([scores], model, other))


def case_rows(folds: Folds) -> list[dict[str, Any]]:
    """Returns rows as those of ``per_case.csv``. All folds have the same test cases, each has validation cases of its own."""
    return [
        {"fold": fold, "case": case, "class": name, "dice": value}
        for fold, dice in folds.items()
        for name, values in dice.items()
        for case, value in values.items()
    ]


def figure(schedule: Schedule, scores: Mapping[str, Folds], file: Path) -> None:
    """Draws every fold as a dot and their mean as a bar, after the last step, in the order of the mean over all classes."""
    import matplotlib.pyplot as plt

    last = len(schedule.steps) - 1
    learnt = groups(schedule, last)
    found = {
        method_of(model): {g: list(group_means(folds, learnt[g]).values()) for g in learnt}
        for model, folds in scores.items()
        if model.endswith(f"_step{last}")
    }
    order = sorted(found, key=lambda method: np.mean(found[method]["all"]))
    size = (
        10 + 0.09 * max(len(method) for method in order),
        0.8 + 0.32 * len(order),
    )  # inches; the names need their share
    drawn, axes = plt.subplots(1, 3, figsize=size, sharey=True, layout="constrained")
    for axis, group in zip(axes, learnt, strict=True):
        for y, method in enumerate(order):
            values = found[method][group]
            colour = "tab:red" if method.split("(")[0] == "PGCD" else "tab:gray"
            axis.barh(y, np.mean(values), color=colour, alpha=0.35)
            axis.plot(values, [y] * len(values), "o", color=colour, markersize=5)
        axis.set(xlim=(0, 1), xlabel=f"Dice, {group} classes")
        axis.grid(axis="x", alpha=0.4)
    axes[0].set_yticks(range(len(order)), order)
    drawn.savefig(file)


def stored_scores(file: Path, named: Collection[str] = ()) -> dict[str, dict[str, Folds]]:
    """Reads a study as cases -> model -> fold -> Dice. Exits where there is none, or it lacks one of the methods named."""
    if not file.is_file():
        raise SystemExit(f"{file} is missing.")
    scores: dict[str, dict[str, Folds]] = {cases: dict(read_scores(file, cases)) for cases in CASES}
    methods = {method_of(model) for found in scores.values() for model in found} - {"step0"}
    for method in named:
        if method not in methods:
            raise SystemExit(f"{file} has no {method}, but {', '.join(sorted(methods)) or 'nothing'}.")
    return scores


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("schedule", help="a name in benchmarks/schedules, a shipped name, or a file")
    parser.add_argument("--results", type=Path, help="the study's table (default: benchmarks/results/SCHEDULE.csv.gz)")
    parser.add_argument(
        "--methods", nargs="+", default=[], help="the rows to show, e.g. MiB 'PGCD(pgcd_beta=0)' (default: all)"
    )
    parser.add_argument("--cases", choices=CASES, nargs="+", default=CASES, help="the tables to print (default: both)")
    parser.add_argument("--joint", metavar="SCHEDULE", help="of joint training, one step, for a last row of the table")
    parser.add_argument(
        "--against",
        metavar="METHOD",
        help="print each fold's difference to this row, and the interval of their mean, too",
    )
    parser.add_argument("--figure", type=Path, help="only draw the test cases' scores after the last step")
    args = parser.parse_args()
    schedule = load_schedule(schedule_file(args.schedule))
    named = [*args.methods, *([args.against] if args.against else [])]
    scores = stored_scores(args.results or results_file(schedule.name), named)
    if args.figure:
        figure(schedule, chosen(scores["test"], args.methods), args.figure)
        return
    joint = stored_scores(results_file(args.joint)) if args.joint else {}
    for cases in args.cases:
        found = chosen(scores[cases], args.methods)
        joint_folds = joint[cases]["step0"] if joint else None
        print(f"\nDice, {cases} cases\n\n{table(schedule, found, joint_folds)}")
        if args.against:
            print(f"\nDice, {cases} cases, less that of {args.against}\n\n{differences(schedule, found, args.against)}")


if __name__ == "__main__":
    main()
