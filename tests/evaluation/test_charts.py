"""Figures of scores show the numbers they are given."""

from dataclasses import asdict
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context

from nnunet_cil.evaluation.axes import far_behind, limits, methods_of
from nnunet_cil.evaluation.charts import (
    case_boxes,
    class_dots,
    curves,
    forgetting_bars,
    matrix_maps,
    score_charts,
)
from nnunet_cil.evaluation.difference_chart import difference_chart
from nnunet_cil.evaluation.differences import differences_to_best, evaluated_differences
from nnunet_cil.evaluation.results import ranked, results
from nnunet_cil.evaluation.scores import score_table
from nnunet_cil.evaluation.training_chart import training_chart

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


def content_of(table, steps):
    found = {"steps": steps, "trainers": results(table, steps)}
    best = ranked(found["trainers"])[0]
    found["differences_to_best"] = [asdict(d) for d in differences_to_best(table, steps, best, [])]
    return found


@pytest.fixture(scope="module")
def scored():
    table = table_of(DICE)
    return content_of(table, STEPS), table


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
    assert [t.get_text() for t in figure.axes[0].texts] == ["0.650", "0.500", "0.800"]
    assert [ax.get_title() for ax in figure.axes[:2]] == ["One", "Two"]


def test_bars_are_best_less_last(scored):
    ax = forgetting_bars(scored[0]).axes[0]
    lengths = [bar.get_width() for bar in ax.patches]
    assert lengths == pytest.approx([(0.3 + 0.1) / 2, (0.0 + 0.2) / 2, (0.8 + 0.6) / 2, (0.6 + 0.4) / 2])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]


def test_a_tiny_loss_does_not_fill_its_axis():
    per_step = [{"a": 0.8008, "b": 0.8}, {"a": 0.8, "b": 0.8, "c": 0.8}]
    ax = forgetting_bars(content_of(table_of({"nnUNetTrainerOne": [per_step]}), STEPS)).axes[0]
    assert ax.get_xlim()[0] == 0
    assert ax.patches[0].get_width() / ax.get_xlim()[1] < 0.02


def test_dots_and_boxes_have_every_class_and_case(scored):
    content, table = scored
    ax = class_dots(content).axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a (step 0)", "b (step 0)", "c (step 1)"]
    assert list(ax.get_lines()[0].get_xdata()) == pytest.approx([0.5, 0.5, 0.8])
    points = np.concatenate([np.asarray(c.get_offsets())[:, 0] for c in case_boxes(content, table).axes[0].collections])
    assert sorted(points) == pytest.approx(sorted(table[table["step"] == 1]["dice"]))


def close_and_far():
    """Three methods that differ by 0.004, and one that has forgotten all."""
    kept = {f"nnUNetTrainerM{i}": [[{"a": 0.75}, {"a": 0.75 - i / 500, "b": 0.8}]] for i in range(3)}
    return table_of({**kept, "nnUNetTrainerZero": [[{"a": 0.75}, {"a": 0.1, "b": 0.8}]]})


def test_axes_show_how_near_methods_differ_and_say_where_they_begin():
    table = close_and_far()
    content = content_of(table, [["a"], ["b"]])
    assert [m.name for m in methods_of(content) if m.is_far] == ["Zero"]
    old = curves(content).axes[0]
    low, high = old.get_ylim()
    assert 0.7 < low < 0.746 < 0.75 < high < 0.8
    assert old.get_ylabel() == f"Dice (the axis begins at {low:.2f})"
    assert [t.get_text() for t in old.texts] == ["▾ Zero 0.100"]
    dots = class_dots(content).axes[0]
    assert [t.get_text() for t in dots.texts] == [" ◂ 0.10"]
    assert score_charts(content, table)["classes"].text.endswith(
        "Zero: far behind, and beyond the axes where an arrow says so."
    )


@pytest.mark.parametrize(
    ("scores", "far"),
    [
        ({"a": 0.8, "b": 0.79, "c": 0.2}, {"c"}),
        ({"a": 0.8, "b": 0.75, "c": 0.6}, set()),
        ({"a": 0.8, "b": 0.2, "c": 0.19}, set()),
        ({"a": 0.8}, set()),
        ({"a": float("nan"), "b": 0.3, "c": 0.31}, set()),
    ],
)
def test_a_method_is_far_behind_only_where_others_are_near(scores, far):
    assert far_behind(scores) == far


