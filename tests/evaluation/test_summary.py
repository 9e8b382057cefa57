"""Checks what is said of the scores of all cases, for reading and for a paper."""

import math
from dataclasses import asdict

import numpy as np
import pytest

from nnunet_cil.evaluation.charts import class_dots, curves
from nnunet_cil.evaluation.differences import evaluated_differences
from nnunet_cil.evaluation.results import last_mean, lost, pooled, ranked, results
from nnunet_cil.evaluation.scores import METRICS, score_table
from nnunet_cil.evaluation.summary import differences_text, latex, overview, summary
from nnunet_cil.evaluation.tables import SCHEDULE_NUMBERS, costs_table

NOTHING_COMPARED = {"differences": [], "differences_to_best": []}


def test_a_class_that_one_fold_lacks_is_the_mean_of_the_others():
    nan = math.nan
    folds = [
        {"classes": [{"a": 0.8, "b": nan}], "matrix": [[0.8]], "old": [nan], "new": [0.8], "all": [0.8]},
        {"classes": [{"a": 0.6, "b": 0.4}], "matrix": [[0.5]], "old": [nan], "new": [0.5], "all": [0.5]},
    ]
    folds = [{**f, **dict.fromkeys(SCHEDULE_NUMBERS, nan)} for f in folds]
    content = {"steps": [["a", "b"]], "cases": "validation", "tolerance_mm": 2, "costs": {}, **NOTHING_COMPARED}
    content["trainers"] = {"PGCD": dict.fromkeys(METRICS, folds) | {"dice": folds}}
    for fold in folds:
        fold["missing"] = [{"a": 0, "b": 0}]
    standings, steps, schedule, *_ = overview(content)
    assert standings.table.body == [["PGCD", "0.550", "", "", "", ""]]
    assert steps.table.body[0][2:] == ["0.700", "0.400", "", "0.550", "0.550"]
    assert schedule.table.header[1:4] == ["old (last step)", "all (last step)", "new (when learnt)"]
    assert schedule.table.body[0][1:4] == ["", "0.550 (0.500 to 0.800)", ""]
    assert np.allclose(pooled(folds).matrix, [[0.55]])
    steps = [[{"a": nan}, {"a": 0.5}, {"a": 0.25}], [{"a": 0.5}, {"a": nan}, {"a": 0.5}]]
    assert [lost(per_step, "a") for per_step in steps] == [0.25, 0]
    for chart in (curves, class_dots):
        assert chart({**content, "steps": [["a", "b"]]}).axes


def test_the_order_of_methods_is_that_of_their_differences_where_a_fold_lacks_a_class():
    dice = {"A": {(0, "a"): 0.9, (1, "a"): 0.9, (1, "b"): 0.2}, "B": {(0, "a"): 0.8, (1, "a"): 0.8, (1, "b"): 0.35}}
    rows = [
        {"trainer": f"nnUNetTrainer{name}", "step": 0, "fold": fold, "case": f"{fold}{case}", "class": c, "dice": value}
        for name, values in dice.items()
        for (fold, c), value in values.items()
        for case in range(2)
    ]
    table, steps = score_table(rows), [["a", "b"]]
    found = results(table, steps, ["dice"])
    a, b = (last_mean(found[f"nnUNetTrainer{name}"]["dice"], "all") for name in "AB")
    (all_classes,) = [d for d in evaluated_differences(table, steps) if d.group == "all"]
    assert ranked(found) == ["nnUNetTrainerB", "nnUNetTrainerA"]
    assert (a, b, a - b) == pytest.approx((0.55, 0.575, all_classes.difference))


def test_names_of_any_kind_are_escaped_in_summary_and_latex():
    strange, hidden = "left_ventricle $x$ 50% | a&b", "_hidden"
    rows = [
        {
            **{"trainer": trainer, "step": step, "fold": 0, "case": f"k{case}", "class": name},
            **{"dice": 0.5, "hd95_mm": 1.0, "asd_mm": 0.5, "nsd": 0.5},
        }
        for trainer in ("nnUNetTrainer_One", "nnUNetTrainerTwo")
        for step, names in enumerate([[strange], [strange, hidden]])
        for name in names
        for case in range(2)
    ]
    steps = [[strange], [hidden]]
    content = {
        **{"schedule": "my_schedule_50%", "dataset": "Dataset001_A$B", "configuration": "2d", "steps": steps},
        **{"cases": "/a/labels|Ts", "tolerance_mm": 2.0, "costs": {}, **NOTHING_COMPARED},
        "trainers": results(score_table(rows), steps),
    }
    text = summary(content)
    assert r"| left_ventricle \$x\$ 50% \| a&b | \_hidden |" in text
    assert r"# my_schedule_50% on Dataset001_A\$B, 2d" in text
    assert r"(labels\|Ts)" in text
    assert r"## R of \_One" in text
    table = latex(content)
    assert r"\caption{Dice after the last step of my\_schedule\_50\% on Dataset001\_A\$B, 2d.}" in table
    assert r"\_One & 0.500" in table


