"""Figures of scores show the numbers they are given."""

from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context

from nnunet_cil.evaluation.charts import (
    case_boxes,
    class_dots,
    curves,
    forgetting_bars,
    matrix_maps,
    score_charts,
    training_curves,
)
from nnunet_cil.evaluation.results import results
from nnunet_cil.evaluation.scores import score_table

STEPS = [["a", "b"], ["c"]]
DICE = {
    "nnUNetTrainerOne": [
        [{"a": 0.8, "b": 0.6}, {"a": 0.5, "b": 0.6, "c": 0.9}],
        [{"a": 0.6, "b": 0.6}, {"a": 0.5, "b": 0.4, "c": 0.7}],
    ],
    "nnUNetTrainerTwo": [
        [{"a": 0.8, "b": 0.6}, {"a": 0.0, "b": 0.0, "c": 0.8}],
        [{"a": 0.6, "b": 0.6}, {"a": 0.0, "b": 0.2, "c": 0.8}],
    ],
}
"""Trainer -> fold -> step -> class -> mean Dice."""


def table_of(dice):
    """Two cases a class, 0.1 below and above the mean."""
    return score_table(
        {
            **{"trainer": trainer, "step": step, "fold": fold, "case": f"k{i}", "class": name},
            **{"dice": mean + d, "hd95_mm": 1.0, "asd_mm": 0.5, "nsd": mean},
        }
        for trainer, folds in dice.items()
        for fold, per_step in enumerate(folds)
        for step, means in enumerate(per_step)
        for name, mean in means.items()
        for i, d in enumerate((-0.1, 0.1))
    )


@pytest.fixture
def scored():
    table = table_of(DICE)
    return {"steps": STEPS, "trainers": results(table, STEPS)}, table


def test_curves_are_the_means_over_folds(scored):
    old, new, everything = curves(scored[0]).axes
    assert [ax.get_title() for ax in (old, new, everything)] == ["old classes", "new classes", "all classes"]
    one, two = old.get_lines()
    assert (one.get_label(), two.get_label()) == ("One", "Two")
    assert np.allclose(one.get_ydata(), [np.nan, (0.55 + 0.45) / 2], equal_nan=True)
    assert np.allclose(new.get_lines()[0].get_ydata(), [(0.7 + 0.6) / 2, 0.8])
    assert np.allclose(everything.get_lines()[1].get_ydata()[1], ((0.8 / 3) + (1.0 / 3)) / 2)


def test_heat_maps_write_r_below_the_diagonal(scored):
    figure = matrix_maps(scored[0])
    assert [t.get_text() for t in figure.axes[0].texts] == ["0.65", "0.50", "0.80"]
    assert [ax.get_title() for ax in figure.axes[:2]] == ["One", "Two"]


def test_bars_are_best_less_last(scored):
    ax = forgetting_bars(scored[0]).axes[0]
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == pytest.approx([(0.3 + 0.1) / 2, (0.0 + 0.2) / 2, (0.8 + 0.6) / 2, (0.6 + 0.4) / 2])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b"]


def test_dots_and_boxes_have_every_class_and_case(scored):
    content, table = scored
    ax = class_dots(content).axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a (step 0)", "b (step 0)", "c (step 1)"]
    assert list(ax.get_lines()[0].get_xdata()) == pytest.approx([0.5, 0.5, 0.8])
    points = np.concatenate([np.asarray(c.get_offsets())[:, 1] for c in case_boxes(content, table).axes[0].collections])
    assert sorted(points) == pytest.approx(sorted(table[table["step"] == 1]["dice"]))


def test_every_term_of_every_step_is_drawn():
    figure = training_curves(
        {"One": [{"loss": [2, 1]}, {"pgcd": [1, 0.5], "dapd": [0.2, 0.1]}], "Two": [{"loss": [3, 1]}]}
    )
    assert [ax.get_title() for ax in figure.axes] == ["One, step 0", "One, step 1", "Two, step 0", ""]
    assert [line.get_label() for line in figure.axes[1].get_lines()] == ["pgcd", "dapd"]


def test_one_step_has_nothing_to_forget():
    table = table_of({"nnUNetTrainerJoint": [[{"a": 0.5}]]})
    charts = score_charts({"steps": [["a"]], "trainers": results(table, [["a"]])}, table)
    assert "forgetting" not in charts
    assert "curves" in charts


STRANGE, HIDDEN = "left_ventricle $x$ 50% | a&b", "_hidden"


def test_names_of_any_kind_are_drawn_as_they_are(tmp_path):
    """Draws names of classes and methods: a formula between dollar signs, and an underscore, which hides an entry of a legend."""
    steps = [[STRANGE], [HIDDEN]]
    per_step = [{STRANGE: 0.5}, {STRANGE: 0.25, HIDDEN: 0.75}]
    table = table_of({"nnUNetTrainer_One": [per_step], f"Two {STRANGE}": [per_step]})
    charts = score_charts({"steps": steps, "trainers": results(table, steps)}, table)
    terms = training_curves({"_One": [{HIDDEN: [2, 1], STRANGE: [1, 0]}]})
    drawn = {name: texts(figure, tmp_path / f"{name}.svg") for name, (figure, _) in charts.items()}
    for name in ("forgetting", "cases"):
        assert STRANGE in drawn[name]
    assert HIDDEN in drawn["cases"]
    assert {f"{STRANGE} (step 0)", f"{HIDDEN} (step 1)"} <= drawn["classes"]
    for name in drawn:
        assert {"_One", f"Two {STRANGE}"} <= drawn[name], name
    assert {"_One, step 0", HIDDEN, STRANGE} <= texts(terms, tmp_path / "terms.svg")


def texts(figure, file):
    """Every text of a figure that is drawn, as it is read; a picture of it is made, too."""
    figure.savefig(file.with_suffix(".png"))
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(file)
    return {(e.text or "").strip() for e in ElementTree.parse(file).iter("{http://www.w3.org/2000/svg}text")}


def test_thirteen_methods_have_thirteen_looks():
    table = table_of({f"nnUNetTrainerM{i}": [[{"a": i / 13}]] for i in range(13)})
    lines = curves({"steps": [["a"]], "trainers": results(table, [["a"]])}).axes[1].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 13
