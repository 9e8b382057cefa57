"""Scores as tables, in Markdown and in LaTeX."""

import math
import re

import pytest

from nnunet_cil.evaluation.tables import Table, group_means, latex_text, step_table
from nnunet_cil.names import markdown_text

STEPS = [["a", "b"], ["c"]]


def test_groups_by_hand():
    old, new, everything = group_means({"a": 0.2, "b": 0.4, "c": 0.9}, ["a", "b"], ["c"])
    assert (old, new, everything) == pytest.approx((0.3, 0.9, 0.5))
    assert math.isnan(group_means({"a": 0.2}, [], ["a"])[0])


def test_table_is_blank_where_a_class_is_not_learnt_yet():
    rows = {"PGCD": [{"a": 0.5, "b": 0.7}, {"a": 0.4, "b": 0.6, "c": 0.8}]}
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in step_table(rows, STEPS).markdown().splitlines()
    ]
    assert lines[0] == ["step", "method", "a", "b", "c", "old", "new", "all"]
    assert lines[2] == ["0", "PGCD", "0.500", "0.700", "", "", "0.600", "0.600"]
    assert lines[3] == ["1", "PGCD", "0.400", "0.600", "0.800", "0.500", "0.800", "0.600"]


def test_methods_that_share_a_model_share_its_line_and_the_best_of_each_step_is_marked():
    first = {"a": 0.5, "b": 0.7}
    rows = {
        "One": [first, {"a": 0.4, "b": 0.6, "c": 0.8}],
        "Two": [first, {"a": 0.4, "b": 0.7, "c": 0.79996}],
        "Three": [first, {"a": 0.1, "b": 0.1, "c": 0.1}],
    }
    table = step_table(rows, STEPS)
    assert [row[:2] for row in table.body] == [["0", "all 3"], ["1", "One"], ["1", "Two"], ["1", "Three"]]
    assert table.num_labels == 2
    best = {(row, table.header[column]) for row, column in table.best}
    assert best == {(1, "a"), (2, "a"), (2, "b"), (2, "old"), (1, "c"), (2, "c"), (1, "new"), (2, "new"), (2, "all")}


STRANGE = "left_ventricle $x$ 50% | a&b"


def cells(line):
    """The cells of a line of a Markdown table, split as Markdown does, as they are shown."""
    found = re.split(r"(?<!\\)\|", line)[1:-1]
    return [re.sub(r"\\(\W|_)", r"\1", cell).strip() for cell in found]


@pytest.mark.parametrize("name", [STRANGE, "_hidden", "_a_", "a*b*", "`c`", "<b>d</b>", "a\\|b", "[a](b)", "x~~y~~"])
def test_a_class_of_any_name_is_one_cell_and_shown_as_it_is(name):
    lines = step_table({"PGCD": [{name: 0.5}]}, [[name]]).markdown().splitlines()
    assert {len(re.split(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {8}
    assert cells(lines[0])[2] == name
    special = re.sub(r"\\[\\`*_$<~|\[\]]", "", markdown_text(name).replace("left_", "left"))
    assert not set(special) & set("\\`*_$<~|[]")


def test_ordinary_names_stay_as_they_are_in_markdown():
    for name in ("left kidney", "left_kidney", "T1-weighted (contrast)", "0.650 (0.500 to 0.800)", "5%", "a & b"):
        assert markdown_text(name) == name
    assert markdown_text("two\nlines") == "two lines"


def test_names_are_escaped_in_cells_header_and_caption_of_latex():
    expected = r"left\_ventricle \$x\$ 50\% \textbar{} a\&b"
    table = Table(["method", STRANGE], [["PGCD_x", "0.5"]]).latex(f"Dice of {STRANGE}.")
    assert rf"\caption{{Dice of {expected}.}}" in table
    assert rf"method & {expected} \\" in table
    assert r"PGCD\_x & 0.5 \\" in table
    assert latex_text(r"a\b~c^d#e{f}[g]") == (r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d\#e\{f\}{[}g{]}")
