"""Checks what Slurm says of a job, by stand-ins for squeue whose answers are those of a real one."""

import pytest

from nnunet_cil.errors import CILError
from nnunet_cil.slurm_queue import ask_slurm, job_is_over


@pytest.mark.parametrize(
    ("script", "is_over"),
    [
        ("echo RUNNING", False),
        ("echo COMPLETING", False),
        ("true", True),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1", None),
        (None, None),
    ],
)
def test_a_job_is_over_where_slurm_says_so_and_nowhere_else(tmp_path, monkeypatch, script, is_over):
    monkeypatch.setenv("PATH", str(tmp_path))
    if script is not None:
        (tmp_path / "squeue").write_text(f'#!/bin/sh\n[ "$2" = --jobs=7 ] || exit 3\n{script}\n')
        (tmp_path / "squeue").chmod(0o700)
    assert job_is_over("7") is is_over


def test_a_command_that_is_not_there_or_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CILError, match=r"^'scancel' cannot be run"):
        ask_slurm("scancel", "7")
    (tmp_path / "scancel").write_text("#!/bin/sh\necho No such job >&2\nexit 1\n")
    (tmp_path / "scancel").chmod(0o700)
    with pytest.raises(CILError, match=r"^'scancel 7' failed: No such job$"):
        ask_slurm("scancel", "7")
