"""Schedules: the shipped ones are valid, and bad ones are refused with the remedy."""

import json
from pathlib import Path

import pytest

from nnunet_cil.errors import CILError
from nnunet_cil.schedule import load_schedule, shipped_schedules
from nnunet_cil.workflows.data.schedules import readme


@pytest.mark.parametrize("name", sorted(shipped_schedules()))
def test_shipped_schedule_is_valid_cited_and_named_like_its_file(name):
    schedule = load_schedule(name)
    assert schedule.name == name
    assert len(schedule.citation) > 20
    assert schedule.classes_until(len(schedule.steps)) == tuple(c for s in schedule.steps for c in s.classes)
    sizes = name.split("_")[1].split("-")
    if all(s.isdigit() for s in sizes):
        assert [len(s.classes) for s in schedule.steps] == [int(s) for s in sizes]


@pytest.mark.parametrize(("dataset", "classes"), [("btcv", 13), ("word", 16), ("openkbp", 5), ("hippocampus", 2)])
def test_all_schedules_of_a_data_set_learn_the_same_classes(dataset, classes):
    sets = [frozenset(load_schedule(n).classes_until(99)) for n in shipped_schedules() if n.startswith(f"{dataset}_")]
    assert len(set(sets)) == 1
    assert len(sets[0]) == classes


def write(tmp_path, content):
    file = tmp_path / "mine.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


