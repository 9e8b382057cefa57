"""benchmarks/compare.py: every number of a study, and differences over several data sets."""

import json
import sys

import compare
import compare_figure
import pytest
import scores

from nnunet_cil.evaluation.bootstrap import holm

NEW = {"PGCD": 0.8, "MiB": 0.7, "LwF": 0.75}


def rows_of(method, step, fold, dice, **more):
    """Rows of ten test cases: class -> mean Dice, around which the cases vary."""
    model = {"method": method, "setting": "", "step": str(step), "fold": str(fold), "cases": "test", **more}
    spread = [0.01 * (case - 4.5) for case in range(10)]
    return [
        {**model, "class": name, "case": str(case), "dice": str(value + s)}
        for name, value in dice.items()
        for case, s in enumerate(spread)
    ]


@pytest.fixture
def tables(tmp_path):
    """Two tables of the hippocampus, with a pair each, and one of its other half, whose old class MiB forgets."""
    files = [tmp_path / name for name in ("a.csv", "b.csv.gz", "c.csv")]
    for place, file in enumerate(files):
        rows = rows_of("", 0, 0, {"Anterior": 0.9})
        for method, new in NEW.items():
            old = 0.49 if method == "MiB" and place == 2 else 0.85
            rows += rows_of(method, 1, 0, {"Anterior": old, "Posterior": new + 0.02 * place}, hd95_mm=str(2.0 + place))
        scores.write_rows(file, rows)
    return files


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, arguments)])
        compare.main()
        printed = capsys.readouterr().out
        return printed, [[c.strip() for c in line.split("|")[1:-1]] for line in printed.splitlines() if "|" in line]

    return run


def write_costs(table, **seconds):
    """Writes what fold 0 of methods has cost to train in the step."""
    costs = {
        method: {"0": {"fold": 0, "num_parameters": 9e6, "training_seconds": [60, own], "prediction_seconds": 2.5}}
        for method, own in seconds.items()
    }
    scores.costs_file(table).write_text(json.dumps(costs))


def on(*files):
    return ["--on", "hippocampus_1-1_cpu", *files]


def test_every_number_is_a_mean_over_pairs(run, tables):
    _, lines = run("--primary", "PGCD", "MiB", *on(*tables[:2]))
    found = dict(zip(lines[0], next(line for line in lines if line[0] == "PGCD"), strict=True))
    assert found["old (last step)"] == "0.850"
    assert found["new (when learnt)"] == "0.810"
    assert found["all (last step)"] == "0.830"
    assert found["forgetting"] == "0.050"
    assert found["backward transfer"] == "-0.050"
    assert found["HD95 mm"] == "2.500"
    assert found["pairs"] == "2"
    assert [line[0] for line in lines[2:5]] == ["PGCD", "LwF", "MiB"]
    assert run("--primary", "PGCD", "MiB", *on(*tables[:2]), "--only", "numbers")[1] == lines[:5]


def test_the_primary_comparison_is_the_mean_over_data_sets_and_weighs_each_alike(run, tables):
    _, lines = run("--primary", "PGCD", "MiB", *on(*tables[:2]), *on(tables[2]))
    found = [line for line in lines if len(line) == 10 and " - " in line[2]]
    (primary,) = (line for line in found if "primary" in line)
    assert primary[:4] == [compare.MEAN, "all", "PGCD - MiB", "+0.140"]  # 0.05 and 0.23
    assert found[0][2] == "PGCD - MiB"
    assert {line[0] for line in found} == {compare.MEAN, "hippocampus_1-1_cpu"}
    assert len(found) == 3 * 2 * 3


def test_an_overview_has_a_line_a_method_and_its_difference_with_an_interval(run, tables):
    _, lines = run("--primary", "PGCD", "MiB", *on(*tables[:2]), "--only", "overview")
    header, _, *body = lines
    assert [line[0] for line in body] == ["PGCD", "LwF", "MiB"]
    assert header[:4] == ["method", "old", "all", "new, when learnt"]
    assert body[0] == ["PGCD", "0.850", "0.830", "0.810", "", "", "2"]
    assert body[2][:5] == ["MiB", "0.850", "0.780", "0.710", "-0.050"]
    low, high = (float(end) for end in body[2][5].removesuffix(" (t)").split(" to "))
    assert low <= -0.05 <= high
    scale = compare.Study.read("hippocampus_1-1_cpu", tables[:2], "test", [])
    table = [d for _, d in compare.compared([scale], "PGCD", "MiB") if d.is_primary]
    assert (low, high) == pytest.approx((-table[0].high, -table[0].low), abs=2e-3)