def test_the_table_of_differences_says_what_they_are_over_and_what_was_left_out():
    rows = [
        {"trainer": trainer, "step": 0, "fold": 0, "case": f"k{case}", "class": name, "dice": dice}
        for trainer, lacks in (("nnUNetTrainerA", 0.0), ("nnUNetTrainerB", math.nan))
        for case in range(7)
        for name, dice in (("liver", 0.5 + case / 20), ("spleen", lacks if case < 3 else 0.6))
    ]
    steps = [["liver", "spleen"]]
    table = score_table(rows)
    content = {
        **{
            "schedule": "s",
            "dataset": "d",
            "configuration": "2d",
            "steps": steps,
            "cases": "test",
            "tolerance_mm": 1.0,
        },
        "costs": {},
        **NOTHING_COMPARED,
        "differences": [asdict(difference) for difference in evaluated_differences(table, steps)],
        "trainers": results(table, steps),
    }
    lines = [" ".join(line.split()) for line in summary(content).splitlines()]
    header = "| classes | difference | mean | interval | p | p corrected | trainings | cases | left out |"
    assert header in lines
    assert "| all | A - B | +0.000 | +0.000 to +0.000 | 1.000 | primary | 1 | 7 | 3 |" in lines
    assert any("It is over patients alone" in line for line in lines)


@pytest.mark.parametrize(("trainings", "is_few"), [((5, 9), True), ((8, 12), False)])
def test_the_fewest_of_several_trainings_tell_how_far_to_trust_an_interval(trainings, is_few):
    rows = [
        {"trainer": trainer, "step": 0, "fold": fold, "case": "one", "class": "liver", "dice": 0.5 + fold / 50}
        for trainer, number in zip(
            ("nnUNetTrainerA", "nnUNetTrainerB", "nnUNetTrainerC"), (12, *trainings), strict=True
        )
        for fold in range(number)
    ]
    text = differences_text([asdict(d) for d in evaluated_differences(score_table(rows), [["liver"]])])
    assert "It is over patients and trainings" in text
    assert "patients alone" not in text
    assert (f"With {min(trainings)} trainings it may cover less" in text) == is_few


@pytest.mark.parametrize("unit", ["mm", "voxels"])
def test_distances_have_their_unit(unit):
    row = {"trainer": "nnUNetTrainerOne", "step": 0, "fold": 0, "case": "a", "class": "liver", "dice": 0.5}
    scores = score_table([{**row, "hd95_mm": 1.0, "asd_mm": 0.5, "nsd": 0.5, "unit": unit}])
    content = {
        **{"steps": [["liver"]], "cases": "validation", "tolerance_mm": 1.5, "costs": {}, **NOTHING_COMPARED},
        **{"trainers": results(scores, [["liver"]]), "distance_unit": unit},
    }
    distances = overview(content)[3]
    assert distances.table.header[1:] == [f"HD95 {unit}", f"ASD {unit}", f"NSD at 1.5 {unit}"]
    assert ("do not say how large a voxel is" in distances.text) == (unit == "voxels")


def test_costs_are_means_over_folds_of_what_was_recorded():
    folds = [
        {"num_parameters": 1_500_000, "training_seconds": [9e9, 3600.0, 1800.0], "prediction_seconds": 4.21},
        {"num_parameters": 1_500_000, "training_seconds": [9e9, 3600.0, math.nan], "prediction_seconds": math.nan},
    ]
    table = costs_table({"PGCD": folds, "Other": folds[1:]})
    assert table.body == [["PGCD", "1.5", "1.5", "4.2"], ["Other", "1.5", "", ""]]
    one_step = costs_table({"PGCD": [{**folds[0], "training_seconds": [60.0]}]})
    assert one_step.body == [["PGCD", "1.5", "", "4.2"]]
