"""benchmarks/notebook: every study is in the index, says when and on what it ran, and its links lead somewhere."""

import json
import re
from pathlib import Path

import cached_teacher
import cost_report
import export_memory
import fill_tables
import prediction_cost
import pytest
import scale
import step_start
import teacher_doubts
import volume_options

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "benchmarks" / "notebook"
RESULTS = ROOT / "benchmarks" / "results"
STUDIES = sorted(NOTEBOOK.glob("20*.md"))
BELOW_THE_FLOOR = "2026-11-29-below-the-floor.md"
COST_OF_A_STEP = "2026-11-25-cost-of-a-step.md"


def sections(file: Path) -> set[str]:
    """Returns the anchors of a document's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_names_every_study_once_newest_first():
    listed = re.findall(r"^\| (\S+) \|.*\| \[(\S+)\]\(\2\) \|$", (NOTEBOOK / "README.md").read_text(), re.M)
    assert sorted(name for _, name in listed) == [file.name for file in STUDIES]
    assert listed == sorted(listed, key=lambda row: row[0], reverse=True)
    assert all(name.startswith(date) for date, name in listed)


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_a_study_says_what_it_asked_when_and_on_which_commit(file):
    text = file.read_text(encoding="utf-8")
    for entry in ("Question", "Answer", "Date", "Commit"):
        assert re.search(rf"^- \*\*{entry}\*\*: \S", text, re.M), f"{file.name} has no {entry}"
    assert "## Limits" in text


@pytest.mark.parametrize("file", [*NOTEBOOK.glob("*.md"), ROOT / "docs" / "results.md"], ids=lambda file: file.stem)
def test_links_into_the_notebook_lead_somewhere(file):
    text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link, section in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", text):
        target = (file.parent / link).resolve() if link else file
        if NOTEBOOK in target.parents or file.parent == NOTEBOOK:
            assert target.is_file(), f"{file.name}: {link}"
            assert not section or section in sections(target), f"{file.name}: {link}#{section}"


def test_every_image_of_the_notebook_is_shown():
    text = "".join(file.read_text(encoding="utf-8") for file in STUDIES)
    assert {file.name for file in (NOTEBOOK / "images").iterdir()} == set(re.findall(r"\(images/(\S+)\)", text))


@pytest.mark.parametrize(
    ("study", "marker", "tables"),
    [
        (COST_OF_A_STEP, "step_cost", cost_report.tables),
        (COST_OF_A_STEP, "step_cost_before", cost_report.tables),
        (BELOW_THE_FLOOR, "step_cost_intervals", cost_report.tables),
        (BELOW_THE_FLOOR, "volume_options", volume_options.show),
        (BELOW_THE_FLOOR, "step_start", step_start.show),
        ("2026-11-29-fair-comparison.md", "teacher_doubts", teacher_doubts.show),
        (BELOW_THE_FLOOR, "export_memory", export_memory.show),
        ("2026-11-29-many-classes-and-cases.md", "scale", scale.tables),
        ("2026-11-23-cached-teacher.md", "cached_teacher", cached_teacher.table),
        ("2026-11-23-prediction-start-up-planning.md", "prediction_cost", prediction_cost.tables),
    ],
)
def test_tables_are_those_of_the_stored_measurements(study, marker, tables):
    measured = json.loads((RESULTS / f"{marker}.json").read_text())
    text = (NOTEBOOK / study).read_text(encoding="utf-8")
    assert f"<!-- {marker}: begin -->\n{tables(measured)}\n<!-- {marker}: end -->" in text


def test_filling_covers_the_notebook_and_the_results_page():
    assert {*STUDIES, ROOT / "docs" / "results.md"} <= set(fill_tables.DOCUMENTS)


def test_the_results_page_stays_short_with_one_table_and_one_figure():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert len(fill_tables.TABLE.findall(text)) == len(fill_tables.FILLED.findall(text)) == 1
    assert text.count("![") == 1