def test_an_overview_of_several_data_sets_ends_with_their_mean(run, tables):
    both = [*on(*tables[:2]), *on(tables[2])]
    printed, lines = run("--primary", "PGCD", "MiB", *both, "--only", "overview")
    last = lines[-3:]
    assert printed.count("all, less PGCD's") == 3
    assert last[0][:4] == ["PGCD", "0.850", "0.838", "0.825"]  # all: 0.83 and 0.845
    assert last[2] == ["MiB", "0.670", "0.698", "0.725", "-0.140", last[2][5], "2, 1"]


def test_a_method_is_shown_under_the_name_that_is_asked_for(run, tables):
    arguments = ["--primary", "PGCD", "MiB", *on(*tables[:2]), "--only", "overview"]
    _, as_stored = run(*arguments)
    _, lines = run(*arguments, "--call", "MiB", "MiB with options")
    assert [[cell.replace("MiB with options", "MiB") for cell in line] for line in lines[2:]] == as_stored[2:]
    assert lines[-1][0] == "MiB with options"
    with pytest.raises(SystemExit, match="there is no MIB"):
        run(*arguments, "--call", "MIB", "x")
    with pytest.raises(SystemExit, match="hippocampus_1-1_cpu: --call gives two methods one name"):
        run(*arguments, "--call", "MiB", "PGCD")


def test_an_overview_puts_methods_of_other_pairs_where_their_difference_says(run, tables):
    """PGCD has 0.83 and 0.84; LwF, of the second pair alone, 0.8375 there: more than PGCD's mean, less than its own pair's."""
    rows = [row for row in scores.read_rows(tables[0]) if row["method"] != "LwF"]
    scores.write_rows(tables[0], rows)
    rows = [
        {**r, "dice": str(float(r["dice"]) + 0.045 * (r["class"] == "Posterior"))} if r["method"] == "LwF" else r
        for r in scores.read_rows(tables[1])
    ]
    scores.write_rows(tables[1], rows)
    _, lines = run("--primary", "PGCD", "MiB", *on(*tables[:2]), "--only", "overview")
    found = {line[0]: line for line in lines[2:]}
    assert float(found["LwF"][2]) > float(found["PGCD"][2])
    assert found["LwF"][4] == "-0.003"
    assert list(found) == ["PGCD", "LwF", "MiB"]


def test_a_number_that_a_pair_lacks_is_blank_and_distances_say_what_they_are_over(run, tables):
    joint = rows_of("Joint", 1, 0, {"Anterior": 0.9, "Posterior": 0.9})
    scores.write_rows(tables[0], [*scores.read_rows(tables[0]), *joint])
    _, lines = run("--primary", "PGCD", "MiB", *on(tables[0]), "--only", "numbers")
    assert dict(zip(lines[0], next(r for r in lines if r[0] == "PGCD"), strict=True))["intransigence"] == "0.050"
    _, lines = run("--primary", "PGCD", "MiB", *on(*tables[:2]), "--only", "numbers")
    found = dict(zip(lines[0], next(r for r in lines if r[0] == "PGCD"), strict=True))
    assert (found["intransigence"], found["HD95 mm"]) == ("", "2.500")

    without = {"method": "PGCD", "class": "Posterior", "case": "3"}
    rows = [{**r, "hd95_mm": ""} if without.items() <= r.items() else r for r in scores.read_rows(tables[2])]
    scores.write_rows(tables[2], rows)
    both = [*on(*tables[:2]), "--on", "hippocampus_1-1_disjoint_cpu", tables[2]]
    nominal = "--nominal", "hippocampus_1-1_cpu"
    cells = {
        line[0]: dict(zip(lines[0], line, strict=True))["HD95 mm"]
        for line in run("--primary", "PGCD", "MiB", *both, "--only", "numbers", *nominal)[1][-3:]
        if len(line) == len(lines[0])
    }
    assert cells["MiB"] == "4.000 (1 of 2 data sets)"
    assert cells["PGCD"] == "4.000 (1 of 2 data sets, 1 missing)"


