"""A study: methods over a schedule's steps and over folds, on whole volumes, with nnU-Net's own commands.

    python benchmarks/study.py 900 openkbp_2-2-1_cpu --methods PGCD FineTune Joint --folds 0 1 2   # resumable
    python benchmarks/study.py 900 openkbp_2-2-1_cpu --methods PGCD --set pgcd_weight=30 --validation-only
    python benchmarks/study.py 900 openkbp_2-2-1_cpu --table         # only the table, from the stored results
    python benchmarks/study.py 900 openkbp_2-2-1_cpu --table --against PGCD --results mine  # and each fold's difference to PGCD
    python benchmarks/study.py 900 openkbp_2-2-1_cpu --table --joint openkbp_joint_cpu      # with joint training in a last row
    python benchmarks/study.py 900 openkbp_2-2-1_cpu --figure docs/images/openkbp_2-2-1.svg
    python benchmarks/study.py 900 openkbp_2-2-1_cpu --methods PGCD --results mine       # beside the published results

SCHEDULE is one of benchmarks/schedules, a shipped one, or a file. All methods continue from one step 0 (PGCD's, which is
nnU-Net's own training). Networks and patches are small through the plans file (benchmarks/small_plans.py). What is finished is
skipped; an interrupted training goes on from its latest checkpoint. Each model leaves one small JSON file in
benchmarks/results/SCHEDULE (or the folder of --results): Dice per class and case on the fold's validation cases and on the
test cases (imagesTs, labelsTs).
With --step0 all methods start from the checkpoints in that folder (fold_0.pth, ...); of a fold that it lacks, step 0 is trained
and left there, so that methods can be added later, or elsewhere.
With --validation-only the test cases are not touched: for choosing hyper-parameters. A setting changed by --set gets a row of
its own and the same step 0; with --from-step K also the same models of the steps before K: one step is compared at a time.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cil.cli.arguments import key_values
from nnunet_cil.errors import CILError
from nnunet_cil.schedule import Schedule, load_schedule, shipped_schedules

HERE = Path(__file__).resolve().parent
FIRST_TRAINER = "nnUNetTrainerPGCD"


class Study:
    """What the command line asks for."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Finds the schedule."""
        self.file = schedule_file(args.schedule)
        self.schedule = load_schedule(self.file)
        self.settings = key_values("--set", args.set)
        self.results = args.results or HERE / "results" / self.schedule.name
        self.joint = args.joint and HERE / "results" / args.joint
        if self.joint and not any(self.joint.glob("step0_fold*.json")):
            raise CILError(f"{self.joint} has no results of joint training.")
        self.configuration, self.base, self.device = args.c, args.p, args.device
        self.step0 = args.step0
        self.shown = args.methods if args.table or args.figure else []
        self.dataset, self.validation_only, self.from_step = args.dataset, args.validation_only, args.from_step

    @property
    def variant(self) -> str:
        """Name of the schedule with the changed settings; results folders of nnU-Net are told apart by it."""
        start = [f"from{self.from_step}"] if self.from_step > 1 else []
        return "_".join([self.schedule.name, *(f"{k}-{v}" for k, v in self.settings.items()), *start])

    def row(self, method: str, step: int) -> str:
        """Name of a result."""
        start = [f"from_step={self.from_step}"] if self.from_step > 1 else []
        changed = ",".join([*(f"{k}={v}" for k, v in self.settings.items()), *start])
        return f"step{step}" if step == 0 else f"{method}{f'({changed})' if changed else ''}_step{step}"

    def plan(self) -> None:
        """nnunet_cil plan, on the schedule with the changed settings."""
        content = json.loads(self.file.read_text()) | {"name": self.variant}
        content["hyperparameters"] = {**content.get("hyperparameters", {}), **self.settings}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{self.variant}.json"
            file.write_text(json.dumps(content))
            call("nnunet_cil", "plan", self.dataset, str(file), "-p", self.base, "--step0-trainer", FIRST_TRAINER)

    def run(self, methods: list[str], folds: list[int]) -> None:
        """Everything, in order; what is done is skipped."""
        from nnunet_cil.host.folders import dataset_name, nnunet_folder

        self.name = dataset_name(self.dataset)
        self.raw, self.trained = nnunet_folder("nnUNet_raw") / self.name, nnunet_folder("nnUNet_results") / self.name
        self.results.mkdir(parents=True, exist_ok=True)
        self.plan()
        for fold in folds:
            if self.variant == self.schedule.name:
                self.first_model(fold)
            else:
                self.share(FIRST_TRAINER, 0, fold)
            for method in methods:
                for step in range(1, self.from_step):
                    self.share(f"nnUNetTrainer{method}", step, fold)
                for step in range(self.from_step, len(self.schedule.steps)):
                    self.model(f"nnUNetTrainer{method}", step, fold)

    def plans(self, step: int) -> str:
        """The step's plans."""
        return f"{self.base}_{self.variant}_step{step}"

    def folder(self, trainer: str, plans: str, fold: int) -> Path:
        """nnU-Net's results folder of a fold."""
        return self.trained / f"{trainer}__{plans}__{self.configuration}" / f"fold_{fold}"

    def share(self, trainer: str, step: int, fold: int) -> None:
        """A changed setting does not change the steps before: a link to the model that is there."""
        link = self.folder(trainer, self.plans(step), fold)
        original = self.folder(trainer, f"{self.base}_{self.schedule.name}_step{step}", fold)
        if not (original / "checkpoint_final.pth").is_file():
            raise SystemExit(f"{original} is not trained: run the study without --set first.")
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(original)

    def first_model(self, fold: int) -> None:
        """Step 0: taken from --step0, or trained and kept there, without what the optimizer remembers."""
        import torch

        from nnunet_cil.training.state import read_checkpoint

        kept = self.step0 and self.step0 / f"fold_{fold}.pth"
        own = self.folder(FIRST_TRAINER, self.plans(0), fold) / "checkpoint_final.pth"
        if kept and kept.is_file() and not own.is_file():
            own.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(kept, own)
        self.model(FIRST_TRAINER, 0, fold)
        if kept and not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            checkpoint = read_checkpoint(own)
            torch.save(checkpoint | {"optimizer_state": {**checkpoint["optimizer_state"], "state": {}}}, kept)
            shutil.copyfile(kept, own)  # the next steps remember the file's hash

    def model(self, trainer: str, step: int, fold: int) -> None:
        """Trains, predicts and scores one model; skips what is there."""
        row = self.row(trainer.removeprefix("nnUNetTrainer"), step)
        file = self.results / f"{row}_fold{fold}.json"
        known = json.loads(file.read_text()) if file.is_file() else {}
        identity = {"dataset": self.name, "trainer": trainer, "plans": self.plans(step), "fold": fold}
        if known and identity != {k: known.get(k) for k in identity}:
            raise SystemExit(f"{file} holds the result of another plan or data set; move it away first.")
        if "test" in known or (known and self.validation_only):
            return
        folder = self.folder(trainer, self.plans(step), fold)
        self.train(trainer, step, fold, folder)
        scores: dict[str, Any] = {"validation": validation_scores(folder)}
        if not self.validation_only:
            predictions = folder / "test"
            call(
                *("nnUNetv2_predict", "-d", self.dataset, "-c", self.configuration, "-f", str(fold), "-tr", trainer),
                *("-p", self.plans(step), "-i", str(self.raw / "imagesTs"), "-o", str(predictions)),
                *("-device", self.device, "-npp", "1", "-nps", "1", "--continue_prediction"),
            )
            scores["test"] = test_scores(folder.parent, predictions, self.raw)
        file.write_text(json.dumps(identity | {"step": step, "settings": self.settings} | scores, indent=1) + "\n")
        print(row, fold, {k: round(float(np.nanmean(v)), 3) for k, v in scores["validation"].items()}, flush=True)

    def train(self, trainer: str, step: int, fold: int, folder: Path) -> None:
        """nnUNetv2_train, skipped when it is finished, continued when it was interrupted."""
        if (folder / "validation" / "summary.json").is_file():
            return
        going_on = ["--c"] if any(folder.glob("checkpoint_*.pth")) else []
        call(
            *("nnUNetv2_train", self.dataset, self.configuration, str(fold), "-tr", trainer),
            *("-p", self.plans(step), "-device", self.device, *going_on),
        )

    def dice(self, cases: str) -> dict[str, dict[int, dict[str, list[float]]]]:
        """Row -> fold -> class -> Dice of every case; rows in the order of the steps."""
        rows = read_scores(self.results, cases).items()
        shown = [(row, folds) for row, folds in rows if self.shows(row.rsplit("_step", 1)[0])]
        return dict(sorted(shown, key=lambda item: (item[0][-1], item[0])))

    def shows(self, method: str) -> bool:
        """Whether a table has rows of it."""
        return not self.shown or method in (*self.shown, "step0")

    def scores(self, cases: str) -> dict[str, dict[int, dict[str, float]]]:
        """Row -> fold -> class -> mean Dice over the cases."""
        return {row: {fold: mean_dice(d) for fold, d in folds.items()} for row, folds in self.dice(cases).items()}

    def table(self, cases: str) -> str:
        """Markdown: mean Dice over the cases; then mean and (smallest to largest) over the folds."""
        classes = [c for s in self.schedule.steps for c in s.classes]
        lines = [f"| model | {' | '.join(classes)} | old | new | all | folds |", "|" + "---|" * (len(classes) + 5)]
        rows = [(row, folds, groups(self.schedule, int(row[-1]))) for row, folds in self.scores(cases).items()]
        if self.joint:
            folds = {fold: mean_dice(dice) for fold, dice in read_scores(self.joint, cases)["step0"].items()}
            rows.append(("joint", folds, {"old": [], "new": classes, "all": classes}))
        for row, folds, own in rows:
            learnt = [[c] if c in next(iter(folds.values())) else [] for c in classes]
            cells = [spread(group_means(folds, group).values()) if group else "" for group in [*learnt, *own.values()]]
            lines.append(f"| {row} | {' | '.join(cells)} | {len(folds)} |")
        return "\n".join(lines)

    def differences(self, cases: str, reference: str) -> str:
        """Markdown: a method's mean Dice less that of the reference, both from one step 0: fold by fold, in the folds of both.

        In brackets the p value of a paired test over the cases (``nnunet_cil.evaluation.significance``), uncorrected.
        """
        from nnunet_cil.evaluation.significance import paired_tests

        rows = self.dice(cases)
        lines = ["| model | old | new | all | folds |", "|---|---|---|---|---|"]
        for row, folds in rows.items():
            against = rows.get(f"{reference}_step{row[-1]}", {})
            common = sorted(folds.keys() & against.keys())
            if not common or row == f"{reference}_step{row[-1]}":
                continue
            learnt = groups(self.schedule, int(row[-1]))
            both = {name: case_rows({f: d[f] for f in common}, cases) for name, d in ((row, folds), ("", against))}
            tests = {test.group: test.p for test in paired_tests(both, learnt["old"], learnt["new"])}
            cells = []
            for name, group in learnt.items():
                values, others = (group_means({f: mean_dice(d[f]) for f in common}, group) for d in (folds, against))
                p = f"{tests[name]:.3f}" if tests[name] >= 0.001 else "< 0.001"
                cells.append(f"{', '.join(f'{values[f] - others[f]:+.3f}' for f in common)} ({p})")
            lines.append(f"| {row} | {' | '.join(cells)} | {', '.join(map(str, common))} |")
        return "\n".join(lines)

    def figure(self, file: Path, cases: str = "test") -> None:
        """Every fold a dot, their mean a bar, after the last step; the methods in the order of their mean over all classes."""
        import matplotlib.pyplot as plt

        last = len(self.schedule.steps) - 1
        rows = {row.rsplit("_step", 1)[0]: f for row, f in self.scores(cases).items() if row.endswith(f"_step{last}")}
        learnt = groups(self.schedule, last)
        found = {row: {g: list(group_means(folds, learnt[g]).values()) for g in learnt} for row, folds in rows.items()}
        order = sorted(found, key=lambda row: np.mean(found[row]["all"]))
        size = 10 + 0.09 * max(len(row) for row in order), 0.8 + 0.32 * len(order)  # inches; the names need their share
        figure, axes = plt.subplots(1, 3, figsize=size, sharey=True, layout="constrained")
        for axis, group in zip(axes, learnt, strict=True):
            for y, row in enumerate(order):
                values = found[row][group]
                colour = "tab:red" if row.split("(")[0] == "PGCD" else "tab:gray"
                axis.barh(y, np.mean(values), color=colour, alpha=0.35)
                axis.plot(values, [y] * len(values), "o", color=colour, markersize=5)
            axis.set(xlim=(0, 1), xlabel=f"Dice, {group} classes")
            axis.grid(axis="x", alpha=0.4)
        axes[0].set_yticks(range(len(order)), order)
        figure.savefig(file)


