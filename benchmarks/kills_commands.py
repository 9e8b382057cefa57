"""The commands that ``kills.py`` kills: how a fresh folder is made, what is called there, and what must hold at the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import kills_checks as checks

ROOT = Path(__file__).resolve().parents[1]
PGCD, MIB = "nnUNetTrainerPGCD", "nnUNetTrainerMiB"
TRAINING = {"num_epochs": 2, "num_iterations_per_epoch": 2, "num_val_iterations_per_epoch": 1, "save_every": 1}
DATASET, NEW = "Dataset017_Toy", "Dataset018_New"

Phase = Callable[[Path], Sequence[str]]
"""Folder -> the command line to call there, as a user would after looking at what is there."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Commands that are called one after the other.

    Attributes:
        name: of the command.
        kills: how many by default.
        prepare: makes a fresh folder, which is not there yet.
        phases: are called one after the other.
        faults: yields what is wrong at the end; the second folder is the undisturbed one.
        share: the longest time to a kill, as a share of the undisturbed length.
    """

    name: str
    kills: int
    prepare: Callable[[Path], None]
    phases: tuple[Phase, ...]
    faults: Callable[[Path, Path], Iterator[str]]
    share: float = 1.0


def entry(module: str, function: str, *arguments: str) -> list[str]:
    """Returns a command line that calls a console script's function with this Python."""
    return [sys.executable, "-c", f"import sys; from {module} import {function} as f; sys.exit(f())", *arguments]


def nnunet_cil(*arguments: str) -> list[str]:
    """Returns the command line of ``nnunet_cil``."""
    return entry("nnunet_cil.cli", "entry", *arguments)


def environment(root: Path) -> dict[str, str]:
    """Returns the variables of commands in a folder: one worker of each kind in a process of its own."""
    folders = {f"nnUNet_{part}": str(root / part) for part in ("raw", "preprocessed", "results")}
    fixed = {
        "nnUNet_extTrainer": str(ROOT / "trainers"),
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
        "nnUNet_compile": "false",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    return {**os.environ, **folders, **fixed}


@contextmanager
def environment_of(root: Path) -> Iterator[None]:
    """Sets this process's environment to a folder's, as long as the context lasts."""
    before = dict(os.environ)
    os.environ.update(environment(root))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Workplace:
    """The folder that everything happens in, with templates that are made once."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder."""
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)

    def made(self, name: str, make: Callable[[Path], None]) -> Path:
        """Returns a template, made if it is not there yet."""
        folder = self.folder / "templates" / name
        if not folder.is_dir():
            print(f"Making the template {name}...", flush=True)
            aside = folder.with_name(f"{name}_unfinished")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            make(aside)
            aside.rename(folder)
        return folder

    def raw(self) -> Path:
        """Returns a toy data set with plans of a tiny network, not preprocessed."""
        return self.made("raw", _make_raw)

    def trained(self) -> Path:
        """Returns a schedule of two steps that is trained, with test cases, and a second data set."""

        def make(folder: Path) -> None:
            from toy import make_raw

            shutil.copytree(self.raw(), folder, dirs_exist_ok=True)
            write_schedule(folder, [["liver", "spleen"], ["kidney"]])
            with (self.folder / "templates.txt").open("ab") as log:
                subprocess.run(
                    run_command(folder, [0], [PGCD]), env=environment(folder), stdout=log, stderr=log, check=True
                )
            shutil.rmtree(folder / "results" / DATASET / "evaluation")
            for part in ("images", "labels"):
                shutil.copytree(folder / "raw" / DATASET / f"{part}Tr", folder / "raw" / DATASET / f"{part}Ts")
            for file in sorted((folder / "raw" / DATASET).glob("*Ts/*")):
                file.rename(file.with_name(file.name.replace("case_", "test_")))
            make_raw(folder, NEW, {"background": 0, "cyst": 1})

        return self.made("trained", make)

    def download(self) -> Path:
        """Returns an archive of images and labels, and folders for nnU-Net."""
        return self.made("download", _make_download)


def _make_raw(folder: Path) -> None:
    from toy import LABELS, make_dataset

    make_dataset(folder, LABELS)
    preprocessed = folder / "preprocessed" / DATASET
    for path in preprocessed.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    (preprocessed / "dataset_fingerprint.json").unlink()


def _make_download(folder: Path) -> None:
    from downloads import write_generic

    write_generic(folder / "download", cases=1200)
    shutil.copy(folder / "download" / "names.json", folder)
    shutil.make_archive(str(folder / "download"), "zip", folder, "download")
    shutil.rmtree(folder / "download")
    for part in ("raw", "preprocessed", "results"):
        (folder / part).mkdir()


def write_schedule(folder: Path, steps: list[list[str]]) -> None:
    """Writes ``toy.json``, of trainings that take seconds."""
    content = {"name": "toy", "steps": [{"classes": s} for s in steps], "training": {**TRAINING, "mirror_axes": [0]}}
    (folder / "toy.json").write_text(json.dumps(content))


