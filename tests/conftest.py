"""Fixtures; the helpers behind them are in toy.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

os.environ.update(nnUNet_n_proc_DA="0", nnUNet_def_n_proc="1", nnUNet_compile="false")

import pytest
import torch
from toy import DATASET, LABELS, make_dataset, set_environment
from toy_commands import WRITE_PICTURES, fork_commands, leave_out_what_takes_seconds

from nnunet_cil.host.commands import python_path
from nnunet_cil.workflows.evaluate import evaluate


def pytest_collection_modifyitems(items):
    """Lets the files begin first that hold a slow test: the last one of them would leave the other processes idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _quick_nnunet():
    with pytest.MonkeyPatch.context() as patch:
        leave_out_what_takes_seconds(patch)
        yield


@pytest.fixture
def with_pictures(monkeypatch):
    """Lets ``evaluate`` draw, which takes seconds."""
    monkeypatch.setattr(evaluate, "_write_pictures", WRITE_PICTURES)


@pytest.fixture(scope="session")
def command_server(tmp_path_factory):
    """Starts command_server.py; returns a folder for the PATH, with nnunet_cil, nnU-Net's commands and python."""
    folder = tmp_path_factory.mktemp("bin")
    address = str(folder / "s")
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("command_server.py")), address, str(folder)],
        env={**os.environ, **python_path(), "OMP_NUM_THREADS": "1"},
    )
    try:
        while not Path(address).exists():
            assert server.poll() is None, "the command server has ended"
            time.sleep(0.1)
        yield folder
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def forked_commands(request, monkeypatch):
    fork_commands(monkeypatch, request)


@pytest.fixture(scope="session")
def _toy_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    make_dataset(root, LABELS)
    return root


@pytest.fixture
def toy(_toy_root, tmp_path, monkeypatch) -> Path:
    """Copies the preprocessed toy data set, and sets nnU-Net's environment to it; returns its folder."""
    shutil.copytree(_toy_root, tmp_path / "nnunet")
    set_environment(monkeypatch, tmp_path / "nnunet")
    return tmp_path / "nnunet" / "preprocessed" / DATASET


@pytest.fixture
def raw(tmp_path, monkeypatch) -> Path:
    """Makes an empty nnUNet_raw, and sets nnU-Net's environment to it."""
    for folder in ("raw", "preprocessed", "results"):
        (tmp_path / "nnunet" / folder).mkdir(parents=True)
    set_environment(monkeypatch, tmp_path / "nnunet")
    return tmp_path / "nnunet" / "raw"
