"""Extends a plain nnU-Net model of two organs by a third, from other patients in whom only that one is labelled.

    python benchmarks/extend_openkbp.py 900 --true-prototypes -device cpu                  # resumable
    python benchmarks/extend_openkbp.py 900 -c 2d --runs 3 -device cpu
    python benchmarks/extend_openkbp.py 900 --plans nnUNetResEncUNetMPlans --steps 48 --initial-lr 0.001 -device cpu
    python benchmarks/extend_openkbp.py 900 --set old_class_sampling=0 -device cpu         # rows of their own
    python benchmarks/extend_openkbp.py 900 --table

DATASET is OpenKBP with its five organs (benchmarks/notebook/README.md). Half of its training patients make Dataset901
(brainstem and spinal cord; not the parotids, which are twins for a trainer that mirrors), the other half Dataset902 (mandible).
With nnU-Net's commands and a small network: plain nnUNetTrainer on 901; then ``nnunet_cil extend`` and nnUNetTrainerPGCD on
902; a model of the mandible alone on 902, of the same length; all predicted on the test patients; the extended model exported,
and predicted where nnunet_cil cannot be imported. With --true-prototypes the extension once more, from a copy of the plain
model that carries prototypes of its own training data, which a foreign model lacks. Dice as JSON in benchmarks/results; what
was measured before is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

OLD, NEW = ("Brainstem", "SpinalCord"), ("Mandible",)
RESULTS = Path(__file__).resolve().parent / "results" / "extend_openkbp"
SCRIPTS = Path(sys.executable).parent


def call(*command: str, **environment: str) -> None:
    """Runs a command of this environment."""
    print("+", *command, flush=True)
    program = [sys.executable, "-m", "nnunet_cil.cli"] if command[0] == "nnunet_cil" else [str(SCRIPTS / command[0])]
    subprocess.run([*program, *command[1:]], check=True, env={**os.environ, **environment})


def half(source: Path, target: Path, cases: list[str], classes: tuple[str, ...], dataset_json: dict[str, Any]) -> None:
    """Writes a raw data set of some cases, with labels of some classes."""
    if (target / "dataset.json").is_file():
        return
    table = np.zeros(256, dtype=np.uint8)
    for number, name in enumerate(classes, start=1):
        table[dataset_json["labels"][name]] = number
    for part in ("imagesTr", "labelsTr"):
        (target / part).mkdir(parents=True, exist_ok=True)
    for case in cases:
        image = target / "imagesTr" / f"{case}_0000.nii.gz"
        if not image.exists():
            image.symlink_to(source.resolve() / "imagesTr" / image.name)
        picture = sitk.ReadImage(str(source / "labelsTr" / f"{case}.nii.gz"))
        labels = sitk.GetImageFromArray(table[sitk.GetArrayFromImage(picture)])
        labels.CopyInformation(picture)
        sitk.WriteImage(labels, str(target / "labelsTr" / f"{case}.nii.gz"))
    labels = {"background": 0, **{name: number for number, name in enumerate(classes, start=1)}}
    content = dataset_json | {"labels": labels, "numTraining": len(cases)}
    (target / "dataset.json").write_text(json.dumps(content, indent=1))


class Study:
    """The extension that the command line asks for, and where nnU-Net keeps it."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Finds the data set."""
        from nnunet_cil.host.folders import nnunet_folder, raw_dataset_folder

        self.args = args
        self.raw = raw_dataset_folder(args.dataset)
        self.preprocessed, self.results = nnunet_folder("nnUNet_preprocessed"), nnunet_folder("nnUNet_results")
        self.old, self.new = "Dataset901_KBPOld", "Dataset902_KBPMandible"
        self.plans = f"{args.plans}Small" + ("" if args.c == "3d_fullres" else args.c)
        self.name = f"{args.c}_{args.plans}"
        self.base_trainer = f"nnUNetTrainer_{args.epochs}epochs"
        self.training = [
            *(f"num_epochs={args.steps}", "num_iterations_per_epoch=50", "num_val_iterations_per_epoch=4"),
            *("save_every=4", f"initial_lr={args.initial_lr}", 'optimizer="AdamW"'),
        ]

    def run(self) -> None:
        """Does everything, in order; what is done is skipped."""
        self.refuse_other_lengths()
        dataset_json = json.loads((self.raw / "dataset.json").read_text())
        cases = sorted(f.name.removesuffix(".nii.gz") for f in (self.raw / "labelsTr").glob("*.nii.gz"))
        half(self.raw, self.raw.parent / self.old, cases[::2], OLD, dataset_json)
        half(self.raw, self.raw.parent / self.new, cases[1::2], NEW, dataset_json)
        self.plan_base()
        base = self.train(self.old, self.base_trainer, self.plans)
        changed = ["--hyperparameters", *self.args.set] if self.args.set else []
        what = f"extended ({','.join(self.args.set)})" if self.args.set else "extended"
        plans = self.plans + "".join(c for c in "".join(self.args.set) if c.isalnum())
        extended = self.extend(base, f"{plans}From901", *changed)
        self.keep("before", self.score(base, OLD))
        self.keep(what, self.score(extended, OLD + NEW))
        for run in range(2, self.args.runs + 1):
            again = self.extend(base, f"{plans}Run{run}From901", *changed)
            self.keep(f"{what}, run {run}", self.score(again, OLD + NEW))
        self.keep("alone", self.score(self.train(self.new, "nnUNetTrainerPGCD", self.plan_alone(plans)), NEW))
        if self.args.true_prototypes:
            known = self.with_true_prototypes(base)
            as_they_are = ("--hyperparameters", "prototype_refresh=0", *self.args.set)
            informed = self.extend(known, f"{plans}TrueFrom901", *as_they_are)
            self.keep(f"{what}, true prototypes", self.score(informed, OLD + NEW))
            self.keep("prototypes_cosine", cosines(known, extended), ())
        self.keep("exported_is_identical", self.exported_is_identical(extended), ())

    def refuse_other_lengths(self) -> None:
        """Keeps results of other --epochs or --steps apart."""
        file = RESULTS / f"{self.name}.json"
        known = json.loads(file.read_text()) if file.is_file() else {}
        if known and (known["base_trainer"], known["training"]) != (self.base_trainer, self.training):
            raise SystemExit(f"{file} was measured with other --epochs, --steps or --initial-lr; move it away first.")

    def keep(self, name: str, value: object, where: tuple[str, ...] = ("dice",)) -> None:
        """Writes a result into the configuration's file."""
        file = RESULTS / f"{self.name}.json"
        found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"dice": {}}
        found |= {"base_trainer": self.base_trainer, "training": self.training}
        part = found
        for key in where:
            part = part[key]
        part[name] = value
        RESULTS.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n")

    def plan_base(self) -> None:
        """Makes the plain model's plans and data: nnU-Net's own, and a copy with a small network."""
        from nnunet_cil.host.preprocess import PLANNERS

        folder, configuration = self.preprocessed / self.old, self.args.c
        plans = folder / f"{self.args.plans}.json"
        if not plans.is_file() or not self.data(plans).is_dir():
            what = ("-d", "901", "-c", configuration, "-pl", PLANNERS[self.args.plans])
            call("nnUNetv2_plan_and_preprocess", *what, "--verify_dataset_integrity")
        if not (folder / f"{self.plans}.json").is_file():
            small = [sys.executable, str(Path(__file__).with_name("small_plans.py")), "901", "-c", configuration]
            subprocess.run([*small, *self.size(), "-p", self.args.plans, "--name", self.plans], check=True)

    def size(self) -> list[str]:
        """Returns the options of small_plans.py, for networks that are slower than the 3D U-Net or faster."""
        if self.args.c == "2d":
            return ["--patch", "64", "64", "--batch", "12"]
        return ["--patch", "24", "40", "40"] if "ResEnc" in self.args.plans else []

    def data(self, plans: Path) -> Path:
        """Returns where the preprocessed cases of the configuration lie."""
        configuration = json.loads(plans.read_text())["configurations"][self.args.c]
        return plans.parent / str(configuration["data_identifier"])

    def extend(self, model: Path, plans: str, *more: str) -> Path:
        """``nnunet_cil extend`` onto the other half, and its training; the new model's folder."""
        step = f"{plans}_Mandible_step1"
        file = self.preprocessed / self.new / f"{step}.json"
        if file.is_file():
            planned = json.loads(file.read_text())["cil"]
            asked = (model.name.split("__")[0], self.args.steps, float(self.args.initial_lr))
            training = planned["training"]
            if (planned["previous"]["trainer"], training["num_epochs"], training["initial_lr"]) != asked:
                raise SystemExit(
                    f"{file} was planned with other --epochs, --steps or --initial-lr; delete it, and the models of it, first."
                )
        else:
            call("nnunet_cil", "extend", str(model), "902", "-p", plans, "--training", *self.training, *more)
        return self.train(self.new, "nnUNetTrainerPGCD", step)

    def plan_alone(self, extension: str) -> str:
        """Trains one step with the mandible alone, with the plans and the length of the extension."""
        folder, base = self.preprocessed / self.new, f"{self.plans}From901"
        if not (folder / f"{base}.json").is_file():
            plans = json.loads((folder / f"{extension}From901_Mandible_step1.json").read_text()) | {"plans_name": base}
            del plans["cil"]
            (folder / f"{base}.json").write_text(json.dumps(plans))
        return self.plan_step(self.new, base, "alone", NEW)

    def plan_step(self, dataset: str, plans: str, name: str, classes: tuple[str, ...]) -> str:
        """Plans a schedule of one step, and returns the name of its plans."""
        from nnunet_cil.cli.arguments import key_values

        schedule = self.preprocessed / dataset / f"{name}.schedule"
        training = key_values("", self.training)
        schedule.write_text(json.dumps({"name": name, "steps": [{"classes": classes}], "training": training}))
        call("nnunet_cil", "plan", dataset, str(schedule), "-p", plans)
        return f"{plans}_{name}_step0"

    def with_true_prototypes(self, base: Path) -> Path:
        """Copies the plain model as one of our trainers would have left it: with prototypes of its training data, by label."""
        import torch
        from nnunetv2.run.run_training import get_trainer_from_args

        from nnunet_cil.training.checkpoints import read_checkpoint

        plans = self.plan_step(self.old, self.plans, "known", OLD)
        model = self.results / self.old / f"nnUNetTrainerPGCD__{plans}__{self.args.c}"
        if not (model / "fold_0" / "checkpoint_final.pth").is_file():
            device = torch.device(self.args.device)
            trainer = get_trainer_from_args(self.old, self.args.c, 0, "nnUNetTrainerPGCD", plans, device=device)
            trainer.initialize()
            weights = read_checkpoint(base / "fold_0" / "checkpoint_final.pth")["network_weights"]
            trainer.bare_network.load_state_dict(weights)
            for name, content in (("plans", trainer.plans_manager.plans), ("dataset", trainer.dataset_json)):
                (model / f"{name}.json").write_text(json.dumps(content))
            trainer.current_epoch = trainer.num_epochs
            trainer.on_train_end()
        return model

    def train(self, dataset: str, trainer: str, plans: str) -> Path:
        """Calls nnUNetv2_train unless it is finished, with --c where it was interrupted; returns the model's folder."""
        model = self.results / dataset / f"{trainer}__{plans}__{self.args.c}"
        if not (model / "fold_0" / "checkpoint_final.pth").is_file():  # the final validation is not asked for
            going_on = ["--c"] if any((model / "fold_0").glob("checkpoint_*.pth")) else []
            what = (dataset, self.args.c, "0", "-tr", trainer, "-p", plans, "-device", self.args.device)
            call("nnUNetv2_train", *what, *going_on)
        return model

    def score(self, model: Path, classes: tuple[str, ...]) -> dict[str, list[float]]:
        """Returns the Dice of every class and test patient."""
        trainer, plans, configuration = model.name.split("__")
        output = model / "fold_0" / "test"
        call(
            *("nnUNetv2_predict", "-d", model.parent.name, "-c", configuration, "-f", "0", "-tr", trainer, "-p", plans),
            *("-i", str(self.raw / "imagesTs"), "-o", str(output), "-device", self.args.device, "--disable_tta"),
            *("-npp", "1", "-nps", "1", "--continue_prediction"),
        )
        truth = json.loads((self.raw / "dataset.json").read_text())["labels"]
        channels = json.loads((model / "dataset.json").read_text())["labels"]
        dice: dict[str, list[float]] = {name: [] for name in classes}
        for file in sorted((self.raw / "labelsTs").glob("*.nii.gz")):
            wanted, found = (sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in (file, output / file.name))
            for name, values in dice.items():
                a, b = wanted == truth[name], found == channels[name]
                values.append(2 * int((a & b).sum()) / int(a.sum() + b.sum()))
        return dice

    def exported_is_identical(self, model: Path) -> bool:
        """Tells whether the exported model predicts the same files where nnunet_cil is not installed, or cannot be imported."""
        target = self.results.parent / f"exported_{self.name}"
        exported = target / model.parent.name / model.name.replace("nnUNetTrainerPGCD", "nnUNetTrainer")
        if not exported.exists():
            call("nnunet_cil", "export", str(model), str(target))
        output = target / f"test_{model.name}"
        code = (
            "import sys; sys.modules['nnunet_cil'] = None; "
            "from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder as f; f()"
        )
        arguments = [
            *("-i", str(self.raw / "imagesTs"), "-o", str(output), "-m", str(exported), "-f", "0", "--disable_tta"),
            *("-device", self.args.device, "-npp", "1", "-nps", "1", "--continue_prediction"),
        ]
        plain = {k: v for k, v in os.environ.items() if k not in ("nnUNet_extTrainer", "PYTHONPATH")}
        print("+ nnUNetv2_predict_from_modelfolder", *arguments, flush=True)
        subprocess.run([self.args.plain_python, "-c", code, *arguments], check=True, env=plain)
        ours = sorted((model / "fold_0" / "test").glob("*.nii.gz"))
        return bool(ours) and all(f.read_bytes() == (output / f.name).read_bytes() for f in ours)


