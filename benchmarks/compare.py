"""Compares the methods of a study, over one or several data sets: every number, and differences with intervals.

    python benchmarks/compare.py --primary PGCD MiB --on openkbp_2-2-1_cpu a.csv.gz b.csv.gz
    python benchmarks/compare.py --primary PGCD "MiB(mib_weight=30)" --on openkbp_2-2-1_disjoint_cpu a.csv --on acdc_1-1-1 c.csv

--on names a schedule, as for benchmarks/study_tables.py, and its tables, each with initial models of its own. A pair is all
methods on one initial model: a table and a fold. --primary names the one comparison that was chosen before the runs: its first
method less its second, in all classes, in the mean over the data sets. That method is compared with every other one; the p values
of all other comparisons are corrected for their number (Holm). Intervals are those of ``nnunet_cil evaluate``; over several data
sets each is drawn independently, and the mean over them taken; it has no interval where one has one pair and another several.
Methods that lack a step are left out, and named. --call shows a method under a shorter name. @FILE
stands for the arguments in a file, as in benchmarks/three_data_sets.txt: the comparison of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scores import costs_file, method_of, read_rows, row_name
from study_tables import CASES, schedule_file

from nnunet_cil.evaluation.continual import mean
from nnunet_cil.evaluation.differences import Difference, Scores, corrected, differences
from nnunet_cil.evaluation.results import last_mean, pooled, results, short
from nnunet_cil.evaluation.scores import score_table
from nnunet_cil.evaluation.summary import differences_text
from nnunet_cil.evaluation.tables import (
    SCHEDULE_NUMBERS,
    Table,
    costs_table,
    differences_table,
    interval_text,
    number,
    schedule_table,
)
from nnunet_cil.schedule import load_schedule

PREFIX = "nnUNetTrainer"
MEAN = "mean over data sets"


@dataclass(frozen=True, kw_only=True)
class Study:
    """The scores of a schedule's methods.

    Attributes:
        name: of the schedule.
        scores: the methods' names in the column ``trainer`` begin with ``PREFIX``.
        costs: method -> pair, as in the column ``fold`` -> what it has cost, as in ``results.json``; without methods of which
            nothing was kept.
    """

    name: str
    scores: Scores
    costs: Mapping[str, Mapping[str, Mapping[str, Any]]]

    @classmethod
    def read(cls, schedule_name: str, files: Iterable[Path], cases: str, methods: Sequence[str]) -> Study:
        """Reads the tables of a schedule; of the methods named, or of all where none is.

        Raises:
            SystemExit: a file is missing or there twice, has a row twice, or a method named is nowhere.
        """
        schedule = load_schedule(schedule_file(schedule_name))
        files = list(files)
        rows: list[dict[str, Any]] = []
        costs: dict[str, dict[str, Mapping[str, Any]]] = {}
        for file in files:
            if not file.is_file():
                raise SystemExit(f"{file} is missing.")
            if sum(map(file.samefile, filter(Path.exists, files))) > 1:
                raise SystemExit(
                    f"{file} is named twice for {schedule.name}: its pairs would count twice. Name it once."
                )
            rows += _rows(file, cases)
            if costs_file(file).is_file():
                for method, folds in json.loads(costs_file(file).read_text(), object_hook=_without_none).items():
                    costs.setdefault(method, {}).update({pair(file, fold): own for fold, own in folds.items()})
        found = {row["trainer"].removeprefix(PREFIX): None for row in rows}
        for method in methods:
            if method not in found:
                raise SystemExit(f"{schedule.name} has no {method}, but {', '.join(found) or 'nothing'}.")
        chosen = [PREFIX + method for method in methods or found]
        table = score_table(row for row in rows if row["trainer"] in chosen)
        return cls(
            name=schedule.name,
            scores=Scores(table=table, steps=[list(step.classes) for step in schedule.steps]),
            costs={method: costs[method] for method in methods or found if method in costs},
        )

    def complete(self) -> Study:
        """Returns it without the pairs and methods that lack a step."""
        table, num_steps = self.scores.table, len(self.scores.steps)
        has_all = table.groupby(["trainer", "fold"])["step"].transform("nunique") == num_steps
        kept = {short(trainer): set(rows["fold"]) for trainer, rows in table[has_all].groupby("trainer")}
        costs = {
            method: {name: own for name, own in pairs.items() if name in kept.get(method, ())}
            for method, pairs in self.costs.items()
        }
        return replace(
            self,
            scores=replace(self.scores, table=table[has_all]),
            costs={method: pairs for method, pairs in costs.items() if pairs},
        )

    def check_cases(self) -> None:
        """Refuses a pair whose methods have different rows: the means would be over different cases.

        Raises:
            SystemExit: names a method, the pair and the first case.
        """
        columns = ["step", "case", "class"]
        for name, rows in self.scores.table.groupby("fold"):
            own = {
                short(trainer): set(r[columns].itertuples(index=False, name=None))
                for trainer, r in rows.groupby("trainer")
            }
            whole = set().union(*own.values())
            for method, found in own.items():
                if lacking := sorted(whole - found):
                    step, case, class_name = lacking[0]
                    raise SystemExit(
                        f"{self.name}: {method} has no row of step {step}, case {case}, {class_name}, in {name}, which others "
                        f"have ({len(lacking)} such). Score it again with benchmarks/study.py, or leave it out of --methods."
                    )

    def renamed(self, names: Mapping[str, str]) -> Study:
        """Returns it with other names of methods.

        Raises:
            SystemExit: two methods would have one name.
        """
        new = {method: names.get(method, method) for method in self.methods}
        if len(set(new.values())) < len(new):
            raise SystemExit(f"{self.name}: --call gives two methods one name. Choose another.")
        table = self.scores.table.assign(
            trainer=self.scores.table["trainer"].map({PREFIX + old: PREFIX + name for old, name in new.items()})
        )
        costs = {new[method]: pairs for method, pairs in self.costs.items()}
        return replace(self, scores=replace(self.scores, table=table), costs=costs)

    @property
    def methods(self) -> list[str]:
        """Returns the methods, in the order of their names."""
        return sorted(map(short, self.scores.table["trainer"].unique()))


def pair(file: Path, fold: str) -> str:
    """Names the pair of a table's fold."""
    return f"{file} {fold}"


