"""Running nnU-Net's commands as a user would, with their output in a log."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from nnunet_cil.errors import CILError
from nnunet_cil.host.processes import lines_of, started
from nnunet_cil.shipped import trainers_folder

_ENTRY_POINTS = {
    "nnUNetv2_extract_fingerprint": "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints:extract_fingerprint_entry",
    "nnUNetv2_plan_and_preprocess": "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints:plan_and_preprocess_entry",
    "nnUNetv2_preprocess": "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints:preprocess_entry",
    "nnUNetv2_train": "nnunetv2.run.run_training:run_training_entry",
    "nnUNetv2_predict": "nnunetv2.inference.predict_from_raw_data:predict_entry_point",
    "nnUNetv2_predict_from_modelfolder": "nnunetv2.inference.predict_from_raw_data:predict_entry_point_modelfolder",
    "nnUNetv2_find_best_configuration": "nnunetv2.evaluation.find_best_configuration:find_best_configuration_entry_point",
    "nnUNetv2_accumulate_crossval_results": (
        "nnunetv2.evaluation.find_best_configuration:accumulate_crossval_results_entry_point"
    ),
    "nnUNetv2_evaluate_folder": "nnunetv2.evaluation.evaluate_predictions:evaluate_folder_entry_point",
    "nnUNetv2_determine_postprocessing": (
        "nnunetv2.postprocessing.remove_connected_components:entry_point_determine_postprocessing_folder"
    ),
    "nnUNetv2_ensemble": "nnunetv2.ensembling.ensemble:entry_point_ensemble_folders",
    "nnunet_cil": "nnunet_cil.cli:entry",
}
"""Command -> the function that it calls, since the scripts may not be on the PATH."""


_SIGKILL = 9
"""Not in Windows' ``signal``."""

_END_WITH_PARENT = "from nnunet_cil.host.processes import end_with_parent; end_with_parent({parent}, politely=True)"


_NOT_FROM_HERE = "import sys; sys.path[:] = [folder for folder in sys.path if folder]"
"""Leaves the current folder out of where Python imports from, as scripts do: it may be a stranger's. For Python 3.10."""


class CommandError(CILError):
    """A command failed; the log that it names says why."""


def python_path() -> dict[str, str]:
    """Returns the variable with which started processes find a package that runs from a checkout without being installed.

    Never site-packages: on PYTHONPATH it would come before the standard library, and shadow it.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))}


def user_environment() -> dict[str, str]:
    """Returns the user's environment, in which nnU-Net finds our trainers beside theirs."""
    folders = [os.environ.get("nnUNet_extTrainer", ""), str(trainers_folder())]
    joined = os.pathsep.join(dict.fromkeys(f for f in folders if f))
    own = {"nnUNet_extTrainer": joined, "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
    return {**os.environ, **own, **python_path()}


def call(
    command: str,
    arguments: list[str],
    environment: Mapping[str, str],
    log: Path,
    watch: Callable[[str], None] = lambda _line: None,
) -> None:
    """Runs one of nnU-Net's commands with this Python, its output in ``log``.

    When this process is interrupted, so is the command: also where Ctrl-C does not reach it by itself. When this process is
    killed, the command ends, too (on Linux). When the command is killed, its own workers end.

    Raises:
        CommandError: it failed, or was killed; with the end of its log.
    """
    module, function = _ENTRY_POINTS[command].split(":")
    end_with_parent = _END_WITH_PARENT.format(parent=os.getpid())
    code = (
        f"{_NOT_FROM_HERE}; sys.argv[0] = {command!r}; {end_with_parent}; from {module} import {function}; {function}()"
    )
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shlex.join([command, *arguments])}\n")
    begin = log.stat().st_size
    with started([sys.executable, "-c", code, *arguments], environment, log) as process:
        for line in lines_of(process, log, begin):
            watch(line)
    if process.returncode:
        ending = f"'{shlex.join([command, *arguments])}' {_ending(process.returncode)}"
        error = CommandError(f"{ending} Its log is {log}; it ends:\n  {log_end(log)}")
        if process.returncode < 0:  # it could not say so itself
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{ending}\n")
        raise error


def _ending(status: int) -> str:
    """Returns how a command ended that did not succeed, in a sentence without its subject."""
    if status == -_SIGKILL:
        return (
            "was killed by the system, most likely since memory ran out. Give it more memory, or fewer processes "
            "(nnUNet_n_proc_DA, nnUNet_def_n_proc), and run the same again: it goes on where it was."
        )
    if status < 0:
        return f"was ended by the signal {signal.Signals(-status).name}. Run the same again: it goes on where it was."
    return f"failed with status {status}."


def log_end(log: Path) -> str:
    """Returns the last lines of a log, indented by two; says so where there is none."""
    if not log.is_file():
        return "(there is none)"
    with log.open(encoding="utf-8", errors="replace") as file:
        return "\n  ".join(line.rstrip() for line in deque(file, maxlen=8))


def epochs_in(log: str) -> list[int]:
    """Returns the numbers of the epochs that lines of nnU-Net's training log name, in order."""
    return [int(epoch) for epoch in re.findall(r": Epoch (\d+)\s*$", log, re.M)]


def train(
    arguments: list[str], environment: Mapping[str, str], log: Path, num_epochs: int, epochs_after: int = 0
) -> None:
    """Runs ``nnUNetv2_train`` with a bar over its epochs.

    Args:
        arguments: of the command.
        environment: of the command.
        log: takes the output.
        num_epochs: of the training.
        epochs_after: of the trainings that come after it: the bar tells the time that is left for all of them, too.

    Raises:
        CILError: it failed.
    """
    from tqdm import tqdm

    with tqdm(total=num_epochs, unit="epoch", leave=False) as bar:
        first: tuple[int, float] | None = None

        def watch(line: str) -> None:
            nonlocal first
            if epochs := epochs_in(line):
                now = epochs[-1], time.monotonic()
                first = first or now
                if epochs_after and now[0] > first[0]:
                    of_one = (now[1] - first[1]) / (now[0] - first[0])
                    left = tqdm.format_interval(of_one * (num_epochs - now[0] + epochs_after))
                    bar.set_postfix_str(f"about {left} left for all trainings", refresh=False)
                bar.update(epochs[-1] - bar.n)
            elif "Training done" in line:
                bar.update(num_epochs - bar.n)
                bar.set_description("predicting the validation cases")

        call("nnUNetv2_train", arguments, environment, log, watch)


def predict(arguments: list[str], environment: Mapping[str, str], log: Path, num_cases: int) -> None:
    """Runs ``nnUNetv2_predict``, or with ``-m`` the command that takes a model's folder, with a bar over the cases.

    Raises:
        CommandError: it failed.
    """
    from tqdm import tqdm

    with tqdm(total=num_cases, unit="case", desc="predicting", leave=False) as bar:

        def watch(line: str) -> None:
            bar.update(line.startswith("done with "))

        command = "nnUNetv2_predict_from_modelfolder" if "-m" in arguments else "nnUNetv2_predict"
        call(command, arguments, environment, log, watch)
