"""The site builds without a warning, and loads nothing from the network."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Resources(HTMLParser):
    """Collects what a browser loads to show a page; a link to follow is none."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed", "object"):
            self.addresses += [given[key] for key in ("src", "srcset", "data") if given.get(key)]
        elif tag == "link" and given.get("rel") != "canonical":
            self.addresses.append(given["href"])
        self.addresses += re.findall(r"url\(([^)]*)\)", given.get("style") or "")


def outside(addresses):
    return [address for address in addresses if re.match(r"[\"']?\s*(https?:)?//", address)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site's folder."""
    pytest.importorskip("mkdocs", reason='needs pip install ".[docs]"')
    pytest.importorskip("material", reason='needs pip install ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_no_page_loads_anything_from_the_network(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        resources = Resources()
        resources.feed(page.read_text(encoding="utf-8"))
        assert resources.addresses, page
        assert outside(resources.addresses) == [], page


@pytest.mark.slow
def test_no_style_sheet_loads_anything_from_the_network(site):
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert outside(re.findall(r"url\(([^)]*)\)", text) + re.findall(r"@import\s+[\"']([^\"']*)", text)) == [], sheet


@pytest.mark.slow
def test_no_formula_is_left_as_latex(site):
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    assert any("<math" in text for text in pages.values())
    assert [page for page, text in pages.items() if re.search(r'class="arithmatex">\\', text)] == []


def test_what_is_loaded_is_told_from_what_is_linked():
    resources = Resources()
    resources.feed('<a href="https://a"></a><script src="https://b"></script><link rel="icon" href="c.svg">')
    assert outside(resources.addresses) == ["https://b"]
    resources.feed('<img src="//d"><p style="background: url(https://e)"><link rel="canonical" href="https://f">')
    assert outside(resources.addresses) == ["https://b", "//d", "https://e"]
