"""Runs the planned comparison of methods, the most telling trainings first, and says what of it is done.

    export nnUNet_extTrainer="$(nnunet_cil trainers):$PWD/benchmarks/trainers"
    python benchmarks/planned_runs.py --list
    python benchmarks/planned_runs.py --stages choice

Every run is a call of benchmarks/study.py: a data set, methods and a fold, which all continue from the fold's initial model.
What is finished is skipped. Stop it at any time; the next call goes on, with the same nnUNet_results. Where the models are gone,
remove the table of a pair that is not complete: a pair is one initial model, and study.py refuses another. The data sets must be
planned and preprocessed, with the small plans and the split of benchmarks/notebook/2026-11-29-fair-comparison.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from scores import Row, read_rows

RESULTS = Path(__file__).parent / "results"
STAGES = "choice", "core", "more"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Holds what every run of a data set has in common.

    Attributes:
        dataset: its ID.
        schedule: of benchmarks/schedules.
        plans: the small plans.
        configuration: nnU-Net's.
        num_steps: steps after the first.
        minutes: of one method after the initial model, on two CPU cores.
    """

    dataset: str
    schedule: str
    plans: str
    configuration: str
    num_steps: int
    minutes: float

    def table(self, part: str) -> Path:
        """Returns the file of the scores of a part of the plan, whose trainings continue from one initial model."""
        return RESULTS / f"{self.schedule}_{part}.csv.gz"


PROTOCOLS = (
    Protocol(
        dataset="901",
        schedule="acdc_1-1-1_disjoint_cpu",
        plans="nnUNetPlansSmall",
        configuration="2d",
        num_steps=2,
        minutes=5,
    ),
    Protocol(
        dataset="904",
        schedule="hippocampus_1-1_disjoint_cpu",
        plans="nnUNetPlansSmall",
        configuration="3d_fullres",
        num_steps=1,
        minutes=3,
    ),
    Protocol(
        dataset="900",
        schedule="openkbp_2-2-1_disjoint_short",
        plans="nnUNetPlansSmall",
        configuration="3d_fullres",
        num_steps=2,
        minutes=9,
    ),
)

HEART, HIPPOCAMPUS, CT = PROTOCOLS

MORE = (
    replace(HEART, schedule="acdc_1-1-1_disjoint_sgd", minutes=10),
    replace(HIPPOCAMPUS, dataset="906", schedule="hippocampus_1-1_cropped_cpu"),
    replace(HEART, schedule="acdc_1-1-1_reversed_cpu"),
    replace(HEART, schedule="acdc_1-1-1_cpu"),
    replace(HIPPOCAMPUS, schedule="hippocampus_1-1_cpu"),
)
"""Names what else the comparison could depend on: nnU-Net's own optimiser, images without the old organs
(``cropped_dataset.py``), the order, the same patients in every step."""

SAME_PATIENTS = MORE[-2:]
"""Runs joint training, too: both see the same patients there."""

PAIRS = MORE, (MORE[0], replace(MORE[1], dataset="907")), *((replace(MORE[1], dataset=d),) for d in ("908", "909"))
"""Lists what is run in each pair; images are cut for each anew."""

CHOICE = {
    "MiB": ("", "imprinted", "volumes", "sampled", "strong", "dice1", "apart", "weak", "start"),
    "PseudoLabel": ("", "imprinted", "sampled", "balanced", "apart", "patchwise", "fresh", "even", "local"),
    "LwF": ("", "imprinted", "sampled", "volumes", "apart", "strong", "dice1", "weak", "start"),
}
"""Nine settings of each rival, the published one first: tuned_trainers.py in benchmarks/trainers. What was tried for PGCD is in
the stored tables."""

SEPARATE = "Separate"

CORE = (
    *("PGCD", "MiB", "MiB_sampled", "PGCD_prototypes", "LwF_sampled", "PseudoLabel_sampled", "MiB_imprinted", SEPARATE),
    *("Joint", "PGCDPaper", "PGCD_teacher", "PGCD_permuted", "LwF", "PseudoLabel"),
)
"""The methods of a pair, the most telling first. ``sampled``: with PGCD's options; ``imprinted``: with these but the sampling."""