def test_an_axis_of_scores_is_never_shorter_than_its_least_nor_beyond_what_can_be():
    low, high = limits([0.7, 0.7001])
    assert high - low > 0.05
    assert limits([0.5, 1.0])[1] < 1.05
    assert limits([0.0, 1.0])[0] > -0.1


def test_differences_are_to_the_best_and_hollow_where_the_interval_holds_0():
    table = close_and_far()
    content = content_of(table, [["a"], ["b"]])
    figure = difference_chart(content)
    assert [ax.get_title() for ax in figure.axes] == ["all classes", "old classes", "new classes, when learnt"]
    everything, old, new = figure.axes
    assert [t.get_text() for t in everything.get_yticklabels()] == ["M0", "M1", "M2", "Zero"]
    assert [t.get_text() for t in old.texts][-1] == "◂ -0.650 (-0.650 to -0.650)"
    assert [t.get_text().split()[0] for t in old.texts][:2] == ["-0.002", "-0.004"]
    filled, hollow = (
        [line.get_markerfacecolor() for line in ax.get_lines() if line.get_marker() == "s"] for ax in (old, new)
    )
    assert filled == [methods_of(content)[1].style["color"]]
    assert hollow == ["white"]


def test_differences_are_turned_where_the_best_was_compared_already():
    table = close_and_far()
    steps = [["a"], ["b"]]
    known = evaluated_differences(table, steps)
    turned = differences_to_best(table, steps, "nnUNetTrainerM0", known)
    anew = differences_to_best(table, steps, "nnUNetTrainerM0", [])
    assert {d.other for d in turned} == {"nnUNetTrainerM0"}
    for a, b in zip(turned, anew, strict=True):
        assert (a.method, a.group) == (b.method, b.group)
        assert (a.difference, a.low, a.high) == pytest.approx((b.difference, b.low, b.high), abs=1e-9)


def test_every_term_of_every_step_has_one_colour_and_a_shared_model_is_drawn_once():
    figure = training_chart(
        {
            "One": {
                "step 0": {"loss": [2, 1]},
                "step 1": {"pgcd": [1, 0.5], "dapd": [0.2, 0.1], "segmentation": [1, 0]},
            },
            "Two": {"step 0": None, "step 1": {"segmentation": [3, 1], "dapd": [1, 1]}},
        }
    )
    assert [ax.get_title() for ax in figure.axes] == ["One, step 0", "One, step 1", "", "Two, step 1"]
    assert [t.get_text() for t in figure.axes[2].texts] == ["Two, step 0:\nthe same model as above"]
    colours = {}
    for ax in figure.axes:
        for line in ax.get_lines():
            colours.setdefault(line.get_label(), set()).add(line.get_color())
    assert all(len(found) == 1 for found in colours.values())
    assert len({*map(frozenset, colours.values())}) == 4
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["segmentation", "loss", "pgcd", "dapd"]
    assert not any(ax.get_legend() for ax in figure.axes)
    assert all(
        line.get_marker() == "o" for ax in figure.axes for line in ax.get_lines()
    )  # of few epochs a line shows nothing
    assert len(training_chart({"One": {"fold 2": {"loss": [1]}}, "Two": {"fold 2": None}}, narrow=True).axes) == 1


def test_one_step_has_nothing_to_forget():
    table = table_of({"nnUNetTrainerJoint": [[{"a": 0.5}]]})
    charts = score_charts(content_of(table, [["a"]]), table)
    assert "forgetting" not in charts
    assert "differences" not in charts
    assert "curves" in charts


def test_a_figure_for_a_narrow_screen_has_its_panels_below_each_other(scored):
    content, table = scored
    for name, chart in score_charts(content, table).items():
        assert chart.draw(narrow=True).get_figwidth() < 5, name


STRANGE, HIDDEN = "left_ventricle $x$ 50% | a&b", "_hidden"


def test_names_of_any_kind_are_drawn_as_they_are(tmp_path):
    """Draws names of classes and methods: a formula between dollar signs, and an underscore, which hides an entry of a legend."""
    steps = [[STRANGE], [HIDDEN]]
    per_step = [{STRANGE: 0.5}, {STRANGE: 0.25, HIDDEN: 0.75}]
    table = table_of({"nnUNetTrainer_One": [per_step], f"Two {STRANGE}": [per_step]})
    charts = score_charts(content_of(table, steps), table)
    terms = training_chart({"_One": {"step 0": {HIDDEN: [2, 1], STRANGE: [1, 0]}}})
    drawn = {name: texts(chart.draw(), tmp_path / f"{name}.svg") for name, chart in charts.items()}
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
    lines = curves(content_of(table, [["a"]])).axes[1].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 13