STEP = {"classes": ["liver"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{nonsense", "mine.json is not valid JSON"),
        ([], "holds a list, but must hold a JSON object in braces. A schedule has"),
        ({"name": "a", "steps": []}, "'steps' must be a list with at least one step"),
        ({"name": "a__b", "steps": [STEP]}, "'name' is 'a__b'"),
        ({"name": "a", "stepps": [STEP]}, r"unknown key 'stepps' \(did you mean 'steps'\?\)"),
        ({"name": "a", "steps": [{"clases": ["x"]}]}, r"step 0: unknown key 'clases' \(did you mean 'classes'\?\)"),
        ({"name": "a", "steps": [{"classes": []}]}, "step 0: 'classes' must be a list of at least one"),
        ({"name": "a", "steps": [STEP, STEP]}, "'liver' is named twice, in step 0 and in step 1"),
        ({"name": "a", "steps": [{"classes": ["background"]}]}, "'background' is not a class to learn"),
        ({"name": "a", "steps": None}, "'steps' must be a list with at least one step"),
        ({"name": "a", "steps": {"0": STEP}}, "'steps' must be a list with at least one step"),
        ({"name": "a", "steps": [["liver"]]}, "step 0: a step is a JSON object with 'classes'"),
        ({"name": "a", "steps": [None]}, "step 0: a step is a JSON object with 'classes'"),
        ({"name": "a", "steps": [STEP, {"classes": "spleen"}]}, "step 1: 'classes' must be a list of at least one"),
        ({"name": "a", "steps": [{"classes": ["liver", ""]}]}, "step 0: 'classes' must be a list of at least one"),
        ({"name": "a", "steps": [{"classes": [" "]}]}, "step 0: 'classes' must be a list of at least one"),
        ({"name": "a", "steps": [{"classes": ["a\nb"]}]}, "step 0: 'classes' must be a list of at least one"),
        ({"name": "a", "steps": [{"classes": [1]}]}, "step 0: 'classes' must be a list of at least one"),
        ({"name": "a", "steps": [{"classes": ["ignore"]}]}, "'ignore' is not a class to learn"),
        ({"name": ["a"], "steps": [STEP]}, r"'name' is \['a'\], but it becomes part of a folder's name"),
        ({"name": "n" * 9000 + "/", "steps": [STEP]}, r"'name' is 'n+\.\.\., but it becomes part"),
        ({"steps": [STEP]}, "'name' is None, but it becomes part of a folder's name"),
        ({"name": "a", "steps": [STEP], "cases": ["shared"]}, r"'cases' is \['shared'\], but must be"),
        ({"name": "a", "steps": [STEP], "cases": None}, "'cases' is None, but must be"),
        ({"name": "a", "steps": [STEP], "citation": None}, "'citation' is None, but must be a text"),
        ({"name": "a", "steps": [STEP], "citation": {"doi": 1}}, "'citation' is .'doi': 1., but must be a text"),
        ({"name": "a", "steps": [STEP], "training": None}, "'training' must be a JSON object of settings"),
        ({"name": "a", "steps": [STEP], "hyperparameters": [1]}, "'hyperparameters' must be a JSON object of settings"),
        (
            {"name": "a", "steps": [STEP], "training": {"mirror_axes": None}},
            "'mirror_axes' is None, but must be a list",
        ),
        ({"name": "a", "steps": [STEP], "training": {"mirror_axes": [True]}}, r"'mirror_axes' is \[True\]"),
        ({"name": "a", "steps": [STEP], "training": {"optimizer": ["SGD"]}}, "'optimizer' is .* but must be one of"),
        ({"name": "a", "steps": [STEP], "cases": "dealt"}, "'cases' is 'dealt', but must be 'shared' or 'disjoint'"),
        ({"name": "a", "steps": [STEP], "training": {"num_epoch": 3}}, r"'num_epoch' \(did you mean 'num_epochs'\?\)"),
        (
            {"name": "a", "steps": [STEP], "training": {"num_epochs": "3"}},
            "'num_epochs' is '3', but must be a whole number from 1 to 1000000",
        ),
        ({"name": "a", "steps": [STEP], "training": {"num_epochs": True}}, "'num_epochs' is True"),
        ({"name": "a", "steps": [STEP], "training": {"mirror_axes": [3]}}, r"'mirror_axes' is \[3\]"),
        ({"name": "a", "steps": [STEP], "training": {"mirror_axes": [[0]]}}, r"'mirror_axes' is \[\[0\]\]"),
        ({"name": "a", "steps": [STEP], "training": {"mirror_axes": [0, 0]}}, r"'mirror_axes' is \[0, 0\]"),
        ({"name": "a_", "steps": [STEP]}, "'name' is 'a_'"),
        (
            {"name": "a", "steps": [STEP], "training": {"oversample_foreground_percent": 33}},
            "'oversample_foreground_percent' is 33, but must be a number from 0 to 1",
        ),
        (
            {"name": "a", "steps": [{**STEP, "training": {"initial_lr": -1}}]},
            "step 0: training setting 'initial_lr' is -1",
        ),
        (
            {"name": "a", "steps": [{**STEP, "training": {"optimizer": "Adam"}}]},
            "step 0: training setting 'optimizer' is 'Adam', but must be one of SGD, AdamW",
        ),
    ],
)
def test_bad_schedules_are_refused(tmp_path, content, message):
    with pytest.raises(CILError, match=message):
        load_schedule(write(tmp_path, content))


@pytest.mark.parametrize("value", ["Spleen", "", 0, 10**20, "0", True, 1.5, None, ["18"], "Dataset18_Spleen"])
def test_a_data_set_that_nnunet_could_not_have_is_refused(tmp_path, value):
    with pytest.raises(CILError, match=r"step 0: 'dataset' is .*nnU-Net's name or ID .*\"Dataset018_Spleen\" or 18"):
        load_schedule(write(tmp_path, {"name": "a", "steps": [STEP | {"dataset": value}]}))


def test_a_step_may_name_its_data_set(tmp_path):
    steps = [{"classes": [c], **d} for c, d in (("a", {}), ("b", {"dataset": 18}), ("c", {"dataset": "Dataset018_X"}))]
    schedule = load_schedule(write(tmp_path, {"name": "a", "steps": steps}))
    assert [s.dataset for s in schedule.steps] == [None, "18", "Dataset018_X"]


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 3000, "."])
def test_a_name_that_can_be_no_file_is_no_schedule(name):
    with pytest.raises(CILError, match="There is no schedule"):
        load_schedule(name)


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(CILError, match=r"no schedule 'openkbp_221'.*did you mean 'openkbp_2-2-1'"):
        load_schedule("openkbp_221")


def test_a_step_overrides_the_schedules_training(tmp_path):
    schedule = load_schedule(
        write(
            tmp_path,
            {
                "name": "a",
                "training": {"num_epochs": 9, "initial_lr": 0.1},
                "steps": [STEP, {"classes": ["spleen"], "training": {"num_epochs": 3}}],
            },
        )
    )
    assert [dict(s.training) for s in schedule.steps] == [
        {"num_epochs": 9, "initial_lr": 0.1},
        {"num_epochs": 3, "initial_lr": 0.1},
    ]


def test_the_list_of_schedules_is_up_to_date():
    """If this fails: nnunet_cil schedules --markdown > plans/README.md."""
    assert (Path(__file__).parents[1] / "plans" / "README.md").read_text(encoding="utf-8") == readme()