def schedule_file(name: str) -> Path:
    """Of a schedule in benchmarks/schedules, a shipped one, or the file itself."""
    own = HERE / "schedules" / f"{name}.json"
    return own if own.is_file() else shipped_schedules().get(name, Path(name))


def groups(schedule: Schedule, step: int) -> dict[str, list[str]]:
    """The classes that old, new and all stand for after a step."""
    steps = [list(s.classes) for s in schedule.steps]
    old = [c for names in steps[:step] for c in names]
    return {"old": old, "new": steps[step], "all": [*old, *steps[step]]}


def read_scores(folder: Path, cases: str) -> dict[str, dict[int, dict[str, list[float]]]]:
    """Row -> fold -> class -> Dice of every case, from a folder of results."""
    rows: dict[str, dict[int, dict[str, list[float]]]] = {}
    for file in sorted(folder.glob("*_fold*.json")):
        content = json.loads(file.read_text())
        if cases in content:
            rows.setdefault(file.stem.rsplit("_fold", 1)[0], {})[content["fold"]] = content[cases]
    return rows


def mean_dice(dice: dict[str, list[float]]) -> dict[str, float]:
    """Class -> mean over the cases."""
    return {name: float(np.nanmean(values)) for name, values in dice.items()}


def case_rows(folds: dict[int, dict[str, list[float]]], cases: str) -> list[dict[str, Any]]:
    """As the rows of ``per_case.csv``. All folds have the same test cases, and each fold has validation cases of its own."""
    return [
        {"case": str(i) if cases == "test" else f"{fold}/{i}", "class": name, "dice": value}
        for fold, dice in folds.items()
        for name, values in dice.items()
        for i, value in enumerate(values)
    ]


