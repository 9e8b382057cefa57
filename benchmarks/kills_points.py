"""Kills a schedule between two changes of files, again and again: in forks of one process, so that no time goes into imports.

    python benchmarks/kills_points.py WORK -o kills_points.jsonl --kills 100

Beside ``kills.py``, which kills real processes after random times: here nothing depends on the machine's speed. nnU-Net's
commands are called inside of the fork, which ends with SIGKILL when it has made a number of changes below the folder (a file
opened for writing, renamed, linked or removed, a folder made or removed), drawn uniformly from 0 to an eighth of those of the
undisturbed schedule. The end is looked at as in ``kills.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "shutil.rmtree"}


def killed_before(change: int, function: Callable[[], object], folder: Path) -> bool:
    """Calls a function in a fork, which is killed when it has made so many changes below a folder and begins another one.

    Returns:
        Whether it was killed; otherwise it came to its end first.
    """
    return _in_a_fork(change, function, folder) is None


def num_changes(function: Callable[[], object], folder: Path) -> int:
    """Calls a function in a fork; returns how many changes it makes below a folder."""
    made: int = (_in_a_fork(None, function, folder) or (0, None))[0]
    return made


def returned(function: Callable[[], object]) -> Any:
    """Calls a function in a fork; returns what it returns, as JSON: torch's threads in this process would hang later forks."""
    return (_in_a_fork(None, function, Path("nowhere")) or (0, None))[1]


def _in_a_fork(most: int | None, function: Callable[[], object], folder: Path) -> tuple[int, Any] | None:
    """Returns how many changes a function made, and what it returned; None if it was killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _call_and_exit(most, function, folder, writing)
    os.close(writing)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with open(reading) as pipe:
        said = pipe.read()
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"it failed with status {status}, and was to be killed after {most} changes")
    return tuple(json.loads(said)) if status == 0 else None


def _call_and_exit(most: int | None, function: Callable[[], object], folder: Path, writing: int) -> None:
    """Calls a function, writes how many changes it made, and ends this process."""
    made, own, status = 0, os.getpid(), 1

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal made
        if os.getpid() == own and _changes(event, arguments, folder):
            if made == most:
                os.kill(own, signal.SIGKILL)
            made += 1

    try:
        sys.addaudithook(count)
        result = function()
        os.write(writing, json.dumps([made, result], default=str).encode())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _changes(event: str, arguments: tuple[Any, ...], folder: Path) -> bool:
    """Returns whether an event of Python's audit changes a file below a folder."""
    is_written = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if event not in _CHANGES and not is_written:
        return False
    return any(isinstance(a, (str, os.PathLike)) and str(a).startswith(str(folder)) for a in arguments[:2])


def call_inside() -> None:
    """Lets this process train and validate as nnU-Net's commands would, in one thread, with forked workers."""
    import torch
    from nnunetv2.run import run_training
    from nnunetv2.training.logging.nnunet_logger import LocalLogger

    from nnunet_cil.workflows.evaluate import evaluate
    from nnunet_cil.workflows.run import run

    def train(arguments: Sequence[str], _environment: object, log: Path, _num_epochs: int) -> None:
        log.parent.mkdir(exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{arguments}\n")
        sys.argv = ["nnUNetv2_train", *arguments]
        with contextlib.redirect_stdout(io.StringIO()):
            run_training.run_training_entry()

    fork = multiprocessing.get_context("fork")
    torch.set_num_threads(1)
    changed: list[tuple[Any, str, Any]] = [
        (multiprocessing, "get_context", lambda _method=None: fork),
        (torch, "set_num_threads", lambda _number: None),
        (LocalLogger, "plot_progress_png", lambda _self, _folder: None),
        (run, "train", train),
        (evaluate, "_write_pictures", lambda *_arguments: None),
    ]
    for module, name, function in changed:
        setattr(module, name, function)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK", help="folder for everything that is written")
    parser.add_argument("-o", dest="output", type=Path, default=Path("kills_points.jsonl"), help="results")
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the points (default: %(default)s)")
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the toy data set
    from kills_commands import Workplace, environment, schedule_faults, write_schedule
    from toy import DATASET, preprocess

    os.environ.update({**environment(args.work.resolve()), "nnUNet_n_proc_DA": "0"})
    call_inside()
    from nnunet_cil.workflows.evaluate.options import EvaluationOptions
    from nnunet_cil.workflows.experiment import Experiment
    from nnunet_cil.workflows.run.options import TrainingOptions
    from nnunet_cil.workflows.run.run import run

    workplace = Workplace(args.work)

    def make(folder: Path) -> None:
        shutil.copytree(workplace.raw(), folder, dirs_exist_ok=True)
        write_schedule(folder, [["liver", "spleen"], ["kidney"], ["cyst"]])
        os.environ.update({**environment(folder), "nnUNet_n_proc_DA": "0"})
        (folder / "preprocessed" / DATASET / "dataset_fingerprint.json").write_text("{}")
        preprocess(folder / "preprocessed" / DATASET, "nnUNetPlans")

    source = Path(returned(lambda: workplace.made("preprocessed", make)))

    def fresh(name: str) -> Path:
        folder = workplace.folder / "lives" / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        os.environ.update({**environment(folder), "nnUNet_n_proc_DA": "0"})
        return folder

    def called(folder: Path) -> None:
        experiment = Experiment(
            dataset=DATASET,
            configuration="3d_fullres",
            folds=(0, 1),
            schedule_name=folder / "toy.json",
            trainers=("nnUNetTrainerPGCD", "nnUNetTrainerMiB"),
        )
        run(experiment, TrainingOptions(device="cpu"), EvaluationOptions(device="cpu"))

    reference = fresh("undisturbed_points")
    total = num_changes(lambda: called(reference), reference)
    print(f"{total} changes undisturbed", flush=True)
    lives = [json.loads(line) for line in args.output.read_text().splitlines()] if args.output.is_file() else []
    while (done := sum(len(life["killed_after_changes"]) for life in lives)) < args.kills:
        seed = f"{args.seed} {len(lives)}"
        numbers, killed = random.Random(seed), []
        folder = fresh("points")
        while done + len(killed) < args.kills and killed_before(
            number := numbers.randrange(total // 8), lambda folder=folder: called(folder), folder
        ):
            killed.append(number)
            print(f"  killed after {number} changes", flush=True)
        if done + len(killed) == args.kills:
            num_changes(lambda folder=folder: called(folder), folder)
        faults = returned(lambda folder=folder: list(schedule_faults(folder, reference)))
        lives.append({"seed": seed, "changes": total, "killed_after_changes": killed, "faults": faults})
        with args.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(lives[-1]) + "\n")
        print(f"life {len(lives)}: {len(killed)} kills, faults: {faults}", flush=True)


if __name__ == "__main__":
    main()
