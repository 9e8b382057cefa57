"""benchmarks/fill_tables.py: the tables in the notebook and on the results page are those of the stored results."""

import csv
import json
import math
import sys
from pathlib import Path

import fill_tables
import paired
import pandas
import pytest
import scores
import study_tables

from nnunet_cil.schedule import load_schedule

HERE = Path(__file__).parent
FILLED = [file for file in fill_tables.DOCUMENTS if fill_tables.FILLED.search(file.read_text(encoding="utf-8"))]


def make_rows(method, step, fold, dice):
    """Rows of test cases: class -> Dice of each case."""
    model = {"method": method, "setting": "", "step": str(step), "fold": str(fold), "cases": "test"}
    return [
        {**model, "class": name, "case": str(i), "dice": repr(value)}
        for name, values in dice.items()
        for i, value in enumerate(values)
    ]


@pytest.fixture
def fill(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fill_tables.py", *map(str, arguments)])
        fill_tables.main()

    return run


def test_documents_with_tables_of_stored_results_are_found():
    """A comment that no longer stands above its table would leave the table unchecked."""
    assert len(FILLED) == 21
    for file in fill_tables.DOCUMENTS:
        text = file.read_text(encoding="utf-8")
        assert text.count("\n<!-- benchmarks/") == len(fill_tables.FILLED.findall(text)), file.name


@pytest.mark.parametrize("file", FILLED, ids=lambda file: file.stem)
def test_documents_are_up_to_date(fill, file):
    fill(file, "--check")


def test_a_typed_number_is_told_and_made_anew(fill, tmp_path):
    results = tmp_path / "my results.csv"
    rows = [row for fold, dice in enumerate((0.5, 0.7)) for row in make_rows("", 0, fold, {"Anterior": [dice, dice]})]
    scores.write_rows(results, rows)
    command = f"benchmarks/study_tables.py hippocampus_1-1_cpu --cases test --results '{results}'"
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
    arguments = "study_tables.py openkbp_2-2-1_cpu --cases test --methods PseudoLabel PseudoLabel(teacher_volumes=0)"
    monkeypatch.setattr(sys, "argv", arguments.split())
    study_tables.main()
    rows = [line.split(" ")[1] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    shown = ("PseudoLabel(teacher_volumes=0)", "PseudoLabel")
    assert rows == ["step0", *(f"{row}_step{step}" for step in (1, 2) for row in shown)]


def test_joint_training_is_the_last_row(capsys, monkeypatch):
    arguments = "study_tables.py openkbp_2-2-1_cpu --cases test --joint openkbp_joint_cpu"
    monkeypatch.setattr(sys, "argv", arguments.split())
    study_tables.main()
    last = capsys.readouterr().out.splitlines()[-1]
    cells = [cell.strip() for cell in last.split("|")]
    assert cells[1] == "joint"
    assert cells[7] == ""  # nothing is old
    assert cells[8] == cells[9] != ""


def test_differences_are_those_of_pairs_from_one_step_0(tmp_path, capsys, monkeypatch):
    """Two tables with fold 0, one of which has no fold 1 of the reference: two pairs, not three."""

    def rows(method, fold, anterior, posterior):
        return make_rows(method, 1, fold, {"Anterior": anterior, "Posterior": posterior})

    files = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv.gz")]
    scores.write_rows(
        Path(files[0]),
        [
            *rows("PGCD", 0, [0.8, 0.6], [0.5, 0.5]),
            *rows("MiB", 0, [0.6, 0.6], [0.6, 0.6]),
            *rows("MiB", 1, [0.1, 0.1], [0.1, 0.1]),
        ],
    )
    scores.write_rows(
        Path(files[1]),
        [
            *rows("PGCD", 0, [0.5, 0.5], [0.5, 0.5]),
            *rows("MiB", 0, [0.8, 0.8], [0.5, 0.7]),
            *rows("LwF", 0, [0.8, 0.8], [0.5, 0.7]),
        ],
    )
    schedule = load_schedule(study_tables.schedule_file("hippocampus_1-1_cpu"))
    monkeypatch.setattr(sys, "argv", ["paired.py", "hippocampus_1-1_cpu", "PGCD", *files])
    paired.main()
    assert capsys.readouterr().out.splitlines()[2:] == [  # old -0.1 and 0.3, new 0.1 and 0.1, all 0.0 and 0.2
        "| MiB_step1 | +0.100 ± 0.283 (ahead in 1) | +0.100 ± 0.000 (ahead in 2) | +0.100 ± 0.141 (ahead in 1) | 2 |"
    ]
    monkeypatch.setattr(paired, "SHOWN", (-0.2, 0.2))
    drawn = paired.figure(paired.differences(schedule, "PGCD", list(map(Path, files)), "test"), "PGCD")
    old, new, _ = drawn.axes
    assert [label.get_text() for label in old.get_yticklabels()] == ["MiB"]
    assert [(line.get_marker(), round(line.get_xdata()[0], 6)) for line in old.lines[:3]] == [
        ("o", -0.1),
        (">", 0.2),  # 0.3 lies beyond the edge
        ("None", 0.1),  # their mean, a line
    ]
    assert [round(line.get_xdata()[0], 6) for line in new.lines] == [0.1, 0.1, 0.1, 0]
    monkeypatch.setattr(sys, "argv", ["paired.py", "hippocampus_1-1_cpu", "PGDC", *files])
    with pytest.raises(SystemExit, match=r"a\.csv has no results of PGDC"):
        paired.main()


def test_every_mean_is_what_it_was_when_each_model_had_a_file_of_its_own():
    """means_before.csv holds the means of the JSON files that the tables were made from."""
    with (HERE / "means_before.csv").open(newline="") as file:
        before = list(csv.DictReader(file))
    found = {}
    for study in sorted({row["study"] for row in before}):
        for cases in ("validation", "test"):
            for model, folds in scores.read_scores(scores.results_file(study), cases).items():
                for fold, dice in folds.items():
                    for name, mean in scores.mean_dice(dice).items():
                        found[study, cases, model, fold, name] = mean, len(dice[name])
    assert len(found) == len(before)
    for row in before:
        mean, number = found[row["study"], row["cases"], scores.row_name(row), int(row["fold"]), row["class"]]
        assert number == int(row["num_cases"])
        assert mean == pytest.approx(float(row["mean"]), rel=0, abs=1e-12, nan_ok=True)


def test_a_table_comes_back_as_it_was_written(tmp_path):
    rows = make_rows("MiB", 1, 0, {"Anterior": [1 / 3, 0.1]})
    rows += [{**rows[0], "case": "another", "dice": ""}]
    for file in (tmp_path / "a.csv", tmp_path / "a.csv.gz"):
        scores.write_rows(file, rows)
        first = file.read_bytes()
        (fold,) = scores.read_scores(file, "test")["MiB_step1"].values()
        assert fold["Anterior"] == pytest.approx({"0": 1 / 3, "1": 0.1, "another": math.nan}, rel=0, abs=0, nan_ok=True)
        scores.write_rows(file, reversed(scores.read_rows(file)))
        assert file.read_bytes() == first


def test_pandas_opens_a_published_table():
    table = pandas.read_csv(scores.results_file("hippocampus_1-1_cpu"))
    assert tuple(table.columns) == scores.COLUMNS
    keys = ["method", "setting", "step", "fold", "cases", "case", "class"]
    assert not table.duplicated(keys).any()
    assert table["dice"].between(0, 1).all()


TWELVE = [f"organ {i:02}" for i in range(1, 13)]


@pytest.fixture
def twelve_steps(tmp_path):
    """A schedule of 12 steps, and the scores of two methods: c cases of class c, and MiB lies 0.01 times the step behind."""
    steps = [{"classes": [name]} for name in TWELVE]
    schedule = tmp_path / "twelve.json"
    schedule.write_text(json.dumps({"name": "twelve", "citation": "a test", "steps": steps}))
    rows = []
    for fold in (0, 1):
        for step in range(12):
            for method, less in (("PGCD", 0.0), ("MiB2", 0.01 * step)) if step else (("", 0.0),):
                values = {name: [0.9 - less, 0.8 - less] for name in TWELVE[: step + 1]}
                rows += make_rows(method, step, fold, values)
    scores.write_rows(tmp_path / "twelve.csv", rows)
    return schedule, tmp_path / "twelve.csv"


@pytest.mark.parametrize(
    ("model", "step"), [("step0", 0), ("MiB_step1", 1), ("MiB2_step11", 11), ("A(from_step=2)_step10", 10)]
)
def test_the_step_of_a_model_is_the_whole_number_at_the_end_of_its_name(model, step):
    assert scores.step_of(model) == step


def test_a_table_of_twelve_steps_is_in_their_order_and_knows_old_from_new(twelve_steps, capsys, monkeypatch):
    schedule, file = twelve_steps
    command = ["study_tables.py", str(schedule), "--results", str(file), "--cases", "test", "--against", "PGCD"]
    monkeypatch.setattr(sys, "argv", command)
    study_tables.main()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    names = [row[0] for row in rows if len(row) == 17][2:]
    assert names == ["step0", *(f"{method}_step{step}" for step in range(1, 12) for method in ("MiB2", "PGCD"))]
    last = next(row for row in rows if row[:1] == ["MiB2_step11"])
    assert last[-4:-1] == ["0.740 (0.740 to 0.740)"] * 3
    assert [row[0] for row in rows if len(row) == 5][2:] == [f"MiB2_step{step}" for step in range(1, 12)]
    (tenth,) = (row for row in rows if len(row) == 5 and row[0] == "MiB2_step10")
    assert tenth[1].startswith("-0.100, -0.100 [")


def test_pairs_of_twelve_steps_are_of_the_same_step(twelve_steps):
    schedule, file = load_schedule(str(twelve_steps[0])), twelve_steps[1]
    found = paired.differences(schedule, "PGCD", [file], "test")
    for step in range(1, 12):
        assert found[f"MiB2_step{step}"]["new"] == pytest.approx([-0.01 * step] * 2)
    rows = [line.split(" ")[1] for line in paired.table(found).splitlines()[2:]]
    assert rows == [f"MiB2_step{step}" for step in range(1, 12)]
    titles = [ax.get_title() for ax in paired.figure(found, "PGCD").axes[::3]]
    assert titles == [f"old classes, after step {step}" for step in range(1, 12)]


@pytest.fixture
def one_lacks_a_dice(tmp_path):
    """In fold 0 the reference of case 2 lacks the posterior part, where LwF finds some and MiB none; fold 1 has all."""
    dice = {
        "LwF": ([0.7, 0.5, 0.6], [0.9, 0.6, 0.0], [0.7, 0.7, 0.7], [0.4, 0.5, 0.6]),
        "MiB": ([0.6, 0.5, 0.4], [0.8, 0.3, ""], [0.7, 0.7, 0.7], [0.3, 0.4, 0.5]),
    }
    rows = [
        {**row, "dice": row["dice"].strip("'")}
        for method, (first, second, *of_fold_1) in dice.items()
        for fold, (old, new) in enumerate(((first, second), of_fold_1))
        for row in make_rows(method, 1, fold, {"Anterior": old, "Posterior": new})
    ]
    scores.write_rows(tmp_path / "lacks.csv", rows)
    return tmp_path / "lacks.csv"


def test_a_dice_that_one_model_lacks_counts_for_neither(one_lacks_a_dice, capsys, monkeypatch):
    """As for ``nnunet_cil evaluate``. New: 0.2 from two cases of fold 0, and 0.1; old: 0.1 and 0."""
    schedule = load_schedule(study_tables.schedule_file("hippocampus_1-1_cpu"))
    found = paired.differences(schedule, "MiB", [one_lacks_a_dice], "test")["LwF_step1"]
    assert found["old"] == pytest.approx([0.1, 0])
    assert found["new"] == pytest.approx([0.2, 0.1])
    assert found["all"] == pytest.approx([0.15, 0.05])
    command = f"study_tables.py hippocampus_1-1_cpu --cases test --against MiB --results {one_lacks_a_dice}"
    monkeypatch.setattr(sys, "argv", command.split())
    study_tables.main()
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].split("|")]
    assert [cell.split(" [")[0] for cell in cells[2:5]] == ["+0.100, +0.000", "+0.200, +0.100", "+0.150, +0.050"]


def test_a_class_that_no_case_has_with_both_models_has_no_difference(one_lacks_a_dice):
    rows = [{**row, "dice": ""} if row["class"] == "Posterior" else row for row in scores.read_rows(one_lacks_a_dice)]
    scores.write_rows(one_lacks_a_dice, rows)
    schedule = load_schedule(study_tables.schedule_file("hippocampus_1-1_cpu"))
    found = paired.differences(schedule, "MiB", [one_lacks_a_dice], "test")["LwF_step1"]
    assert found["all"] == pytest.approx([0.1, 0])
    cells = paired.table({"LwF_step1": found}).splitlines()[-1].split("|")
    assert (found["new"], cells[3].strip()) == ([], "")
    last = study_tables.differences(schedule, scores.read_scores(one_lacks_a_dice, "test"), "MiB").splitlines()[-1]
    assert last.split("|")[3].strip() == ""
