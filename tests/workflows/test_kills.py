"""Commands that are killed between two changes of files, and called again: the same end, and nothing left over.

``benchmarks/kills.py`` and ``kills_points.py`` do this at length, with real trainings and processes.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest
from downloads import write_generic
from kills_checks import content_differences, differences
from kills_points import killed_before, num_changes
from toy import set_environment
from toy_models import run

from nnunet_cil.workflows.data.convert import convert

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")


def faults_of_a_life(source, function, monkeypatch, tmp_path):
    """Returns what is wrong after two kills and a call that comes to its end."""

    def fresh(name):
        folder = tmp_path / name
        shutil.copytree(source, folder)
        set_environment(monkeypatch, folder)
        return folder

    reference = fresh("reference")
    total = num_changes(function, reference)
    folder = fresh("life")
    assert killed_before(total // 2, function, folder)
    killed_before(total - 2, function, folder)
    num_changes(function, folder)
    faults = content_differences(folder, reference)
    return differences(folder, reference) + [f for f in faults if f.endswith((".gz", ".csv"))]


def test_an_archive_is_converted_the_same(tmp_path, monkeypatch):
    source = tmp_path / "source"
    for part in ("raw", "preprocessed", "results"):
        (source / part).mkdir(parents=True)
    names = write_generic(tmp_path / "mine") / "names.json"
    archive = Path(shutil.make_archive(str(tmp_path / "mine"), "zip", tmp_path / "mine"))
    monkeypatch.setenv("nnUNet_def_n_proc", "1")

    def function():
        convert("generic", archive, 5, options={"names": names})

    assert faults_of_a_life(source, function, monkeypatch, tmp_path) == []


def test_models_are_evaluated_the_same(trained, tmp_path, monkeypatch):
    root, schedule, _ = trained
    monkeypatch.setitem(os.environ, "nnUNet_def_n_proc", "1")
    assert faults_of_a_life(root, lambda: run(schedule), monkeypatch, tmp_path) == []