STRONGEST = "PGCD", "MiB_sampled", "MiB", SEPARATE
"""The methods of ``MORE``."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Some methods on one fold of one data set.

    Attributes:
        protocol: of the data set.
        stage: of the plan.
        part: of the stage: what continues from one initial model.
        fold: 0 for choices, one from 1 to 5 for a pair.
        methods: as benchmarks/study.py takes them.
        cases: that are scored.
    """

    protocol: Protocol
    stage: str
    part: str
    fold: int
    methods: tuple[str, ...]
    cases: tuple[str, ...]

    @property
    def hours(self) -> float:
        """Returns the expected time of training, without the initial model."""
        return self.protocol.minutes * len(self.methods) / 60

    @property
    def table(self) -> Path:
        """Returns the file of its scores."""
        return self.protocol.table(self.part)

    def commands(self, methods: Collection[str] | None = None) -> list[list[str]]:
        """Returns its command lines, one a method, so that what an interruption leaves is scored.

        Args:
            methods: to run; ``None`` for all.
        """
        p = self.protocol
        what = [p.dataset, p.schedule, "-p", p.plans, "-c", p.configuration, "--folds", str(self.fold)]
        where = ["--cases", *self.cases, "-o", str(self.table)]
        study, separate = (str(Path(__file__).with_name(f"{name}.py")) for name in ("study", "separate_models"))
        scripts = {
            method: [separate] if method == SEPARATE else [study, "--methods", method]
            for method in self.missing
            if methods is None or method in methods
        }
        return [[sys.executable, name, *what, *where, *options] for name, *options in scripts.values()]

    @property
    def missing(self) -> list[str]:
        """Returns the methods without scores of all its cases after the last step."""
        rows = read_rows(self.table) if self.table.is_file() else []
        last = str(self.protocol.num_steps), str(self.fold)
        done = {(name_in_plan(row), row["cases"]) for row in rows if (row["step"], row["fold"]) == last}
        return [method for method in self.methods if any((method, cases) not in done for cases in self.cases)]


def name_in_plan(row: Row) -> str:
    """Returns what the plan calls the method of a row: its trainer, but for the separate models, which have one of another."""
    return SEPARATE if row["method"] == SEPARATE else row["trainer"].removeprefix("nnUNetTrainer")


def runs(stage: str) -> Iterator[Run]:
    """Yields the runs of a stage, the most telling first: an interruption leaves a complete, smaller table."""
    if stage == "choice":
        for rival, settings in CHOICE.items():
            # PGCD beside them: a rival's settings are compared on an initial model of their own
            methods = "PGCD", *(f"{rival}_{setting}".removesuffix("_") for setting in settings)
            for protocol in PROTOCOLS:
                yield _run(protocol, stage, f"{stage}_{rival}", 0, methods)
    elif stage == "core":
        for fold in range(1, 6):
            for protocol in PROTOCOLS:
                yield _run(protocol, stage, f"{stage}{fold}", fold, CORE)
    else:
        for fold, protocols in enumerate(PAIRS, start=1):
            for protocol in protocols:
                methods = (*STRONGEST, "Joint") if protocol in SAME_PATIENTS else STRONGEST
                yield _run(protocol, stage, f"{stage}{fold}", fold, methods)


def _run(protocol: Protocol, stage: str, part: str, fold: int, methods: tuple[str, ...]) -> Run:
    return Run(protocol=protocol, stage=stage, part=part, fold=fold, methods=methods, cases=("validation",))


def table() -> str:
    """Returns the plan as a table in Markdown."""
    lines = ["| stage | data set | fold | methods | hours | done |", "|---|---|---|---|---|---|"]
    for stage in STAGES:
        for run in runs(stage):
            done = f"{len(run.methods) - len(run.missing)} of {len(run.methods)}"
            cells = [stage, run.protocol.schedule, str(run.fold), ", ".join(run.methods), f"{run.hours:.1f}", done]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="to run (default: all)")
    parser.add_argument("--datasets", nargs="+", help="IDs of the data sets to run (default: all)")
    parser.add_argument("--folds", type=int, nargs="+", help="to run (default: all)")
    parser.add_argument("--methods", nargs="+", help="of the plan to run (default: all)")
    parser.add_argument("--list", action="store_true", help="print the plan, and what of it is done")
    args = parser.parse_args()
    if args.list:
        print(table())
        return
    for run in (run for stage in args.stages for run in runs(stage)):
        chosen = (args.datasets is None or run.protocol.dataset in args.datasets) and (
            args.folds is None or run.fold in args.folds
        )
        for command in run.commands(args.methods) if chosen else ():
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
