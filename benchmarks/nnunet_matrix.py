"""Runs nnU-Net's own integration test in steps: four kinds of labels times four configurations, two steps, two folds.

    python benchmarks/nnunet_matrix.py WORK --source DATASET904_FOLDER --kinds labels ignore
    python benchmarks/nnunet_matrix.py WORK --source DATASET904_FOLDER --kinds regions --configurations 2d 3d_fullres
    python benchmarks/nnunet_matrix.py WORK --table

SOURCE is a raw data set of hippocampi (labels Anterior and Posterior); WORK takes nnU-Net's three folders. nnU-Net's four data
sets are laid out from it: labels, labels with a sparse annotation (ignore), regions, and both. Networks and trainings are small.
Step 0 learns the second class, so that the model's numbers are not the data set's.

For each kind: ``nnunet_cil run`` with every configuration in both folds; nnU-Net's validation again with probabilities; nnU-Net's
best configuration, ensembles and postprocessing by ``nnunet_cil nnunet``; predictions of new cases with nnU-Net's own command; an
ensemble of two of them, postprocessed. Checked are numbers, one row each in WORK/nnunet_matrix.csv:

- the Dice of nnU-Net's cross-validation is ours, to 1e-6,
- every class of the last step has a Dice of at least --least-dice, in the cross-validation, in new cases and in the ensemble.

What is finished is skipped: the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TRAINER = "nnUNetTrainerPGCD"
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
PLANS = "nnUNetPlansTiny"
FOLDS = (0, 1)
TOLERANCE = 1e-6

APART, VALIDATED = "nnU-Net's Dice less ours", "Dice"
PREDICTED, ENSEMBLE, POSTPROCESSED = "Dice of new cases", "Dice of the ensemble", "Dice, postprocessed"
"""Name what is checked, in the stored rows."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One of the kinds of labels.

    Attributes:
        dataset: nnU-Net's name of the data set.
        labels: of its dataset.json.
        steps: the classes of each step.
        regions_class_order: of its dataset.json; empty where the labels are no regions.
    """

    dataset: str
    labels: Mapping[str, Any]
    steps: tuple[tuple[str, ...], ...]
    regions_class_order: tuple[int, ...] = ()

    @property
    def classes(self) -> list[str]:
        """The foreground classes."""
        return [name for name in self.labels if name not in ("background", "ignore")]

    def mask(self, labels: npt.NDArray[Any], name: str) -> npt.NDArray[np.bool_]:
        """Returns where a label map shows a class."""
        return np.isin(labels, self.labels[name])


_PLAIN: dict[str, Any] = {"background": 0, "Anterior": 1, "Posterior": 2}
_REGIONS: dict[str, Any] = {"background": 0, "hippocampus": [1, 2], "anterior": 1}
_IGNORE = {"ignore": 3}
_STEPS = (("Posterior",), ("Anterior",))
_REGION_STEPS = (("hippocampus",), ("anterior",))

KINDS = {
    "labels": Kind(dataset="Dataset999_Matrix", labels=_PLAIN, steps=_STEPS),
    "ignore": Kind(dataset="Dataset998_Matrix_ignore", labels=_PLAIN | _IGNORE, steps=_STEPS),
    "regions": Kind(
        dataset="Dataset997_Matrix_regions", labels=_REGIONS, steps=_REGION_STEPS, regions_class_order=(2, 1)
    ),
    "regions_ignore": Kind(
        dataset="Dataset996_Matrix_regions_ignore",
        labels=_REGIONS | _IGNORE,
        steps=_REGION_STEPS,
        regions_class_order=(2, 1),
    ),
}

Call = Callable[[str, Sequence[str]], None]
"""Runs a command, by its name and arguments."""


def lay_out(source: Path, kind: Kind, work: Path, num_cases: int, num_tests: int) -> None:
    """Writes the raw data set of a kind, and test cases that are fully labelled, from some cases of the source."""
    import SimpleITK as sitk

    raw, tests = work / "raw" / kind.dataset, work / "tests"
    if (raw / "dataset.json").is_file():
        return
    names = sorted(file.name.removesuffix(".nii.gz") for file in (source / "labelsTr").glob("[!.]*.nii.gz"))
    for folder in (raw / "imagesTr", raw / "labelsTr", tests / "images", tests / "labels"):
        folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1234)
    for number, name in enumerate(names[: num_cases + num_tests]):
        is_test = number >= num_cases
        images, labels = (tests / "images", tests / "labels") if is_test else (raw / "imagesTr", raw / "labelsTr")
        shutil.copyfile(source / "imagesTr" / f"{name}_0000.nii.gz", images / f"{name}_0000.nii.gz")
        picture = sitk.ReadImage(str(source / "labelsTr" / f"{name}.nii.gz"))
        array = sitk.GetArrayFromImage(picture)
        if "ignore" in kind.labels and not is_test:
            array = sparse(array, int(kind.labels["ignore"]), random)
        written = sitk.GetImageFromArray(array.astype(np.uint8))
        written.CopyInformation(picture)
        sitk.WriteImage(written, str(labels / f"{name}.nii.gz"))
    content = {"channel_names": {"0": "MRI"}, "labels": kind.labels, "numTraining": num_cases, "file_ending": ".nii.gz"}
    if kind.regions_class_order:
        content["regions_class_order"] = list(kind.regions_class_order)
    (raw / "dataset.json").write_text(json.dumps(content))


def sparse(labels: npt.NDArray[Any], ignore: int, random: np.random.Generator) -> npt.NDArray[Any]:
    """Returns labels of every tenth slice or so along each axis, and ``ignore`` elsewhere, as nnU-Net's integration test."""
    found = np.full_like(labels, ignore)
    for axis, length in enumerate(labels.shape):
        box = [slice(None)] * labels.ndim
        for index in random.choice(length, max(1, round(0.1 * length)), replace=False):
            box[axis] = slice(index, index + 1)
            found[tuple(box)] = labels[tuple(box)]
    return found


