"""Pages hold their tables and pictures so that they can be read on any screen."""

import re

import pytest

from nnunet_cil.evaluation.report import Picture, page, picture_address
from nnunet_cil.evaluation.summary import Section
from nnunet_cil.evaluation.tables import Table

TABLE = Table(
    ["fold", "case", "Dice"], [["0", "k<1>", "0.5"], ["1", "k2", "0.7"]], num_labels=2, best=frozenset({(1, 2)})
)


def classes_of(line):
    return re.findall(r"<t[hd]( class=\"number\")?>", line)


def test_what_names_a_row_is_on_the_left_and_numbers_are_on_the_right():
    html = page("t", [], [Section("s", "", TABLE)], [])
    header, first, second = re.findall(r"<tr>.*</tr>", html)
    for line in (header, first, second):
        assert classes_of(line) == ["", "", ' class="number"']
    assert "<td>k&lt;1&gt;</td>" in first
    assert '<td class="number"><strong>0.7</strong></td>' in second
    assert "<strong>" not in first


def test_the_best_cells_are_bold_in_latex_but_not_in_markdown():
    assert r"1 & k2 & \textbf{0.7} \\" in TABLE.latex("t")
    assert "*" not in TABLE.markdown()


@pytest.mark.parametrize("has_narrow", [True, False])
def test_a_picture_has_another_layout_for_a_narrow_screen(tmp_path, has_narrow):
    files = [tmp_path / "wide.svg", tmp_path / "narrow.svg"]
    for file in files:
        file.write_text(f"<svg>{file.stem}</svg>")
    html = page("t", [], [], [Picture(files[0], "curves", picture_address(b"x", ".png") if has_narrow else "")])
    assert ("<source" in html) == has_narrow
    assert html.count("base64,") == 1 + has_narrow
    assert ('<div class="fits">' in html) == has_narrow