def _without_none(content: dict[str, Any]) -> dict[str, Any]:
    """Returns a JSON object with NaN for what was not recorded."""
    lists = {
        key: [math.nan if v is None else v for v in value] for key, value in content.items() if isinstance(value, list)
    }
    return {key: math.nan if value is None else value for key, value in content.items()} | lists


def _rows(file: Path, cases: str) -> list[dict[str, Any]]:
    """Returns rows of ``score_table``; those of an initial model once for each method that continues from it."""
    found, initial, known = [], [], set()
    methods: dict[str, dict[str, None]] = {}
    for row in read_rows(file):
        if row["cases"] != cases:
            continue
        key = row_name(row), *(row[name] for name in ("fold", "case", "class"))
        if key in known:
            raise SystemExit("{} has two rows of {}, fold {}, case {}, {}: remove one.".format(file, *key))
        known.add(key)
        step, fold = int(row["step"]), pair(file, row["fold"])
        scores = {name: float(row[name]) if row.get(name) else math.nan for name in ("dice", "hd95_mm")}
        entry = {"step": step, "fold": fold, "case": row["case"], "class": row["class"], "unit": "mm", **scores}
        if step == 0:
            initial.append(entry)
            continue
        method = PREFIX + method_of(row_name(row))
        methods.setdefault(fold, {})[method] = None
        found.append({**entry, "trainer": method})
    return found + [{**e, "trainer": method} for e in initial for method in methods.get(e["fold"], ())]


def numbers(study: Study, *, with_distances: bool) -> dict[str, dict[str, Any]]:
    """Returns method -> its numbers, over its pairs, as ``schedule_table`` takes them, and how many pairs.

    Intransigence is NaN where one pair lacks joint training: its mean would be over other pairs.
    """
    found = {}
    wanted = ("dice", "hd95_mm") if with_distances else ("dice",)
    for trainer, metrics in results(study.scores.table, study.scores.steps, wanted).items():
        folds = metrics["dice"]
        values = asdict(pooled(folds))
        if any(math.isnan(f["intransigence"]) for f in folds):
            values["intransigence"] = math.nan
        distances = metrics["hd95_mm"] if with_distances else []
        found[short(trainer)] = {
            **values,
            "hd95_mm": last_mean(distances, "all") if distances else math.nan,
            "hd95_missing": sum(sum(f["missing"][-1].values()) for f in distances),
            "pairs": len(folds),
        }
    return found


