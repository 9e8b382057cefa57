"""The files that name the release agree."""

import re
from pathlib import Path

import pytest

from nnunet_cil import __version__

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not (ROOT / "CITATION.cff").is_file(), reason="needs a checkout")
def test_package_citation_and_changelog_agree_on_version_and_date():
    version, date = re.search(
        r"^## (\S+) \((.+)\)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M
    ).groups()
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    released = re.search(r'^date-released: "(.+)"$', citation, re.M)
    assert version == __version__ == re.search(r"^version: (\S+)$", citation, re.M)[1]
    assert date == (released[1] if released else "unreleased")