def group_means(folds: dict[int, dict[str, float]], group: list[str]) -> dict[int, float]:
    """Fold -> mean Dice over the classes of the group."""
    return {fold: float(np.mean([means[c] for c in group])) for fold, means in folds.items()}


def spread(means: Iterable[float]) -> str:
    """Mean, and smallest to largest."""
    values = list(means)
    text = f"{np.mean(values):.3f}"
    return f"{text} ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else text


def call(command: str, *arguments: str) -> None:
    """Runs a command of the environment that this Python is in."""
    print("+", command, *arguments, flush=True)
    if command == "nnunet_cil":
        subprocess.run([sys.executable, "-m", "nnunet_cil.cli", *arguments], check=True)
    else:
        subprocess.run([str(Path(sys.executable).parent / command), *arguments], check=True)


def validation_scores(folder: Path) -> dict[str, list[float]]:
    """Dice of every class and case, from the summary that nnU-Net has written."""
    names = {str(v): k for k, v in json.loads((folder.parent / "dataset.json").read_text())["labels"].items()}
    cases = json.loads((folder / "validation" / "summary.json").read_text())["metric_per_case"]
    return {
        names[label]: [case["metrics"][label]["Dice"] for case in cases]
        for label in cases[0]["metrics"]
        if label in names
    }


