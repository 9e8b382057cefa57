"""Runs methods over a schedule's steps and over folds, and keeps the Dice of every case in a table.

    export nnUNet_extTrainer="$(nnunet_cil trainers):$PWD/benchmarks/trainers"
    python benchmarks/study.py 900 openkbp_2-2-1_cpu --methods PGCD FineTune Joint --folds 0 1 2 -o mine.csv
    python benchmarks/study.py 900 openkbp_2-2-1_cpu --methods PGCD_noise0_weight10 --cases validation -o mine.csv
    python benchmarks/study_tables.py openkbp_2-2-1_cpu --results mine.csv

SCHEDULE is one of benchmarks/schedules, a shipped one, or a file. ``nnunet_cil run`` plans, trains, predicts and scores; what is
finished is skipped, and what was interrupted goes on. All methods continue from one step 0, also those that are added later with
the same nnUNet_results. Networks and patches are small through the plans file (benchmarks/small_plans.py).

A changed setting is a trainer of its own, here one of benchmarks/trainers: a class whose parent is the method. The table names it
by the hyper-parameters that it sets, PGCD(new_class_noise=0,pgcd_weight=10). If it has from_step = 2, step 1 is its parent's.
With --cases validation the test cases are not touched: for choosing hyper-parameters.
"""

from __future__ import annotations

import argparse
import csv
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scores import DISTANCE, Row, costs_file, read_rows, row_name, write_rows
from study_tables import CASES, schedule_file

from nnunet_cil.cli import main as nnunet_cil
from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json, write_json
from nnunet_cil.shipped import trainer_names
from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.catalogue import trainer_class
from nnunet_cil.training.hyperparameters import declared
from nnunet_cil.workflows.evaluate.evaluate import output_folder
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.planned_experiment import PlannedExperiment

_OF_ANOTHER_MODEL = "Give another table with -o, or the nnUNet_results that has the model."


@dataclass(frozen=True, kw_only=True)
class Method:
    """A trainer as the table names it.

    Attributes:
        name: the trainer of nnunet_cil's that it is, without nnUNetTrainer.
        setting: the hyper-parameters that it sets, as ``new_class_noise=0,pgcd_weight=10``.
        from_step: the first step with them.
        parent: the trainer of the steps before.
    """

    name: str
    setting: str
    from_step: int
    parent: str

    @property
    def row(self) -> str:
        """Returns its name in tables."""
        return f"{self.name}({self.setting})" if self.setting else self.name


def method_of_trainer(trainer: str) -> Method:
    """Reads from a trainer's class what it changes in which of nnunet_cil's trainers."""
    found = trainer_class(trainer)
    shipped = next((c for c in found.__mro__ if c.__name__ in trainer_names()), found)
    own = [c for c in found.__mro__ if issubclass(c, shipped) and c is not shipped]
    changed = {name: getattr(found, name) for c in reversed(own) for name in vars(c) if name in declared(found)}
    from_step = getattr(found, "from_step", 1)
    start = {"from_step": from_step} if from_step > 1 else {}
    return Method(
        name=shipped.__name__.removeprefix("nnUNetTrainer"),
        setting=",".join(f"{name}={text(value)}" for name, value in {**changed, **start}.items()),
        from_step=from_step,
        parent=next(c.__name__ for c in found.__mro__[1:] if issubclass(c, nnUNetTrainerCIL)),
    )


def text(value: float | str) -> str:
    """Returns the text of a hyper-parameter; whole numbers have no decimals."""
    return str(int(value)) if not isinstance(value, str) and float(value).is_integer() else str(value)


