"""The toy world of ``bad_input.py``, built once for every table of commands."""

import pytest
from bad_input import World


@pytest.fixture(scope="session")
def built_world(_toy_root, tmp_path_factory):
    """Builds the world; a test that changes it restores it."""
    world = World(tmp_path_factory.mktemp("commands") / "world")
    world.root.mkdir()
    world.build(_toy_root)
    return world
