"""Fixtures; the helpers behind them are in toy.py."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

os.environ.update(nnUNet_n_proc_DA="0", nnUNet_def_n_proc="1", nnUNet_compile="false")

import pytest
import torch
from toy import DATASET, LABELS, make_dataset, set_environment


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_progress_png(monkeypatch):
    """Switches off nnU-Net's progress.png, which takes a second an epoch."""
    from nnunetv2.training.logging.nnunet_logger import LocalLogger

    monkeypatch.setattr(LocalLogger, "plot_progress_png", lambda self, folder: None)


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