@dataclass(frozen=True, kw_only=True)
class Study:
    """An experiment whose scores go to a table.

    Attributes:
        experiment: trainers, folds and schedule.
        device: as nnU-Net's.
        results: the table.
    """

    experiment: Experiment
    device: str
    results: Path

    def run(self, cases: Sequence[Literal["test", "validation"]]) -> None:
        """Trains what is not trained, and adds the scores to the table."""
        self.check_initial_models()
        methods = {trainer: method_of_trainer(trainer) for trainer in self.experiment.trainers}
        for trainer, method in methods.items():
            if method.from_step > 1:
                self.nnunet_cil_run(method.parent, "--stop-after", str(method.from_step - 1))
                self.link_parent(trainer, method)
        for which in cases:
            self.nnunet_cil_run(*self.experiment.trainers, "--cases", which)
            folder = output_folder(self.experiment, EvaluationOptions(cases=which))
            self.add(self.rows(folder / "per_case.csv", which, methods))
            costs = read_json(folder / "results.json", "")["costs"]
            self.add_costs({methods[trainer].row: folds for trainer, folds in costs.items()})

    def check_initial_models(self) -> None:
        """Refuses a fold whose initial model the table has scores of, and which is gone: another would be trained.

        Raises:
            SystemExit: names the fold.
        """
        rows = read_rows(self.results) if self.results.is_file() else []
        scored = {row["fold"] for row in rows if row["step"] == "0"}
        folds = [fold for fold in self.experiment.folds if str(fold) in scored]
        try:
            initial = PlannedExperiment.read(self.experiment).models()[0] if folds else None
        except CILError:  # not planned
            initial = None
        for fold in folds:
            if initial is None or not initial.fold(fold).checkpoint.is_file():
                raise SystemExit(
                    f"{self.results} has scores of fold {fold}, whose initial model is not in nnUNet_results: methods would "
                    f"continue from another. {_OF_ANOTHER_MODEL}"
                )

    def nnunet_cil_run(self, *words: str) -> None:
        """Calls ``nnunet_cil run`` with trainers, then options."""
        e = self.experiment
        what = [e.dataset, e.configuration, *map(str, e.folds), str(e.schedule_name), "-p", e.base_plans]
        arguments = ["run", *what, "-device", self.device, "-tr", *words]
        print("+", shlex.join(["nnunet_cil", *arguments]), flush=True)
        if status := nnunet_cil(arguments):
            raise SystemExit(status)

    def link_parent(self, trainer: str, method: Method) -> None:
        """Makes the parent's models of the steps before ``from_step`` the trainer's, too."""
        planned = PlannedExperiment.read(self.experiment)
        models = planned.models_of(trainer), planned.models_of(method.parent)
        for own, earlier in list(zip(*models, strict=True))[1 : method.from_step]:
            if not own.folder.exists():
                own.folder.symlink_to(earlier.folder.name, target_is_directory=True)

    def rows(self, per_case: Path, cases: str, methods: dict[str, Method]) -> list[Row]:
        """Reads the scores of an evaluation as rows of the table. A step that is the parent's is in the parent's rows."""
        models = {(m.trainer, str(m.step)): m for m in PlannedExperiment.read(self.experiment).models()}
        found: list[Row] = []
        with per_case.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                trainer, step = line["trainer"], line["step"]
                method = methods[trainer] if step != "0" else None
                if method is not None and int(step) < method.from_step:
                    continue
                found.append(
                    {
                        "method": method.name if method else "",
                        "setting": method.setting if method else "",
                        "cases": cases,
                        "dataset": self.experiment.dataset_name,
                        "trainer": trainer,
                        "plans": models[trainer, step].plans_name,
                        "dice": "" if line["dice"] == "nan" else line["dice"],
                        DISTANCE: line[DISTANCE] if line["unit"] == "mm" and line[DISTANCE] != "nan" else "",
                        **{name: line[name] for name in ("step", "fold", "case", "class")},
                    }
                )
        return found

    def add_costs(self, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Adds each fold's costs, as in ``results.json``, to the file beside the table; a time that is missing stays as it was.

        Args:
            found: the method as the table names it -> the costs of each fold.
        """
        file = costs_file(self.results)
        known = read_json(file, "") if file.is_file() else {}
        for method, folds in found.items():
            of_method = known.setdefault(method, {})
            for costs in folds:
                before = of_method.get(str(costs["fold"]), {})
                of_method[str(costs["fold"])] = {**costs, **{k: v for k, v in before.items() if costs.get(k) is None}}
        write_json(file, known)

    def add(self, rows: Sequence[Row]) -> None:
        """Puts rows into the table, in place of those of the same models and cases."""
        keys = ("method", "setting", "step", "fold", "cases")
        known = read_rows(self.results) if self.results.is_file() else []
        new = {tuple(row[k] for k in keys): row for row in rows}
        for row in known:
            same = new.get(tuple(row[k] for k in keys), row)
            if any(row[k] != same[k] for k in ("dataset", "trainer", "plans")):
                raise SystemExit(f"{self.results} has {row_name(row)} of another plan or data set: give another file.")
        self._check_initial_models(known, rows)
        write_rows(self.results, [*(row for row in known if tuple(row[k] for k in keys) not in new), *rows])

    def _check_initial_models(self, known: Sequence[Row], rows: Sequence[Row]) -> None:
        """Refuses scores that come from other initial models than those of the table."""
        scored = {_initial(row): row["dice"] for row in known if row["step"] == "0"}
        for row in rows:
            now, before = row["dice"], scored.get(_initial(row), row["dice"])
            if row["step"] == "0" and not math.isclose(float(before or -1), float(now or -1), abs_tol=1e-6):
                raise SystemExit(
                    f"{self.results} has scores of another initial model: fold {row['fold']}, case {row['case']}, {row['class']} "
                    f"had {before}, now {now}. {_OF_ANOTHER_MODEL}"
                )


def _initial(row: Row) -> tuple[str, ...]:
    """Returns what a score of an initial model is of."""
    return tuple(row[name] for name in ("fold", "cases", "case", "class"))


def study_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser of what a study runs on, and of its table."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="ID of the data set, e.g. 900")
    parser.add_argument("schedule", help="a name in benchmarks/schedules, a shipped name, or a file")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cases", choices=CASES, nargs="+", default=CASES, help="to score (default: both)")
    parser.add_argument("-o", "--results", type=Path, required=True, help="table of the scores, .csv or .csv.gz")
    parser.add_argument("-p", default="nnUNetPlansSmall", help="base plans (default: %(default)s)")
    parser.add_argument("-c", default="3d_fullres", help="configuration (default: %(default)s)")
    parser.add_argument("-device", default="cpu", help="(default: %(default)s)")
    return parser


def study_of(args: argparse.Namespace, trainers: Sequence[str]) -> Study:
    """Returns the study of some trainers; the arguments are those of ``study_parser``."""
    experiment = Experiment(
        dataset=args.dataset,
        configuration=args.c,
        folds=tuple(args.folds),
        schedule_name=schedule_file(args.schedule),
        trainers=tuple(trainers),
        base_plans=args.p,
    )
    return Study(experiment=experiment, device=args.device, results=args.results)


def main() -> None:
    """Runs the command line."""
    parser = study_parser(__doc__)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["PGCD"],
        help="trainers without 'nnUNetTrainer', e.g. PGCD MiB_weight30 (default: PGCD, for joint training in one step)",
    )
    args = parser.parse_args()
    try:
        study_of(args, [f"nnUNetTrainer{name}" for name in args.methods]).run(args.cases)
    except CILError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
