"""The toy world of ``bad_input.py``, built once for every table of commands."""

import multiprocessing
from multiprocessing.pool import ThreadPool

import pytest
from bad_input import World


@pytest.fixture(scope="session")
def built_world(_toy_root, tmp_path_factory):
    """Builds the world; a test that changes it restores it."""
    world = World(tmp_path_factory.mktemp("commands") / "world")
    world.root.mkdir()
    world.build(_toy_root)
    return world


@pytest.fixture
def threads(monkeypatch):
    """Lets nnU-Net list files and write predictions in threads: its processes take a second to start."""

    class Threads:
        Pool = ThreadPool

    context = multiprocessing.get_context
    monkeypatch.setattr(
        "multiprocessing.get_context", lambda method=None: Threads if method == "spawn" else context(method)
    )
    monkeypatch.setattr("nnunetv2.utilities.utils.Pool", ThreadPool)