def tiny_plans(base: Mapping[str, Any]) -> dict[str, Any]:
    """Copies nnU-Net's plans for tiny networks, with a low resolution and a cascade as nnU-Net's integration test adds them."""
    from nnunet_cil.host.plans_files import small_plans

    plans: dict[str, Any] = copy.deepcopy(dict(base))
    patches = {"2d": ([32, 32], 8), "3d_fullres": ([32, 32, 32], 2)}
    small = {
        name: small_plans(base, PLANS, name, features=[8, 16, 32], patch_size=patch, batch_size=batch)
        for name, (patch, batch) in patches.items()
    }
    configurations = {name: own["configurations"][name] for name, own in small.items()}
    configurations["3d_lowres"] = {
        **copy.deepcopy(configurations["3d_fullres"]),
        "data_identifier": f"{PLANS}_3d_lowres",
        "patch_size": [16, 16, 16],
        "median_image_size_in_voxels": [18.0, 25.0, 18.0],
        "spacing": [2.0, 2.0, 2.0],
        "next_stage": "3d_cascade_fullres",
    }
    configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    return {**plans, "plans_name": PLANS, "configurations": configurations}


def prepare(kind: Kind, call: Call) -> None:
    """Plans and preprocesses a data set, with two folds that validate every case."""
    number = kind.dataset[len("Dataset") :].partition("_")[0]
    folder = Path(os.environ["nnUNet_preprocessed"]) / kind.dataset
    if not (folder / f"{PLANS}.json").is_file():
        call("nnUNetv2_plan_and_preprocess", ["-d", number, "-c", "2d", "3d_fullres", "-np", "1"])
        plans = tiny_plans(json.loads((folder / "nnUNetPlans.json").read_text()))
        (folder / f"{PLANS}.json").write_text(json.dumps(plans))
        write_split(folder)
    if not (folder / f"{PLANS}_3d_lowres").is_dir():
        call("nnUNetv2_preprocess", ["-d", number, "-c", "3d_lowres", "-plans_name", PLANS, "-np", "1"])


