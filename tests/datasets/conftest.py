"""Where downloads lie."""

from pathlib import Path

import pytest
from downloads import write_generic


@pytest.fixture
def source(tmp_path) -> Path:
    """Returns the folder into which a test writes a download."""
    return tmp_path / "download"


@pytest.fixture
def mine(tmp_path) -> Path:
    """Returns a folder of images and labels for the converter ``generic``."""
    return write_generic(tmp_path / "mine")
