"""benchmarks/slurm_check.sh, where a Slurm of one node is there to try things on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CHECK = ROOT / "benchmarks" / "slurm_check.sh"

pytestmark = pytest.mark.skipif(not CHECK.is_file() or os.name == "nt", reason="needs a checkout, and bash")


def run_check(*arguments, path=""):
    environment = {**os.environ, "PYTHON": sys.executable, "PATH": path or os.environ["PATH"]}
    return subprocess.run(
        [shutil.which("bash"), str(CHECK), *arguments], env=environment, capture_output=True, text=True
    )


def missing_slurm():
    """Returns why the check cannot be run here; empty where it can."""
    if shutil.which("slurmctld") is None or os.geteuid():
        return "needs a Slurm of one node on this machine, and root: none is installed here"
    listed = subprocess.run(["sinfo", "--noheader", "--Node"], capture_output=True, text=True)
    if listed.returncode or len(listed.stdout.splitlines()) != 1:
        return "needs a Slurm of one node on this machine: none is running"
    return ""


def test_without_slurm_the_check_says_how_to_get_one(tmp_path):
    result = run_check(str(tmp_path / "new"), path=str(tmp_path))
    assert result.returncode == 2
    assert result.stderr.startswith("slurm_check: 'sbatch' is not there. The head of ")
    assert "apt-get install slurm-wlm munge" in CHECK.read_text().split("set -eu")[0]
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_graphs_run_on_a_real_slurm_and_survive_what_happens_there(tmp_path):
    if reason := missing_slurm():
        pytest.skip(reason)
    result = run_check(str(tmp_path / "new"))
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    lines = result.stdout.splitlines()
    assert lines[-1] == "All OK"
    assert sum(line.startswith("OK ") for line in lines) >= 15
