"""How far methods are from one of them, over all steps 0 that they continued from.

    cd benchmarks/results
    python ../paired.py openkbp_2-2-1_cpu PGCD openkbp_2-2-1_cpu openkbp_2-2-1_cpu_second

A pair is two models of one schedule, step, fold and folder of results: they continued from one step 0, were trained equally
long, and are scored on the same test cases. The table holds the mean of the pairs' differences in Dice and their standard
deviation: what a pair varies by, from step 0 to step 0 and from training to training. Rows with two pairs at least.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from study import group_means, groups, mean_dice, read_scores, schedule_file

from nnunet_cil.schedule import Schedule, load_schedule


def differences(
    schedule: Schedule, reference: str, folders: list[Path], cases: str
) -> dict[str, dict[str, list[float]]]:
    """Row -> group (old, new, all) -> the row's Dice less the reference's, of each pair."""
    found: dict[str, dict[str, list[float]]] = {}
    for folder in folders:
        rows = {row: {f: mean_dice(d) for f, d in folds.items()} for row, folds in read_scores(folder, cases).items()}
        for row, folds in rows.items():
            against = rows.get(f"{reference}_step{row[-1]}", {})
            if row == f"{reference}_step{row[-1]}":
                continue
            for name, group in groups(schedule, int(row[-1])).items():
                own, others = group_means(folds, group), group_means(against, group)
                values = [own[f] - others[f] for f in sorted(own.keys() & others.keys())]
                found.setdefault(row, {}).setdefault(name, []).extend(values)
    return found


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Markdown: mean ± standard deviation, and in how many pairs the row is ahead."""
    lines = ["| model | old | new | all | pairs |", "|---|---|---|---|---|"]
    for row, by_group in sorted(found.items(), key=lambda item: (item[0][-1], item[0])):
        num_pairs = len(by_group["all"])
        if num_pairs > 1:
            cells = [
                f"{np.mean(v):+.3f} ± {np.std(v, ddof=1):.3f} (ahead in {sum(x > 0 for x in v)})"
                for v in by_group.values()
            ]
            lines.append(f"| {row} | {' | '.join(cells)} | {num_pairs} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("schedule", help="a name in benchmarks/schedules, a shipped name, or a file")
    parser.add_argument("reference", help="the method that the others are compared with, as in the study's table")
    parser.add_argument("results", type=Path, nargs="+", help="folders of benchmarks/study.py")
    parser.add_argument("--cases", choices=["validation", "test"], default="test", help="default: %(default)s")
    args = parser.parse_args()
    for folder in args.results:
        if not any(folder.glob(f"{args.reference}_step*_fold*.json")):
            raise SystemExit(f"{folder} has no results of {args.reference}.")
    schedule = load_schedule(schedule_file(args.schedule))
    print(table(differences(schedule, args.reference, args.results, args.cases)))


if __name__ == "__main__":
    main()