def cosines(known: Path, extended: Path) -> dict[str, float]:
    """Returns the centred cosine of each old class's true prototype with the one that the extension took from predictions."""
    import torch

    from nnunet_cil.training.checkpoints import read_checkpoint
    from nnunet_cil.training.state import StepState

    files = [model / "fold_0" / "checkpoint_final.pth" for model in (known, extended)]
    banks = [state.prototypes for f in files if (state := StepState.from_checkpoint(read_checkpoint(f))) is not None]
    true, own = (bank.prototypes[: 1 + len(OLD)] for bank in banks if bank is not None)
    alike = torch.cosine_similarity(true - true.mean(0), own - true.mean(0), dim=1)
    return dict(zip(OLD, alike[1:].tolist(), strict=True))


def table() -> str:
    """Returns Markdown: mean Dice over the test patients."""
    lines = [f"| model | {' | '.join(OLD + NEW)} | old |", "|" + "---|" * (len(OLD + NEW) + 2)]
    for file in sorted(RESULTS.glob("*.json")):
        for row, scores in sorted(json.loads(file.read_text())["dice"].items()):
            means = {name: float(np.mean(values)) for name, values in scores.items()}
            cells = [f"{means[name]:.3f}" if name in means else "" for name in OLD + NEW]
            old = f"{np.mean([means[name] for name in OLD]):.3f}" if OLD[0] in means else ""
            lines.append(f"| {file.stem}: {row} | {' | '.join(cells)} | {old} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="ID of OpenKBP with its five organs, e.g. 900")
    parser.add_argument("-c", default="3d_fullres", help="configuration (default: %(default)s)")
    parser.add_argument("--plans", default="nnUNetPlans", help="nnU-Net's plans (default: %(default)s)")
    parser.add_argument(
        "--epochs", type=int, default=20, choices=[5, 10, 20, 50], help="of the plain model (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=24, help="epochs (of 50 iterations) of the extension (default: %(default)s)"
    )
    parser.add_argument("--initial-lr", default="0.003", help="of the extension, with AdamW (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=1, help="trainings of the extension (default: %(default)s)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="hyper-parameters of the extension to change"
    )
    parser.add_argument("--true-prototypes", action="store_true", help="also extend from the model's true prototypes")
    parser.add_argument(
        "--plain-python", default=sys.executable, help="of an environment with nnunetv2 alone (default: this one)"
    )
    parser.add_argument("-device", default="cuda")
    parser.add_argument("--table", action="store_true", help="only print the table")
    args = parser.parse_args()
    if not args.table:
        Study(args).run()
    print(table())


if __name__ == "__main__":
    main()
