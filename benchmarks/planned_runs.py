"""Runs the planned comparison of methods, the most telling trainings first, and says what of it is done.

    export nnUNet_extTrainer="$(nnunet_cil trainers):$PWD/benchmarks/trainers"
    python benchmarks/planned_runs.py --list
    python benchmarks/planned_runs.py --stages choice

Every run is one call of benchmarks/study.py: a data set, methods and a fold, which all continue from the fold's initial model.
What is finished is skipped. Stop it at any time; the next call goes on. The data sets must be planned and preprocessed, with
the small plans and the split of benchmarks/notebook/2026-11-29-fair-comparison.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scores import read_rows

RESULTS = Path(__file__).parent / "results"
STAGES = ("choice",)


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

    def table(self, stage: str) -> Path:
        """Returns the file of the scores of a stage."""
        return RESULTS / f"{self.schedule}_{stage}.csv.gz"


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

CHOICE = (
    *("PGCDPaper_apart", "MiB", "PGCDPaper_imprinted", "MiB_imprinted", "PGCDPaper_volumes", "PGCDPaper_balance"),
    *("PGCDPaper_prototypes", "MiB_volumes", "PGCDPaper", "PGCDPaper_sampled", "MiB_sampled", "PGCDPaper_strong"),
    *("MiB_strong", "PGCDPaper_dice1", "MiB_dice1", "MiB_apart", "PseudoLabel", "PseudoLabel_imprinted"),
    *("LwF", "LwF_imprinted", "PseudoLabel_sampled", "LwF_sampled", "PseudoLabel_balanced", "LwF_volumes"),
    *("PseudoLabel_apart", "LwF_apart", "PseudoLabel_patchwise", "LwF_strong", "PseudoLabel_fresh", "LwF_dice1"),
    *("MiB_weak", "LwF_weak", "MiB_start", "LwF_start", "PseudoLabel_even", "PseudoLabel_local"),
)
"""Nine settings of four methods: tuned_trainers.py and lead_trainers.py in benchmarks/trainers."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Some methods on one fold of one data set.

    Attributes:
        protocol: of the data set.
        stage: of the plan.
        fold: 0 for choices, one from 1 to 5 for a pair of the comparison.
        methods: as benchmarks/study.py takes them.
        cases: that are scored.
    """

    protocol: Protocol
    stage: str
    fold: int
    methods: tuple[str, ...]
    cases: tuple[str, ...]

    @property
    def hours(self) -> float:
        """Returns the expected time of training, without the initial model."""
        return self.protocol.minutes * len(self.methods) / 60

    @property
    def command(self) -> list[str]:
        """Returns the command line of it."""
        p = self.protocol
        study = [sys.executable, str(Path(__file__).with_name("study.py")), p.dataset, p.schedule, "-p", p.plans]
        methods = ["-c", p.configuration, "--methods", *self.methods, "--folds", str(self.fold)]
        return [*study, *methods, "--cases", *self.cases, "-o", str(p.table(self.stage))]

    @property
    def num_done(self) -> int:
        """Returns how many of its methods have scores after the last step."""
        table = self.protocol.table(self.stage)
        rows = read_rows(table) if table.is_file() else []
        last, fold = str(self.protocol.num_steps), str(self.fold)
        done = {row["trainer"] for row in rows if (row["step"], row["fold"]) == (last, fold)}
        return sum(f"nnUNetTrainer{method}" in done for method in self.methods)


def runs(stage: str) -> Iterator[Run]:
    """Yields the runs of a stage, the most telling first: an interruption leaves a complete, smaller table."""
    if stage == "choice":
        for first in range(0, len(CHOICE), 2):
            for protocol in PROTOCOLS:
                yield Run(
                    protocol=protocol, stage=stage, fold=0, methods=CHOICE[first : first + 2], cases=("validation",)
                )


def table() -> str:
    """Returns the plan as a table in Markdown."""
    lines = ["| stage | data set | fold | methods | hours | done |", "|---|---|---|---|---|---|"]
    for stage in STAGES:
        for run in runs(stage):
            done = f"{run.num_done} of {len(run.methods)}"
            cells = [stage, run.protocol.schedule, str(run.fold), ", ".join(run.methods), f"{run.hours:.1f}", done]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="to run (default: all)")
    parser.add_argument("--datasets", nargs="+", help="IDs of the data sets to run (default: all)")
    parser.add_argument("--list", action="store_true", help="print the plan, and what of it is done")
    args = parser.parse_args()
    if args.list:
        print(table())
        return
    for run in (run for stage in args.stages for run in runs(stage)):
        if run.num_done < len(run.methods) and (args.datasets is None or run.protocol.dataset in args.datasets):
            subprocess.run(run.command, check=True)


if __name__ == "__main__":
    main()
