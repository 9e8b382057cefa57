"""A study: methods over a schedule's steps and over folds, on whole volumes, with nnU-Net's own commands.

    python benchmarks/study.py 900 openkbp_2-2-1_cpu --methods PGCD FineTune Joint --folds 0 1 2   # resumable
    python benchmarks/study.py 900 openkbp_2-2-1_cpu --methods PGCD --set pgcd_weight=30 --validation-only
    python benchmarks/study.py 900 openkbp_2-2-1_cpu --methods PGCD --results mine.csv   # beside the published results

SCHEDULE is one of benchmarks/schedules, a shipped one, or a file. All methods continue from one step 0 (PGCD's, which is
nnU-Net's own training). Networks and patches are small through the plans file (benchmarks/small_plans.py). What is finished is
skipped; an interrupted training goes on from its latest checkpoint. The scores go to a table (benchmarks/scores.py): Dice per
class and case on the fold's validation cases and on the test cases (imagesTs, labelsTs). benchmarks/study_tables.py prints it.
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
from pathlib import Path

from scores import Dice, mean_dice, read_rows, results_file, row_name, write_rows
from study_tables import schedule_file

from nnunet_cil.cli.arguments import key_values
from nnunet_cil.errors import CILError
from nnunet_cil.schedule import load_schedule

HERE = Path(__file__).resolve().parent
FIRST_TRAINER = "nnUNetTrainerPGCD"


class Study:
    """What the command line asks for."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Finds the schedule."""
        self.file = schedule_file(args.schedule)
        self.schedule = load_schedule(self.file)
        self.settings = key_values("--set", args.set)
        self.results = args.results or results_file(self.schedule.name)
        self.configuration, self.base, self.device = args.c, args.p, args.device
        self.step0 = args.step0
        self.dataset, self.validation_only, self.from_step = args.dataset, args.validation_only, args.from_step

    @property
    def variant(self) -> str:
        """Name of the schedule with the changed settings; results folders of nnU-Net are told apart by it."""
        start = [f"from{self.from_step}"] if self.from_step > 1 else []
        return "_".join([self.schedule.name, *(f"{k}-{v}" for k, v in self.settings.items()), *start])

    @property
    def setting(self) -> str:
        """What is changed, as the table names it."""
        start = [f"from_step={self.from_step}"] if self.from_step > 1 else []
        return ",".join([*(f"{k}={v}" for k, v in self.settings.items()), *start])

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
        method = trainer.removeprefix("nnUNetTrainer")
        model = {"method": method, "setting": self.setting} if step else {"method": "", "setting": ""}
        model |= {"step": str(step), "fold": str(fold)}
        identity = {"dataset": self.name, "trainer": trainer, "plans": self.plans(step)}
        rows = read_rows(self.results) if self.results.is_file() else []
        known = [row for row in rows if {k: row[k] for k in model} == model]
        if any({k: row[k] for k in identity} != identity for row in known):
            raise SystemExit(
                f"{self.results} holds another plan's or data set's {row_name(known[0])}; name another file."
            )
        cases = {row["cases"] for row in known}
        if "test" in cases or (cases and self.validation_only):
            return
        folder = self.folder(trainer, self.plans(step), fold)
        self.train(trainer, step, fold, folder)
        scores = {"validation": validation_scores(folder)}
        if not self.validation_only:
            predictions = folder / "test"
            call(
                *("nnUNetv2_predict", "-d", self.dataset, "-c", self.configuration, "-f", str(fold), "-tr", trainer),
                *("-p", self.plans(step), "-i", str(self.raw / "imagesTs"), "-o", str(predictions)),
                *("-device", self.device, "-npp", "1", "-nps", "1", "--continue_prediction"),
            )
            scores["test"] = test_scores(folder.parent, predictions, self.raw)
        found = [
            {
                **model,
                "cases": kind,
                "class": name,
                "case": case,
                "dice": "" if math.isnan(value) else repr(value),
                **identity,
            }
            for kind, dice in scores.items()
            for name, values in dice.items()
            for case, value in values.items()
        ]
        write_rows(self.results, [*(row for row in rows if row not in known), *found])
        print(
            row_name(found[0]), fold, {k: round(v, 3) for k, v in mean_dice(scores["validation"]).items()}, flush=True
        )

    def train(self, trainer: str, step: int, fold: int, folder: Path) -> None:
        """nnUNetv2_train, skipped when it is finished, continued when it was interrupted."""
        if (folder / "validation" / "summary.json").is_file():
            return
        going_on = ["--c"] if any(folder.glob("checkpoint_*.pth")) else []
        call(
            *("nnUNetv2_train", self.dataset, self.configuration, str(fold), "-tr", trainer),
            *("-p", self.plans(step), "-device", self.device, *going_on),
        )


def call(command: str, *arguments: str) -> None:
    """Runs a command of the environment that this Python is in."""
    print("+", command, *arguments, flush=True)
    if command == "nnunet_cil":
        subprocess.run([sys.executable, "-m", "nnunet_cil.cli", *arguments], check=True)
    else:
        subprocess.run([str(Path(sys.executable).parent / command), *arguments], check=True)


def validation_scores(folder: Path) -> Dice:
    """Dice of every class and case, from the summary that nnU-Net has written."""
    names = {str(v): k for k, v in json.loads((folder.parent / "dataset.json").read_text())["labels"].items()}
    cases = json.loads((folder / "validation" / "summary.json").read_text())["metric_per_case"]
    return {
        names[label]: {
            Path(case["prediction_file"]).name.split(".")[0]: case["metrics"][label]["Dice"] for case in cases
        }
        for label in cases[0]["metrics"]
        if label in names
    }


def test_scores(model: Path, predictions: Path, raw: Path) -> Dice:
    """Dice of every class, by name, for every test case; NaN when neither has the class."""
    import SimpleITK as sitk

    channels = json.loads((model / "dataset.json").read_text())["labels"]
    labels = json.loads((raw / "dataset.json").read_text())["labels"]
    dice: Dice = {name: {} for name in channels if name != "background"}
    for file in sorted((raw / "labelsTs").glob("*.nii.gz")):
        wanted, found = (sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in (file, predictions / file.name))
        for name, values in dice.items():
            a, b = wanted == labels[name], found == channels[name]
            total = int(a.sum() + b.sum())
            values[file.name.split(".")[0]] = 2 * int((a & b).sum()) / total if total else math.nan
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
        help="trainers without 'nnUNetTrainer', e.g. PGCD MiB",
    )
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="hyper-parameters to change")
    parser.add_argument("--from-step", type=int, default=1, metavar="K", help="the first step that is changed by --set")
    parser.add_argument("--validation-only", action="store_true", help="leave the test cases alone")
    parser.add_argument("--results", type=Path, help="file of the scores (default: benchmarks/results/SCHEDULE.csv.gz)")
    parser.add_argument("--step0", type=Path, help="folder of step 0's checkpoints (default: none are kept)")
    parser.add_argument("-p", default="nnUNetPlansSmall", help="base plans (default: %(default)s)")
    parser.add_argument("-c", default="3d_fullres", help="configuration (default: %(default)s)")
    parser.add_argument("-device", default="cpu")
    args = parser.parse_args()
    try:
        study = Study(args)
    except CILError as error:
        raise SystemExit(str(error)) from None
    study.run(args.methods, args.folds)


if __name__ == "__main__":
    main()