def write_split(preprocessed: Path) -> None:
    """Writes two folds that share out the cases."""
    cases = sorted(f.name.removesuffix(".nii.gz") for f in (preprocessed / "gt_segmentations").glob("*.nii.gz"))
    folds = [{"train": cases[1 - k :: 2], "val": cases[k::2]} for k in FOLDS]
    (preprocessed / "splits_final.json").write_text(json.dumps(folds))


def write_schedule(kind: Kind, work: Path, training: Mapping[str, Any]) -> Path:
    """Writes the schedule of a kind."""
    file = work / f"{kind.dataset}.json"
    steps = [{"classes": list(classes)} for classes in kind.steps]
    content = {"name": "matrix", "steps": steps, "training": dict(training)}
    file.write_text(json.dumps(content))
    return file


@dataclass(kw_only=True)
class Matrix:
    """The cells of one kind.

    Attributes:
        kind: of labels.
        configurations: in nnU-Net's order; a cascade behind its low resolution.
        work: folder.
        call: runs a command.
        least_dice: that every class must have.
        rows: what was checked so far.
    """

    kind: Kind
    configurations: Sequence[str]
    work: Path
    call: Call
    least_dice: float
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def plans_name(self) -> str:
        """The plans of the last step."""
        return f"{PLANS}_matrix_step{len(self.kind.steps) - 1}"

    @property
    def results(self) -> Path:
        """nnU-Net's folder of the data set's models."""
        return self.work / "results" / self.kind.dataset

    def model(self, configuration: str) -> Path:
        """Returns the folder of the last step's model."""
        return self.results / f"{TRAINER}__{self.plans_name}__{configuration}"

    def add(self, configuration: str, what: str, name: str, value: float, *, is_right: bool) -> None:
        """Adds a row, and prints it."""
        row = {"kind": self.kind.dataset, "configuration": configuration, "what": what, "class": name}
        self.rows.append({**row, "value": value, "is_right": is_right})
        print(*row.values(), f"{value:.6g}", "ok" if is_right else "WRONG", flush=True)

    def run(self, schedule: Path, device: str) -> None:
        """Trains and scores every configuration; then nnU-Net's tools, predictions and ensembles."""
        folds = [str(fold) for fold in FOLDS]
        for configuration in self.configurations:
            what = [self.kind.dataset, configuration, *folds, str(schedule), "-tr", TRAINER, "-p", PLANS]
            self.call("nnunet_cil", ["run", *what, "-device", device])
        for configuration in self.configurations:
            for fold in folds:
                if not any((self.model(configuration) / f"fold_{fold}" / "validation").glob("*.npz")):
                    what = [self.kind.dataset, configuration, fold, "-tr", TRAINER, "-p", self.plans_name]
                    self.call("nnUNetv2_train", [*what, "-device", device, "--val", "--npz"])
        self.find_best(folds)
        self.check_cross_validation()
        self.check_new_cases(device)

    def find_best(self, folds: Sequence[str]) -> None:
        """Lets nnU-Net put the folds together, and find the best configuration, ensemble and postprocessing."""
        names = ["-c", *self.configurations, "-tr", TRAINER, "-p", self.plans_name, "-f", *folds, "-np", "1"]
        self.call("nnunet_cil", ["nnunet", "find_best_configuration", self.kind.dataset, *names])

    def check_cross_validation(self) -> None:
        """Compares the Dice of nnU-Net's cross-validation with ours."""
        folds = "_".join(map(str, FOLDS))
        for configuration in self.configurations:
            file = self.model(configuration) / f"crossval_results_folds_{folds}" / "summary.json"
            means, numbers = json.loads(file.read_text())["mean"], self.numbers(configuration)
            ours = mean_dice(self.results / "evaluation" / f"{PLANS}_matrix__{configuration}" / "per_case.csv", 1)
            for name in self.kind.classes:
                theirs = means[numbers[name]]["Dice"]
                apart = abs(theirs - ours[name])
                self.add(configuration, APART, name, apart, is_right=apart <= TOLERANCE)
                self.add(configuration, VALIDATED, name, theirs, is_right=theirs >= self.least_dice)

    def numbers(self, configuration: str) -> dict[str, str]:
        """Returns class -> its key in nnU-Net's summaries of the last step's model."""
        labels = json.loads((self.model(configuration) / "dataset.json").read_text())["labels"]
        return {name: str(tuple(own) if isinstance(own, list) else own) for name, own in labels.items()}

    def check_new_cases(self, device: str) -> None:
        """Predicts new cases with nnU-Net's own command, ensembles two configurations, and applies nnU-Net's postprocessing."""
        predicted = self.work / "predicted" / self.kind.dataset
        for configuration in self.configurations:
            self.predict(configuration, predicted / configuration, device)
            self.check_dice(configuration, predicted / configuration, PREDICTED)
        if len(self.configurations) < 2:
            return
        both = [str(predicted / configuration) for configuration in self.configurations[-2:]]
        self.call("nnunet_cil", ["nnunet", "ensemble", "-i", *both, "-o", str(predicted / "ensemble"), "-np", "1"])
        name = " and ".join(self.configurations[-2:])
        self.check_dice(name, predicted / "ensemble", ENSEMBLE)
        self.postprocess(predicted / "ensemble", predicted / "postprocessed")
        self.check_dice(name, predicted / "postprocessed", POSTPROCESSED)

    def predict(self, configuration: str, output: Path, device: str) -> None:
        """Predicts the test cases with both folds; a cascade sees the predictions of the low resolution."""
        images, folds = self.work / "tests" / "images", [str(fold) for fold in FOLDS]
        if len(list(output.glob("*.nii.gz"))) == len(list(images.glob("*.nii.gz"))):
            return
        what = ["-d", self.kind.dataset, "-c", configuration, "-tr", TRAINER, "-p", self.plans_name, "-f", *folds]
        where = ["-i", str(images), "-o", str(output), "-device", device, "-npp", "0", "-nps", "0"]
        if configuration == "3d_cascade_fullres":
            where += ["-prev_stage_predictions", str(output.with_name("3d_lowres"))]
        self.call("nnUNetv2_predict", [*what, *where, "--save_probabilities"])

    def postprocess(self, predictions: Path, output: Path) -> None:
        """Applies the postprocessing that nnU-Net found for its best configuration or ensemble."""
        from batchgenerators.utilities.file_and_folder_operations import load_pickle
        from nnunetv2.postprocessing.remove_connected_components import apply_postprocessing_to_folder

        best = json.loads((self.results / "inference_information.json").read_text())["best_model_or_ensemble"]
        functions, arguments = load_pickle(best["postprocessing_file"])
        files = {"plans_file_or_dict": best["some_plans_file"], "dataset_json_file_or_dict": None}
        apply_postprocessing_to_folder(str(predictions), str(output), functions, arguments, num_processes=1, **files)

    def check_dice(self, configuration: str, folder: Path, what: str) -> None:
        """Compares predictions with the references of the test cases, class by class."""
        labels = json.loads((self.model(self.configurations[0]) / "dataset.json").read_text())["labels"]
        for name in self.kind.classes:
            scores = [
                dice(np.isin(read(folder / file.name), labels[name]), self.kind.mask(read(file), name))
                for file in sorted((self.work / "tests" / "labels").glob("*.nii.gz"))
            ]
            value = float(np.mean(scores))
            self.add(configuration, what, name, value, is_right=value >= self.least_dice)


