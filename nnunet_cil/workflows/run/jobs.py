"""One process of ``nnunet_cil run --launcher``. Imports little, since each process imports it anew."""

from __future__ import annotations

import shlex
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.host.commands import CommandError, call, user_environment
from nnunet_cil.workflows.run.trainings import Training


@dataclass(frozen=True, kw_only=True)
class Job:
    """One process of the graph; submitit calls it there.

    Attributes:
        name: unique in the graph.
        command: as one would type it, for messages.
        function: does it. Pickled; called again where Slurm starts the job again, so it looks itself where to go on.
        log: takes the output.
        after: the names of the jobs of the graph that must have succeeded before.
    """

    name: str
    command: str
    function: Callable[[], None]
    log: Path
    after: tuple[str, ...] = ()

    def __call__(self) -> None:
        """Runs the job; whatever goes wrong is in the log."""
        try:
            self.function()
        except CommandError:
            raise
        except Exception:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as file:
                file.write(traceback.format_exc())
            raise

    def checkpoint(self) -> Any:
        """Returns what submitit queues where the job's time is up: the same again."""
        return import_submitit().helpers.DelayedSubmission(self)


def training_job(training: Training, logs: Path, *, after: tuple[str, ...] = ()) -> Job:
    """Returns the job that does a training."""
    name = training.model.name
    log = logs / f"{name}.txt"
    return Job(name=name, command=training.command, function=partial(train_model, training, log), log=log, after=after)


def own_command_job(name: str, command: Sequence[str], logs: Path, *, after: tuple[str, ...]) -> Job:
    """Returns the job that calls ``nnunet_cil``; the command begins with that word."""
    log = logs / f"{name}.txt"
    function = partial(call_own_command, list(command[1:]), log)
    return Job(name=name, command=shlex.join(command), function=function, log=log, after=after)


def train_model(training: Training, log: Path) -> None:
    """Calls ``nnUNetv2_train`` as the model's folder asks for when the job starts; does nothing if it is finished."""
    training.do(lambda: call("nnUNetv2_train", training.arguments, user_environment(), log))


def call_own_command(arguments: list[str], log: Path) -> None:
    """Calls ``nnunet_cil``."""
    call("nnunet_cil", arguments, user_environment(), log)


def import_submitit() -> ModuleType:
    """Imports submitit, which is optional.

    Raises:
        CILError: it is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise CILError("Install submitit: pip install submitit") from error
    return submitit
