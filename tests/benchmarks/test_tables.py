"""benchmarks/fill_tables.py: the tables in docs are those of the stored results."""

import json
import sys
from pathlib import Path

import fill_tables
import paired
import pytest
import study

from nnunet_cil.schedule import load_schedule

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def fill(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fill_tables.py", *map(str, arguments)])
        fill_tables.main()

    return run


@pytest.mark.parametrize("name", ["reproduce.md", "experiments.md", "earlier-studies.md"])
def test_documents_are_up_to_date(fill, name):
    assert "<!-- benchmarks/study.py" in (DOCS / name).read_text()
    fill(DOCS / name, "--check")


def test_a_typed_number_is_told_and_made_anew(fill, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    for fold, dice in enumerate((0.5, 0.7)):
        scores = f'{{"fold": {fold}, "test": {{"Anterior": [{dice}, {dice}]}}}}'
        (results / f"step0_fold{fold}.json").write_text(scores)
    command = f"benchmarks/study.py 904 hippocampus_1-1_cpu --table --cases test --results '{results}'"
    document = tmp_path / "document.md"
    document.write_text(f"Before.\n\n<!-- {command} -->\n\n| model |\n|---|\n| step0 | 0.9 |\n\n| another | table |\n")

    with pytest.raises(SystemExit, match=r"document\.md is not what its command prints"):
        fill(document, "--check")
    assert "| step0 | 0.9 |" in document.read_text()

    fill(document)
    fill(document, "--check")
    written = document.read_text()
    assert "| step0 | 0.600 (0.500 to 0.700) |  |  | 0.600 (0.500 to 0.700) | 0.600 (0.500 to 0.700) | 2 |\n" in written
    assert written.startswith("Before.\n\n<!--")
    assert written.endswith("|\n\n| another | table |\n")


def test_a_table_of_some_methods(capsys, monkeypatch):
    arguments = (
        "study.py 900 openkbp_2-2-1_cpu --table --cases test --methods PseudoLabel PseudoLabel(teacher_volumes=0)"
    )
    monkeypatch.setattr(sys, "argv", arguments.split())
    study.main()
    rows = [line.split(" ")[1] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    shown = ("PseudoLabel(teacher_volumes=0)", "PseudoLabel")
    assert rows == ["step0", *(f"{row}_step{step}" for step in (1, 2) for row in shown)]


def test_joint_training_is_the_last_row(capsys, monkeypatch):
    arguments = "study.py 900 openkbp_2-2-1_cpu --table --cases test --joint openkbp_joint_cpu"
    monkeypatch.setattr(sys, "argv", arguments.split())
    study.main()
    last = capsys.readouterr().out.splitlines()[-1]
    cells = [cell.strip() for cell in last.split("|")]
    assert cells[1] == "joint"
    assert cells[7] == ""  # nothing is old
    assert cells[8] == cells[9] != ""


def test_differences_are_those_of_pairs_from_one_step_0(tmp_path, capsys, monkeypatch):
    """Two folders with fold 0, one of which has no fold 1 of the reference: two pairs, not three."""

    def write(folder, row, fold, anterior, posterior):
        (tmp_path / folder).mkdir(exist_ok=True)
        scores = {"fold": fold, "test": {"Anterior": anterior, "Posterior": posterior}}
        (tmp_path / folder / f"{row}_step1_fold{fold}.json").write_text(json.dumps(scores))

    write("a", "PGCD", 0, [0.8, 0.6], [0.5, 0.5])
    write("a", "MiB", 0, [0.6, 0.6], [0.6, 0.6])
    write("a", "MiB", 1, [0.1, 0.1], [0.1, 0.1])
    write("b", "PGCD", 0, [0.5, 0.5], [0.5, 0.5])
    write("b", "MiB", 0, [0.8, 0.8], [0.5, 0.7])
    write("b", "LwF", 0, [0.8, 0.8], [0.5, 0.7])
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    schedule = load_schedule(study.schedule_file("hippocampus_1-1_cpu"))
    monkeypatch.setattr(sys, "argv", ["paired.py", "hippocampus_1-1_cpu", "PGCD", *folders])
    paired.main()
    assert capsys.readouterr().out.splitlines()[2:] == [  # old -0.1 and 0.3, new 0.1 and 0.1, all 0.0 and 0.2
        "| MiB_step1 | +0.100 ± 0.283 (ahead in 1) | +0.100 ± 0.000 (ahead in 2) | +0.100 ± 0.141 (ahead in 1) | 2 |"
    ]
    monkeypatch.setattr(paired, "SHOWN", (-0.2, 0.2))
    drawn = paired.figure(paired.differences(schedule, "PGCD", list(map(Path, folders)), "test"), "PGCD")
    old, new, _ = drawn.axes
    assert [label.get_text() for label in old.get_yticklabels()] == ["MiB"]
    assert [(line.get_marker(), round(line.get_xdata()[0], 6)) for line in old.lines[:3]] == [
        ("o", -0.1),
        (">", 0.2),  # 0.3 lies beyond the edge
        ("None", 0.1),  # their mean, a line
    ]
    assert [round(line.get_xdata()[0], 6) for line in new.lines] == [0.1, 0.1, 0.1, 0]
    monkeypatch.setattr(sys, "argv", ["paired.py", "hippocampus_1-1_cpu", "PGDC", *folders])
    with pytest.raises(SystemExit, match="a has no results of PGDC"):
        paired.main()