def run_command(folder: Path, folds: Sequence[int], trainers: Sequence[str]) -> list[str]:
    """Returns the command line that trains and scores the schedule."""
    place = ["17", "3d_fullres", *map(str, folds), str(folder / "toy.json")]
    return nnunet_cil("run", *place, "-tr", *trainers, "-device", "cpu")


def scenarios(workplace: Workplace) -> list[Scenario]:
    """Returns all commands that are killed."""
    return [_schedule(workplace), _extend(workplace), _evaluate(workplace), _convert(workplace), _export(workplace)]


def _schedule(workplace: Workplace) -> Scenario:
    def prepare(folder: Path) -> None:
        shutil.copytree(workplace.raw(), folder)
        write_schedule(folder, [["liver", "spleen"], ["kidney"], ["cyst"]])

    def run(folder: Path) -> Sequence[str]:
        return run_command(folder, [0, 1], [PGCD, MIB])

    return Scenario(name="schedule", kills=100, prepare=prepare, phases=(run,), faults=schedule_faults, share=0.15)


def schedule_faults(folder: Path, reference: Path) -> Iterator[str]:
    """Yields what is wrong with a schedule that has come to its end."""
    results = folder / "results"
    yield from checks.differences(folder, reference)
    yield from checks.training_faults(results, int(TRAINING["num_epochs"]))
    with environment_of(folder):
        yield from checks.lineage_faults(results)
        yield from checks.prediction_faults(results, folder / "raw" / DATASET / "imagesTr")
        for evaluation in sorted((results / DATASET / "evaluation").iterdir()):
            yield from checks.score_faults(results, folder / "preprocessed" / DATASET, evaluation)


def _extend(workplace: Workplace) -> Scenario:
    def extend(folder: Path) -> Sequence[str]:
        options = ["--training", *(f"{key}={value}" for key, value in TRAINING.items())]
        return nnunet_cil("extend", str(_model(folder)), "18", *options)

    def train(folder: Path) -> Sequence[str]:
        (plans,) = (folder / "preprocessed" / NEW).glob("*_step2.json")
        fold = folder / "results" / NEW / f"{PGCD}__{plans.stem}__3d_fullres" / "fold_0"
        going_on = ["--c"] if any(fold.glob("checkpoint_*.pth")) else []
        arguments = ["18", "3d_fullres", "0", "-tr", PGCD, "-p", plans.stem, "-device", "cpu", *going_on]
        return entry("nnunetv2.run.run_training", "run_training_entry", *arguments)

    def faults(folder: Path, reference: Path) -> Iterator[str]:
        yield from checks.differences(folder, reference)
        results = folder / "results"
        yield from checks.training_faults(results, int(TRAINING["num_epochs"]))
        with environment_of(folder):
            yield from checks.lineage_faults(results)
            yield from checks.prediction_faults(results / NEW, folder / "raw" / NEW / "imagesTr")

    prepare = _copy_of(workplace.trained)
    return Scenario(name="extend", kills=20, prepare=prepare, phases=(extend, train), faults=faults)


def _evaluate(workplace: Workplace) -> Scenario:
    def evaluate(folder: Path) -> Sequence[str]:
        return nnunet_cil("evaluate", "17", "3d_fullres", "0", str(folder / "toy.json"), "-tr", PGCD, "-device", "cpu")

    def faults(folder: Path, reference: Path) -> Iterator[str]:
        yield from checks.differences(folder, reference)
        same = Path("results") / DATASET / "evaluation"
        for fault in checks.content_differences(folder / same, reference / same):
            if Path(fault).suffix in (".gz", ".csv"):  # the others name the folder
                yield fault

    return Scenario(name="evaluate", kills=20, prepare=_copy_of(workplace.trained), phases=(evaluate,), faults=faults)


def _convert(workplace: Workplace) -> Scenario:
    def convert(folder: Path) -> Sequence[str]:
        three = "import os; os.environ['nnUNet_def_n_proc'] = '3'; "  # processes for the cases
        arguments = ["convert", "generic", str(folder / "download.zip"), "5", "--names", str(folder / "names.json")]
        python, option, code, *others = nnunet_cil(*arguments)
        return [python, option, three + code, *others]

    return Scenario(
        name="convert", kills=20, prepare=_copy_of(workplace.download), phases=(convert,), faults=_other_files
    )


def _export(workplace: Workplace) -> Scenario:
    def export(folder: Path) -> Sequence[str]:
        return nnunet_cil("export", str(_model(folder)), str(folder / "out.zip"), "--zip")

    return Scenario(
        name="export --zip", kills=20, prepare=_copy_of(workplace.trained), phases=(export,), faults=_other_files
    )


def _model(folder: Path) -> Path:
    return next((folder / "results" / DATASET).glob(f"{PGCD}__*step1__3d_fullres"))


def _copy_of(template: Callable[[], Path]) -> Callable[[Path], None]:
    return lambda folder: shutil.copytree(template(), folder) and None


def _other_files(folder: Path, reference: Path) -> Iterator[str]:
    yield from checks.differences(folder, reference)
    yield from checks.content_differences(folder, reference)
