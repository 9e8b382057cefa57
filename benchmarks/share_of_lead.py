"""Prints how much of a method's lead over a baseline is left when one of its settings changes.

    python benchmarks/share_of_lead.py

The defaults ask the question that docs/explanation/pgcd.md answers: PGCD against MiB, with and without ``pgcd_beta``, on the test
patients of openkbp_2-2-1_cpu. The rows are PGCD's with the earlier defaults, the only ones trained with ``pgcd_beta`` 0.

All three models of a line were trained from one initial model, in one fold, and are scored on the same cases. The share is the
mean lead of the changed method over the mean lead of the whole one; with few pairs it is a rough number.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scores import RESULTS, read_scores
from study_tables import group_means, groups, schedule_file

from nnunet_cil.schedule import Schedule, load_schedule

WHOLE = "PGCD(new_class_noise=0,pgcd_weight=10)"
CHANGED = "PGCD(new_class_noise=0,pgcd_weight=10,pgcd_beta=0)"
BASELINE = "MiB"

Leads = list[tuple[str, float, float]]
"""Initial model, lead of the whole method, lead of the changed one."""


def leads(
    schedule: Schedule, files: Sequence[Path], step: int, group: str, methods: Sequence[str], cases: str
) -> Leads:
    """Returns the leads in Dice after a step, of each initial model from which all three methods were trained.

    Args:
        schedule: of the tables.
        files: tables of benchmarks/study.py, each with initial models of its own.
        step: after which the models are scored.
        group: old, new or all classes.
        methods: the whole method, the changed one, the baseline.
        cases: validation or test.
    """
    found = []
    for file in files:
        rows = read_scores(file, cases)
        classes = groups(schedule, step)[group]
        whole, changed, baseline = (group_means(rows.get(f"{m}_step{step}", {}), classes) for m in methods)
        for fold in sorted(whole.keys() & changed.keys() & baseline.keys()):
            name = f"{file.name.removesuffix('.csv.gz')}, fold {fold}"
            found.append((name, whole[fold] - baseline[fold], changed[fold] - baseline[fold]))
    return found


def share(found: Leads) -> float:
    """Returns the mean lead of the changed method over that of the whole one."""
    return float(np.mean([c for _, _, c in found]) / np.mean([w for _, w, _ in found]))


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("schedule", nargs="?", default="openkbp_2-2-1_cpu", help="default: %(default)s")
    parser.add_argument(
        "--methods", nargs=3, default=[WHOLE, CHANGED, BASELINE], metavar=("WHOLE", "CHANGED", "BASELINE")
    )
    parser.add_argument("--cases", choices=["validation", "test"], default="test", help="default: %(default)s")
    args = parser.parse_args()
    schedule = load_schedule(schedule_file(args.schedule))
    files = sorted(RESULTS.glob(f"{args.schedule}*.csv.gz"))
    print("| step | classes | initial model | whole | changed | share left |\n|---|---|---|---|---|---|")
    for step in range(1, len(schedule.steps)):
        for group in ("old", "all"):
            found = leads(schedule, files, step, group, args.methods, args.cases)
            if not found:
                continue
            for name, whole, changed in found:
                print(f"| {step} | {group} | {name} | {whole:+.3f} | {changed:+.3f} | |")
            means = np.mean([values for _, *values in found], axis=0)
            print(f"| {step} | {group} | mean | {means[0]:+.3f} | {means[1]:+.3f} | {share(found):.0%} |")


if __name__ == "__main__":
    main()