def test_scores(model: Path, predictions: Path, raw: Path) -> dict[str, list[float]]:
    """Dice of every class, by name, for every test case; NaN when neither has the class."""
    import SimpleITK as sitk

    channels = json.loads((model / "dataset.json").read_text())["labels"]
    labels = json.loads((raw / "dataset.json").read_text())["labels"]
    dice: dict[str, list[float]] = {name: [] for name in channels if name != "background"}
    for file in sorted((raw / "labelsTs").glob("*.nii.gz")):
        wanted, found = (sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in (file, predictions / file.name))
        for name, values in dice.items():
            a, b = wanted == labels[name], found == channels[name]
            total = int(a.sum() + b.sum())
            values.append(2 * int((a & b).sum()) / total if total else math.nan)
    return dice


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="ID of the preprocessed data set, e.g. 900")
    parser.add_argument("schedule", help="a name in benchmarks/schedules, a shipped name, or a file")
    parser.add_argument(
        "--methods",
        nargs="*",
        default=[],
        help="trainers without 'nnUNetTrainer', e.g. PGCD MiB; with --table or --figure the rows to show, e.g. "
        "'PGCD(pgcd_beta=0)' (default: all)",
    )
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="hyper-parameters to change")
    parser.add_argument("--from-step", type=int, default=1, metavar="K", help="the first step that is changed by --set")
    parser.add_argument("--validation-only", action="store_true", help="leave the test cases alone")
    parser.add_argument("--results", type=Path, help="folder of the scores (default: benchmarks/results/SCHEDULE)")
    parser.add_argument("--step0", type=Path, help="folder of step 0's checkpoints (default: none are kept)")
    parser.add_argument("-p", default="nnUNetPlansSmall", help="base plans (default: %(default)s)")
    parser.add_argument("-c", default="3d_fullres", help="configuration (default: %(default)s)")
    parser.add_argument("-device", default="cpu")
    parser.add_argument("--table", action="store_true", help="only print the tables")
    parser.add_argument(
        "--cases",
        choices=["validation", "test"],
        nargs="+",
        default=["validation", "test"],
        help="the tables to print (default: both)",
    )
    parser.add_argument("--joint", metavar="SCHEDULE", help="of joint training, one step, for a last row of the table")
    parser.add_argument(
        "--against",
        metavar="METHOD",
        help="print each fold's difference to this row, and a paired test over the cases, too",
    )
    parser.add_argument("--figure", type=Path, help="only draw the test cases' scores after the last step")
    args = parser.parse_args()
    try:
        study = Study(args)
    except CILError as error:
        raise SystemExit(str(error)) from None
    if args.figure:
        study.figure(args.figure)
        return
    if not args.table:
        study.run(args.methods, args.folds)
    rows = {row for cases in args.cases for row in read_scores(study.results, cases)}
    if not rows:
        raise SystemExit(f"{study.results} holds no scores.")
    methods = {row.rsplit("_step", 1)[0] for row in rows} - {"step0"}
    for asked in [*study.shown, *([args.against] if args.against else [])]:
        if asked not in methods:
            raise SystemExit(f"{study.results} has no {asked}, but {', '.join(sorted(methods)) or 'nothing'}.")
    for cases in args.cases:
        print(f"\nDice, {cases} cases\n\n{study.table(cases)}")
        if args.against:
            print(f"\nDice, {cases} cases, less that of {args.against}\n\n{study.differences(cases, args.against)}")


if __name__ == "__main__":
    main()