def read(file: Path) -> npt.NDArray[Any]:
    """Reads a label map."""
    import SimpleITK as sitk

    array: npt.NDArray[Any] = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    return array


def dice(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """Returns the Dice of two masks, 0 where both are empty."""
    return float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))


def mean_dice(per_case: Path, step: int) -> dict[str, float]:
    """Returns class -> the mean Dice over the cases of all folds, of a step's model."""
    found: dict[str, list[float]] = {}
    with per_case.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if int(row["step"]) == step:
                found.setdefault(row["class"], []).append(float(row["dice"]))
    return {name: float(np.nanmean(values)) for name, values in found.items()}


def table(file: Path) -> str:
    """Returns Markdown: a row a cell, with the mean Dice of each class in turn."""
    rows: dict[tuple[str, str], dict[str, list[float]]] = {}
    with file.open(newline="", encoding="utf-8") as stored:
        for row in csv.DictReader(stored):
            cell = rows.setdefault((row["kind"].partition("_")[2], row["configuration"]), {})
            cell.setdefault(row["what"], []).append(float(row["value"]))
    lines = [
        "| data set | configuration | cross-validation | less ours | new cases | postprocessed |",
        "|" + "---|" * 6,
    ]
    for names, cell in rows.items():
        apart = f"{max(cell[APART]):.1g}" if APART in cell else ""
        dice = [
            " / ".join(f"{value:.3f}" for value in cell.get(what, ()))
            for what in (VALIDATED, PREDICTED if PREDICTED in cell else ENSEMBLE, POSTPROCESSED)
        ]
        lines.append(f"| {' | '.join([*names, dice[0], apart, *dice[1:]])} |")
    return "\n".join(lines)


