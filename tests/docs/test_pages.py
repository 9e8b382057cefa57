"""The pages stay short, and their links lead somewhere."""

import re
from pathlib import Path

import pytest
from generated_pages import PAGES as GENERATED

ROOT = Path(__file__).parents[2]
MOST_WORDS = 14_400
BUDGETS = {
    "README.md": 635,
    "CONTRIBUTING.md": 400,
    "docs/index.md": 240,
    "docs/getting-started/install.md": 150,
    "docs/getting-started/first-steps.md": 685,
    "docs/how-to/teach-one-more-organ.md": 640,
    "docs/how-to/add-an-organ-to-totalsegmentator.md": 250,
    "docs/how-to/compare-two-models.md": 235,
    "docs/how-to/which-way.md": 235,
    "docs/how-to/run-a-study.md": 580,
    "docs/how-to/write-a-schedule.md": 340,
    "docs/how-to/several-data-sets.md": 350,
    "docs/how-to/bring-data.md": 430,
    "docs/how-to/cluster.md": 300,
    "docs/how-to/score-and-read.md": 370,
    "docs/how-to/deploy.md": 230,
    "docs/how-to/nnunet-tools.md": 215,
    "docs/how-to/choose-a-method.md": 265,
    "docs/how-to/add-a-method.md": 565,
    "docs/how-to/add-a-data-set.md": 210,
    "docs/how-to/when-something-fails.md": 425,
    "docs/reference/files.md": 785,
    "docs/reference/measures.md": 560,
    "docs/reference/images.md": 285,
    "docs/explanation/how-a-step-works.md": 580,
    "docs/explanation/pgcd.md": 955,
    "docs/explanation/regions.md": 290,
    "docs/explanation/methods.md": 1455,
    "docs/explanation/what-never-leaks.md": 315,
    "docs/explanation/what-it-costs.md": 390,
    "docs/explanation/what-is-trusted.md": 400,
    "docs/results.md": 700,
    "docs/glossary.md": 255,
}
"""Page -> the most words that it may have, code and tables included."""

PAGES = [
    p.relative_to(ROOT).as_posix() for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"))
]

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="needs a checkout")


def words(page):
    return len((ROOT / page).read_text(encoding="utf-8").split())


def outside_of_fences(page):
    """The lines of a page that are neither in a fence nor in a table, nor a comment."""
    in_fence = False
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            in_fence = not in_fence
        elif not in_fence and not line.startswith(("|", "<!--")):
            yield line


def sections(page):
    """The anchors of a page's headings, as GitHub and MkDocs name them."""
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_page_has_a_budget_and_every_budget_its_page():
    assert sorted(PAGES) == sorted(BUDGETS)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_keeps_to_its_budget(page):
    assert words(page) <= BUDGETS[page]


def test_all_pages_together_stay_short():
    assert sum(map(words, PAGES)) <= MOST_WORDS


def test_the_readme_is_read_in_a_minute():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100


@pytest.mark.parametrize("page", PAGES)
def test_no_line_is_long_outside_of_tables_and_fences(page):
    assert [line for line in outside_of_fences(page) if len(line) > 120] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link, section in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", "\n".join(outside_of_fences(page))):
        if link.startswith("http"):
            continue
        target = ((ROOT / page).parent / link).resolve() if link else ROOT / page
        inside = target.relative_to(ROOT).as_posix()
        if page.startswith("docs/") and inside.removeprefix("docs/") in GENERATED:
            continue  # the strict build of the site checks its sections
        assert target.exists(), link
        assert not section or section in sections(inside), f"{link}#{section}"
