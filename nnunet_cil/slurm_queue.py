"""Slurm's commands, and what they say of jobs."""

from __future__ import annotations

import os
import shlex
import subprocess

from nnunet_cil.errors import CILError
from nnunet_cil.owners import current_user


def ask_slurm(*command: str) -> str:
    """Returns what one of Slurm's commands prints, whatever the user's variables let squeue show.

    Raises:
        CILError: it cannot be run, or fails.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    except OSError as error:
        raise CILError(f"'{command[0]}' cannot be run ({error}).") from error
    except subprocess.CalledProcessError as error:
        raise CILError(f"'{shlex.join(command)}' failed: {error.stderr.strip()}") from error


def own_queue() -> dict[str, str]:
    """Returns the user's jobs that are not over: ID -> state, as PENDING or RUNNING.

    Raises:
        CILError: Slurm does not say.
    """
    # by number: the variables that name the user may name another one
    listed = ask_slurm("squeue", "--noheader", f"--user={current_user()}", "--format=%i %T")
    return {job_id: state for job_id, state in (line.split() for line in listed.splitlines() if line.strip())}


def job_is_over(job_id: str) -> bool | None:
    """Tells whether one of the user's jobs is over; None where Slurm does not say."""
    try:
        return not ask_slurm("squeue", "--noheader", f"--jobs={job_id}", "--format=%T").strip()
    except CILError as error:
        return True if "Invalid job id" in str(error) else None  # over for so long that Slurm has forgotten it
