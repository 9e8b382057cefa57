"""Compares methods with one of them, over all initial models that they continued from.

    cd benchmarks/results
    python ../paired.py openkbp_2-2-1_cpu PGCD openkbp_2-2-1_cpu_third.csv.gz openkbp_2-2-1_cpu_fourth.csv.gz
    python ../paired.py openkbp_2-2-1_cpu PGCD openkbp_2-2-1_cpu_third.csv.gz openkbp_2-2-1_cpu_fourth.csv.gz --figure pairs.svg

A pair is two models of one schedule, step, fold and table of results: they continued from one initial model, were trained equally
long, and are scored on the same test cases. A Dice that one of them lacks counts for neither. The table holds the mean of the
pairs' differences in Dice and their standard deviation: what a pair varies by, from initial model to initial model and from
training to training. Rows with two pairs at least. Intervals, over patients and trainings, are benchmarks/compare.py's.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scores import method_of, read_scores, step_of
from study_tables import groups, schedule_file, scores_of_groups

from nnunet_cil.evaluation.differences import fold_differences
from nnunet_cil.schedule import Schedule, load_schedule

SHOWN = -0.15, 0.05
"""The differences between which the figure ends; what is farther off is an arrow at the edge."""


def differences(schedule: Schedule, reference: str, files: list[Path], cases: str) -> dict[str, dict[str, list[float]]]:
    """Returns row -> group (old, new, all) -> the row's Dice less the reference's, of each pair."""
    found: dict[str, dict[str, list[float]]] = {}
    for file in files:
        rows = read_scores(file, cases)
        for row, folds in rows.items():
            against = rows.get(f"{reference}_step{step_of(row)}", {})
            if not against or method_of(row) == reference:
                continue
            names = groups(schedule, step_of(row))
            both = scores_of_groups(schedule, row, folds, reference, against)
            for name, scores in zip(names, both, strict=True):
                values = fold_differences(scores, row, reference).values()
                found.setdefault(row, {}).setdefault(name, []).extend(v for v in values if not math.isnan(v))
    return found


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Returns Markdown: mean ± standard deviation, and in how many pairs the row is ahead."""
    lines = ["| model | old | new | all | pairs |", "|---|---|---|---|---|"]
    for row, by_group in sorted(found.items(), key=lambda item: (step_of(item[0]), item[0])):
        num_pairs = len(by_group["all"])
        if num_pairs > 1:
            cells = [
                f"{np.mean(v):+.3f} ± {np.std(v, ddof=1):.3f} (ahead in {sum(x > 0 for x in v)})" if len(v) > 1 else ""
                for v in by_group.values()
            ]
            lines.append(f"| {row} | {' | '.join(cells)} | {num_pairs} |")
    return "\n".join(lines)


def figure(found: dict[str, dict[str, list[float]]], reference: str) -> Figure:
    """Draws every pair as a dot, their mean as a line; one row of axes a step. Rows with a changed setting are left out."""
    shown = {row: by_group for row, by_group in found.items() if "(" not in row and len(by_group["all"]) > 1}
    steps = sorted({step_of(row) for row in shown})
    drawn = Figure(figsize=(10, 0.8 + 0.25 * len(shown) + 0.4 * len(steps)), layout="constrained")
    axes = drawn.subplots(len(steps), 3, sharex=True, sharey="row", squeeze=False)
    for line, step in zip(axes, steps, strict=True):
        order = sorted(
            (row for row in shown if step_of(row) == step), key=lambda row: float(np.mean(shown[row]["all"]))
        )
        for ax, group in zip(line, ("old", "new", "all"), strict=True):
            for y, row in enumerate(order):
                draw_pairs(ax, y, shown[row][group])
            ax.axvline(0, color="black", lw=0.8)
            ax.set(xlim=(SHOWN[0] - 0.01, SHOWN[1] + 0.01), title=f"{group} classes, after step {step}")
            ax.grid(axis="x", alpha=0.4)
        line[0].set_yticks(range(len(order)), [method_of(row) for row in order])
    for ax in axes[-1]:
        ax.set_xlabel(f"Dice less that of {reference}")
    return drawn


def draw_pairs(ax: Axes, y: int, values: list[float]) -> None:
    """Draws one row of a figure."""
    for value in values:
        marker = "<" if value < SHOWN[0] else ">" if value > SHOWN[1] else "o"
        ax.plot(np.clip(value, *SHOWN), y, marker, color="tab:gray", alpha=0.7, markersize=5)
    if SHOWN[0] <= np.mean(values) <= SHOWN[1]:
        ax.plot([np.mean(values)] * 2, [y - 0.35, y + 0.35], color="tab:red")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("schedule", help="a name in benchmarks/schedules, a shipped name, or a file")
    parser.add_argument("reference", help="the method that the others are compared with, as in the study's table")
    parser.add_argument("results", type=Path, nargs="+", help="tables of benchmarks/study.py")
    parser.add_argument("--cases", choices=["validation", "test"], default="test", help="default: %(default)s")
    parser.add_argument("--figure", type=Path, help="draw the pairs instead")
    args = parser.parse_args()
    for file in args.results:
        if args.reference not in map(method_of, read_scores(file, args.cases)):
            raise SystemExit(f"{file} has no results of {args.reference}.")
    schedule = load_schedule(schedule_file(args.schedule))
    found = differences(schedule, args.reference, args.results, args.cases)
    if args.figure:
        figure(found, args.reference).savefig(args.figure)
    else:
        print(table(found))


if __name__ == "__main__":
    main()