def test_methods_with_other_cases_in_a_pair_are_refused(run, tables):
    rows = [row for row in scores.read_rows(tables[1]) if (row["method"], row["case"]) != ("LwF", "7")]
    scores.write_rows(tables[1], rows)
    with pytest.raises(SystemExit, match=r"LwF has no row of step 1, case 7, Anterior, in .*b\.csv\.gz 0.*\(2 such\)"):
        run("--primary", "PGCD", "MiB", *on(*tables[:2]))
    run("--primary", "PGCD", "MiB", "--methods", "MiB", *on(*tables[:2]))


def test_a_figure_has_a_panel_a_data_set_and_one_of_the_mean(run, tables, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(compare_figure.Figure, "savefig", lambda figure, file: drawn.append((figure, file)))
    both = [*on(*tables[:2]), "--on", "hippocampus_1-1_disjoint_cpu", tables[2]]
    printed, _ = run("--primary", "PGCD", "MiB", *both, "--figure", tmp_path / "f.svg", "--titles", "CT", "MR")
    ((figure, file),) = drawn
    assert (printed, file) == ("", tmp_path / "f.svg")
    assert [ax.get_title() for ax in figure.axes] == ["CT", "MR", "Mean over data sets"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["LwF", "MiB"]
    dots, _, mean_line, *_ = figure.axes[0].get_lines()
    assert list(dots.get_xdata()) == pytest.approx([-0.025, -0.025])  # LwF, in two pairs
    assert list(mean_line.get_xdata()) == pytest.approx([-0.025] * 2)
    assert not list(figure.axes[2].get_lines()[0].get_xdata())
    with pytest.raises(SystemExit):
        run("--primary", "PGCD", "MiB", *both, "--figure", tmp_path / "f.svg", "--titles", "CT")


def test_arguments_may_stand_in_a_file(run, tables, tmp_path):
    file = tmp_path / "comparison.txt"
    file.write_text(f"--primary PGCD MiB\n--call MiB 'MiB with options'\n\n--on hippocampus_1-1_cpu {tables[0]}\n")
    _, lines = run(f"@{file}", "--only", "overview")
    assert [line[0] for line in lines[2:]] == ["PGCD", "LwF", "MiB with options"]


def test_all_but_the_primary_comparison_are_corrected_together(tables):
    studies = [compare.Study.read("hippocampus_1-1_cpu", [file], "test", []) for file in tables]
    found = [d for _, d in compare.compared(studies, "PGCD", "LwF")]
    rest = [d for d in found if not d.is_primary]
    assert len(rest) == len(found) - 1
    assert [d.p_corrected for d in rest] == holm([d.p for d in rest])


def test_what_lacks_a_step_is_named_and_left_out(run, tables):
    rows = scores.read_rows(tables[0])
    scores.write_rows(tables[0], [row for row in rows if row["step"] != "0" or row["class"] != "Anterior"])
    with pytest.raises(SystemExit, match="hippocampus_1-1_cpu has no complete pair of PGCD"):
        run("--primary", "PGCD", "MiB", *on(tables[0]))
    with pytest.raises(SystemExit, match=r"hippocampus_1-1_cpu has no MIB, but LwF, MiB, PGCD\."):
        run("--primary", "PGCD", "MIB", *on(tables[1]), "--methods", "LwF")
    with pytest.raises(SystemExit, match=r"gone\.csv is missing"):
        run("--primary", "PGCD", "MiB", *on("gone.csv"))


def test_nominal_spacing_has_no_distances_and_costs_have_a_table(run, tables):
    cost = {"fold": 0, "num_parameters": 2_000_000, "training_seconds": [None, 1800.0], "prediction_seconds": None}
    scores.costs_file(tables[1]).write_text(json.dumps({"PGCD": {"0": cost}}))
    assert scores.costs_file(tables[1]).name == "b_costs.json"
    printed, lines = run("--primary", "PGCD", "MiB", *on(tables[1]), "--nominal", "hippocampus_1-1_cpu")
    assert "HD95" not in printed
    assert ["PGCD", "2", "0.5", ""] in lines
    _, lines = run("--primary", "PGCD", "MiB", *on(tables[1]), "--only", "costs")
    assert [line[0] for line in lines[2:]] == ["PGCD"]


def test_distances_are_a_column_where_a_study_has_kept_them(tables, tmp_path):
    rows = scores.read_rows(tables[0])
    assert tuple(rows[0]) == (*scores.COLUMNS, scores.DISTANCE)
    assert {row[scores.DISTANCE] for row in rows} == {"", "2.0"}
    scores.write_rows(tmp_path / "without.csv", [{name: row[name] for name in scores.COLUMNS} for row in rows])
    assert tuple(scores.read_rows(tmp_path / "without.csv")[0]) == scores.COLUMNS


def test_data_sets_of_one_pair_and_of_several_have_a_mean_without_an_interval(run, tables):
    other = "hippocampus_1-1_disjoint_cpu"
    printed, lines = run("--primary", "MiB", "LwF", *on(*tables[:2]), "--on", other, tables[2])
    found = [line for line in lines if line[0] == compare.MEAN]
    assert {tuple(line[4:6]) for line in found} == {("none: a data set has 1 training", "")}
    assert f"No interval for the mean: one pair of {other}, several of another. Train more" in printed
    assert "No interval" not in run("--primary", "MiB", "LwF", *on(*tables[:2]), *on(*tables[1:]))[0]


def test_tables_of_one_name_are_of_different_pairs(run, tables):
    """Each has a fold 0; its pairs and costs stay its own."""
    places = [file.parent / folder / "t.csv" for folder, file in zip("xy", tables[1:], strict=True)]
    for seconds, place, file in zip((3600, 10800), places, tables[1:], strict=True):
        place.parent.mkdir()
        scores.write_rows(place, scores.read_rows(file))
        write_costs(place, PGCD=seconds)
        write_costs(file, PGCD=seconds)
    assert run("--primary", "PGCD", "MiB", *on(*places)) == run("--primary", "PGCD", "MiB", *on(*tables[1:]))


def test_a_table_named_twice_is_refused(run, tables):
    with pytest.raises(SystemExit, match=r"b\.csv\.gz is named twice for hippocampus_1-1_cpu: .* Name it once"):
        run("--primary", "PGCD", "MiB", *on(tables[0], tables[1], tables[1].parent / "." / "b.csv.gz"))


@pytest.mark.parametrize(("step", "name"), [("0", "step0"), ("1", "LwF_step1")])
def test_a_table_with_a_row_twice_is_refused(run, tables, step, name):
    rows = scores.read_rows(tables[2])
    again = next(row for row in rows if row["step"] == step and row["case"] == "7" and row["method"] in ("", "LwF"))
    scores.write_rows(tables[2], [*rows, {**again, "dice": "0.125"}])
    message = rf"c\.csv has two rows of {name}, fold 0, case 7, Anterior: remove one"
    with pytest.raises(SystemExit, match=message):
        run("--primary", "PGCD", "MiB", *on(tables[0], tables[2]))
    scores.write_rows(tables[2], [*rows, {**again, "cases": "validation"}])
    run("--primary", "PGCD", "MiB", *on(tables[0], tables[2]))


def test_the_differences_say_where_their_intervals_tell_little(run, tables):
    """Three pairs, then one, then both over two data sets."""
    arguments = "--only", "differences", "--primary", "LwF", "MiB"
    three, one, both = (
        run(*arguments, *data)[0] for data in (on(*tables), on(tables[1]), [*on(*tables), *on(tables[1])])
    )
    few, alone = (
        "With 3 trainings it may cover less than 95 %.",
        "over patients alone and says nothing of another training",
    )
    assert f"whichever reaches further. {few}" in three
    assert alone not in three
    assert f"It is {alone}" in one
    assert "may cover" not in one
    assert few in both
    assert f"Where there is one, it is {alone}" in both
    assert "The primary comparison is LwF - MiB in all classes." in both


def test_a_pair_that_is_left_out_has_no_costs_either(run, tables):
    """LwF has no scores in the first table, and in the last no method has step 0."""
    missing = {"method": "LwF"}, {}, {"step": "0"}
    for table, without, seconds in zip(tables, missing, (1800, 9000, 36000), strict=True):
        kept = [row for row in scores.read_rows(table) if not (without and without.items() <= row.items())]
        scores.write_rows(table, kept)
        write_costs(table, PGCD=seconds, LwF=2 * seconds)
    printed, lines = run("--only", "costs", "--primary", "PGCD", "LwF", *on(*tables))
    assert "costs, mean over pairs" in printed
    assert sorted(lines[2:4]) == [["LwF", "9", "5", "2.5"], ["PGCD", "9", "1.5", "2.5"]]
    _, lines = run("--only", "numbers", "--primary", "PGCD", "LwF", *on(*tables))
    assert [line[-1] for line in lines[2:]] == ["2", "1", "2"]  # pairs that are scored