def call_in_another_process(work: Path) -> Call:
    """Returns what runs nnU-Net's and our commands, with their output in WORK/logs."""
    from nnunet_cil.host import commands

    def call(command: str, arguments: Sequence[str]) -> None:
        print("+", command, *arguments, flush=True)
        log = work / "logs" / f"{'_'.join([command, *arguments[:3]]).replace('/', '-')}.txt"
        planning = (
            {"nnUNet_n_proc_DA": "1"} if command == "nnUNetv2_plan_and_preprocess" else {}
        )  # nnU-Net fails with 0
        commands.call(command, list(arguments), commands.user_environment() | planning, log)

    return call


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit status is 1 where a number is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--source", type=Path, help="raw data set of hippocampi")
    parser.add_argument("--table", action="store_true", help="run nothing: print the table of what is stored")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--configurations", nargs="+", default=list(CONFIGURATIONS), choices=CONFIGURATIONS)
    parser.add_argument("--cases", type=int, default=20, help="training cases (default: %(default)s)")
    parser.add_argument("--tests", type=int, default=4, help="test cases (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="of a training (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=25, help="of an epoch (default: %(default)s)")
    parser.add_argument("--least-dice", type=float, default=0.3, help="of every class (default: %(default)s)")
    parser.add_argument("-device", default="cpu")
    args = parser.parse_args(arguments)
    work = args.work.resolve()
    if args.table:
        print(table(work / "nnunet_matrix.csv"))
        return 0
    if args.source is None:
        parser.error("--source is missing")
    for name in ("raw", "preprocessed", "results"):
        (work / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(work / name)
    training = {
        "num_epochs": args.epochs,
        "num_iterations_per_epoch": args.iterations,
        "num_val_iterations_per_epoch": 2,
        "optimizer": "AdamW",  # nnU-Net's own optimizer needs more iterations
        "initial_lr": 0.003,
        "mirror_axes": [],
    }
    rows: list[dict[str, Any]] = []
    for name in args.kinds:
        kind, call = KINDS[name], call_in_another_process(work)
        lay_out(args.source, kind, work, args.cases, args.tests)
        prepare(kind, call)
        matrix = Matrix(kind=kind, configurations=args.configurations, work=work, call=call, least_dice=args.least_dice)
        matrix.run(write_schedule(kind, work, training), args.device)
        rows += matrix.rows
    with (work / "nnunet_matrix.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    wrong = [row for row in rows if not row["is_right"]]
    print(f"{len(rows)} numbers, {len(wrong)} of them wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