def numbers_table(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Returns one line a method, the best in all classes first; over several data sets the mean, and smallest to largest.

    A number that one data set lacks is blank, but for distances, which say what they are over.
    """
    rows = {method: [{**r, **_lacking(own)} for r in own] for method, own in rows.items()}
    order = sorted(rows, key=lambda method: -mean(r["all"][-1] for r in rows[method]))
    table = schedule_table({method: (_over_all(rows[method]), rows[method]) for method in order})
    columns = {
        "HD95 mm": [_distance(rows[method]) for method in order],
        "pairs": [", ".join(str(r["pairs"]) for r in rows[method]) for method in order],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    return Table(
        [*table.header, *shown], [[*line, *own] for line, *own in zip(table.body, *shown.values(), strict=True)]
    )


def _over_all(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the mean over data sets."""
    values: dict[str, Any] = {name: mean(r[name] for r in rows) for name in SCHEDULE_NUMBERS}
    return {**values, **{group: [mean(r[group][-1] for r in rows)] for group in ("old", "all")}}


def _lacking(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the numbers that one data set lacks, as NaN."""
    return {name: math.nan for name in SCHEDULE_NUMBERS if any(math.isnan(r[name]) for r in rows)}


def _distance(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the mean distance of a method over data sets; beside it how many have one, and how many Dice values have none."""
    known = [r for r in rows if not math.isnan(r["hd95_mm"])]
    notes = [f"{len(known)} of {len(rows)} data sets"] if len(known) < len(rows) else []
    notes += [f"{missing} missing"] if (missing := sum(r["hd95_missing"] for r in known)) else []
    return number(mean(r["hd95_mm"] for r in known)) + (f" ({', '.join(notes)})" if known and notes else "")


def print_costs(studies: Sequence[Study]) -> None:
    """Prints what the methods of each data set have cost, where that was kept."""
    for study in studies:
        if study.costs:
            costs = {method: list(pairs.values()) for method, pairs in study.costs.items()}
            print(f"{study.name}, costs, mean over pairs\n\n{costs_table(costs).markdown()}\n")


def print_numbers(studies: Sequence[Study], nominal: Sequence[str], cases: str) -> None:
    """Prints the numbers of each data set, then the mean over them."""
    found = [numbers(study, with_distances=study.name not in nominal) for study in studies]
    for study, rows in zip(studies, found, strict=True):
        table = numbers_table({method: [row] for method, row in rows.items()})
        print(f"{study.name}, {cases}, mean over pairs\n\n{table.markdown()}\n")
    if len(studies) > 1:
        print(f"Mean over data sets (smallest to largest)\n\n{numbers_table(in_all(found)).markdown()}\n")


def in_all(found: Sequence[Mapping[str, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Returns method -> its numbers in each data set, of the methods that all data sets have."""
    return {method: [rows[method] for rows in found] for method in found[0] if all(method in rows for rows in found)}


def compared(studies: Sequence[Study], method: str, rival: str) -> list[tuple[str, Difference]]:
    """Compares a method with every other one that all studies have, in their mean and in each; with the rival first.

    Returns:
        What each is over, and the difference. The primary one is with the rival, in all classes, in the mean.
    """
    others = [m for m in studies[0].methods if m != method and all(m in s.methods for s in studies)]
    others.sort(key=lambda other: other != rival)
    parts = [(MEAN, studies)] if len(studies) > 1 else []
    parts += [(study.name, [study]) for study in studies]
    names, found = [], []
    for place, (name, part) in enumerate(parts):
        for other in others:
            for d in differences([s.scores for s in part], PREFIX + method, PREFIX + other):
                names.append(name)
                found.append(replace(d, is_primary=place == 0 and other == rival and d.group == "all"))
    return list(zip(names, corrected(found), strict=True))


def without_interval(lines: Sequence[tuple[str, Difference]]) -> str:
    """Says which data sets keep the mean over them from an interval."""
    unknown = {(d.other, d.group) for _, d in lines if d.over == "nothing"}
    alone = {name: None for name, d in lines if (d.other, d.group) in unknown and d.over == "patients"}
    names = ", ".join(alone)
    return (
        f"No interval for the mean: one pair of {names}, several of another. Train more, or leave {names} out of --on."
    )


def print_differences(lines: Sequence[tuple[str, Difference]]) -> None:
    """Prints what ``compared`` returns, and how to read it."""
    found = [asdict(d) for _, d in lines]
    table = differences_table(found)
    body = [[name, *cells] for (name, _), cells in zip(lines, table.body, strict=True)]
    print(f"Differences\n\n{differences_text(found)}\n\n{Table(['data', *table.header], body).markdown()}")
    if any(d.over == "nothing" for _, d in lines):
        print(f"\n{without_interval(lines)}")


def overview_table(studies: Sequence[Study], method: str) -> Table:
    """Returns one line a method, with its difference to one of them in all classes; the mean over data sets.

    The best comes first, by that difference: it is over the pairs that both have, the other means over all of a method's own.
    Intervals are those of ``nnunet_cil evaluate``; they are not corrected for the number of methods.
    """
    rows = in_all([numbers(study, with_distances=False) for study in studies])
    scores = [study.scores for study in studies]
    against = {
        other: next(d for d in differences(scores, PREFIX + other, PREFIX + method) if d.group == "all")
        for other in rows
        if other != method
    }
    body = []
    for name in sorted(rows, key=lambda name: -against[name].difference if name in against else 0):
        d = against.get(name)
        less = ["", ""] if d is None else [f"{d.difference:+.3f}", interval_text(d.low, d.high, is_t=d.interval == "t")]
        old, all_classes = (mean(r[group][-1] for r in rows[name]) for group in ("old", "all"))
        new = mean(r["new_when_learnt"] for r in rows[name])
        pairs = ", ".join(str(r["pairs"]) for r in rows[name])
        body.append([name, number(old), number(all_classes), number(new), *less, pairs])
    header = ["method", "old", "all", "new, when learnt", f"all, less {method}'s", "interval", "pairs"]
    return Table(header, body)


def print_overviews(studies: Sequence[Study], method: str) -> None:
    """Prints the overview of each data set, then that of the mean over them."""
    parts = [(study.name, [study]) for study in studies]
    for name, part in [*parts, (MEAN.capitalize(), studies)] if len(studies) > 1 else parts:
        print(f"{name}\n\n{overview_table(part, method).markdown()}\n")


def draw(studies: Sequence[Study], method: str, titles: Sequence[str], file: Path) -> None:
    """Draws the differences of the methods that all data sets have, in each of them and in the mean."""
    from compare_figure import forest

    order = [row[0] for row in overview_table(studies, method).body if row[0] != method]
    panels = [(title, [study.scores]) for title, study in zip(titles, studies, strict=True)]
    if len(studies) > 1:
        panels.append((MEAN.capitalize(), [study.scores for study in studies]))
    forest(panels, PREFIX + method, {PREFIX + other: other for other in order}).savefig(file)


def read_studies(on: Sequence[Sequence[str]], cases: str, primary: Sequence[str], others: Sequence[str]) -> list[Study]:
    """Reads the data sets, says what has no complete pair, and refuses what cannot be compared.

    Args:
        on: of each data set its schedule, then its tables.
        cases: ``test`` or ``validation``.
        primary: the two methods of the primary comparison.
        others: further methods; all where there are none.

    Raises:
        SystemExit: see ``Study.read`` and ``Study.check_cases``; or a primary method has no complete pair.
    """
    methods = list(dict.fromkeys([*primary, *others])) if others else []
    whole = [Study.read(name, map(Path, files), cases, methods) for name, *files in on]
    studies = [study.complete() for study in whole]
    for study, before in zip(studies, whole, strict=True):
        study.check_cases()
        if left_out := [name for name in before.methods if name not in study.methods]:
            print(f"{study.name}: without {', '.join(left_out)}, of which no pair has every step.\n")
        for name in primary:
            if name not in study.methods:
                raise SystemExit(f"{study.name} has no complete pair of {name}.")
    return studies


class Parser(argparse.ArgumentParser):
    """Reads arguments from files, too, several in a line, quoted as in a shell."""

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        """Returns the arguments of a line."""
        return shlex.split(arg_line)


def main() -> None:
    """Runs the command line."""
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, fromfile_prefix_chars="@"
    )
    parser.add_argument("--on", nargs="+", action="append", required=True, metavar=("SCHEDULE", "TABLE"))
    parser.add_argument("--primary", nargs=2, required=True, metavar=("METHOD", "RIVAL"))
    parser.add_argument("--methods", nargs="+", default=[], help="to show, beside the primary ones (default: all)")
    parser.add_argument("--call", nargs=2, action="append", default=[], metavar=("METHOD", "NAME"))
    parser.add_argument("--cases", choices=CASES, default="test", help="default: %(default)s")
    parser.add_argument("--nominal", nargs="+", default=[], metavar="SCHEDULE", help="whose spacing is: no distances")
    parser.add_argument(
        "--only",
        choices=["costs", "numbers", "differences", "overview"],
        help="print no other tables; overview: one line a method, with its difference in all classes",
    )
    parser.add_argument("--figure", type=Path, help="draw the differences in all classes; without --only print nothing")
    parser.add_argument("--titles", nargs="+", help="of the figure's data sets (default: the schedules' names)")
    args = parser.parse_args()
    if args.titles and len(args.titles) != len(args.on):
        parser.error("--titles: give one for each --on")
    studies = read_studies(args.on, args.cases, args.primary, args.methods)
    names = dict(args.call)
    if unknown := names.keys() - {name for study in studies for name in study.methods}:
        raise SystemExit(f"--call: there is no {', '.join(sorted(unknown))}.")
    studies = [study.renamed(names) for study in studies]
    method, rival = (names.get(name, name) for name in args.primary)
    if args.figure:
        draw(studies, method, args.titles or [study.name for study in studies], args.figure)
    if args.only == "overview":
        print_overviews(studies, method)
    wanted = [args.only] if args.only else [] if args.figure else ["costs", "numbers", "differences"]
    if "costs" in wanted:
        print_costs(studies)
    if "numbers" in wanted:
        print_numbers(studies, args.nominal, f"{args.cases} cases")
    if "differences" in wanted:
        print_differences(compared(studies, method, rival))


if __name__ == "__main__":
    main()
