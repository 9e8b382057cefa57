"""benchmarks/extension_length.py and few_cases.py: which trainings they plan, and the tables that they print."""

import extension_length
import extensions
import few_cases
import pytest
import scores
from study_tables import schedule_file

from nnunet_cil.errors import CILError
from nnunet_cil.schedule import load_schedule
from nnunet_cil.step_plans import PreviousModel, StepPlan

OLD, NEW = ("Brainstem", "SpinalCord"), ("Mandible",)
STEP = StepPlan(
    schedule="toy",
    step=1,
    steps=(OLD, NEW),
    dataset_labels={"background": 0, "Brainstem": 1, "SpinalCord": 2, "Mandible": 5},
    labels={"background": 0, "Brainstem": 1, "SpinalCord": 2, "Mandible": 3},
    cases=("b", "d", *(f"case_{i}" for i in range(12))),
    previous=PreviousModel(dataset="Dataset900_OpenKBP", plans="toy_step0"),
    training={"num_epochs": 32, "initial_lr": 0.003},
)


@pytest.fixture(scope="module")
def schedule():
    return load_schedule(schedule_file("openkbp_2-1_extension"))


def rows(method, setting, cases, dice):
    """Rows of one training of fold 0: class -> Dice of each case."""
    model = {"method": method, "setting": setting, "step": "1" if method else "0", "fold": "0", "cases": cases}
    return [
        {**model, "class": name, "case": str(i), "dice": str(value)}
        for name, values in dice.items()
        for i, value in enumerate(values)
    ]


@pytest.mark.parametrize("name", ["openkbp_2-1_extension", "acdc_2-1_extension"])
def test_the_shipped_schedules_are_extensions_whose_lengths_are_whole_epochs(name):
    schedule = load_schedule(schedule_file(name))
    extensions.check_schedule(schedule)
    found = extension_length.planned(extension_length.full_length(schedule), extension_length.PARTS, "PGCD")
    assert [(e.method, e.num_epochs) for e in found] == [
        *(("PGCD", n) for n in (2, 4, 8, 16)),
        ("Alone", 32),
        ("PGCD", 32),
    ]


def test_a_schedule_of_three_steps_is_refused():
    with pytest.raises(CILError, match="must have two steps and disjoint cases"):
        extensions.check_schedule(load_schedule(schedule_file("openkbp_2-2-1_disjoint_short")))


def test_an_extension_continues_the_base_model_for_its_length():
    short, alone = (e.plan(STEP) for e in extension_length.planned(32, (16,), "PGCD")[::-1])
    assert (short.num_epochs, short.training["initial_lr"], short.cases) == (2, 0.003, STEP.cases)
    assert short.previous.trainer == extensions.BASE_TRAINER
    assert (short.old_classes, short.new_classes) == (OLD, NEW)
    assert (alone.previous, alone.seen_classes, alone.num_epochs) == (None, NEW, 32)


def test_another_learning_rate_is_a_row_of_full_length():
    *_, slow = extension_length.planned(32, (16, 1), "MiB", [0.0004])
    plan = slow.plan(STEP)
    assert (plan.num_epochs, plan.training["initial_lr"]) == (32, 0.0004)
    assert (slow.setting, slow.suffix) == ("num_epochs=32,initial_lr=0.0004", "length32_lr0p0004")
    cells = extension_length.cells(32, [slow])
    assert cells["MiB", slow.setting] == ["extended (MiB), learning rate 0.0004", "32", "1"]


def test_a_larger_draw_holds_the_smaller_and_never_more_than_the_steps_own_cases():
    fold = ([f"case_{i}" for i in range(12)] + ["of_step_0"], ["a", "b"])
    found = list(few_cases.planned(STEP, fold, 16, ["PGCD", "FineTune"]))
    assert len({e.suffix + e.method for e in found}) == len(found) == 3 * 3 * 2
    by_number = [set(e.cases) for e in found if e.method == "PGCD" and "draw=1" in e.setting]
    assert [len(cases) for cases in by_number] == [4, 6, 11]  # and the validation case
    assert by_number[0] < by_number[1] < by_number[2] < set(STEP.cases)
    assert all("b" in cases for cases in by_number)
    assert len({e.cases for e in found if "cases=3," in e.setting}) == few_cases.DRAWS
    with pytest.raises(CILError, match="has 2 training cases, but up to 10"):
        list(few_cases.planned(STEP, (["case_1", "case_2"], []), 16, ["PGCD"]))


def test_the_table_over_the_length_has_the_model_before_and_what_agrees_with_it(schedule, tmp_path):
    file = tmp_path / "scores.csv"
    scores.write_rows(
        file,
        [
            *rows("", "", "validation", {"Brainstem": [0.8, 0.6], "SpinalCord": [0.5, 0.7]}),
            *rows("PGCD", "num_epochs=2", "validation", {"Brainstem": [0.8], "SpinalCord": [0.6], "Mandible": [0.4]}),
            *rows("PGCD", "num_epochs=2", "agreement", {"Brainstem": [0.9], "SpinalCord": [1.0]}),
            *rows("Alone", "num_epochs=32", "validation", {"Mandible": [0.75]}),
        ],
    )
    lengths = extension_length.cells(32, extension_length.planned(32, (16, 1), "PGCD"))
    found = extensions.table(file, schedule, ["model", "epochs", "share"], lengths).splitlines()
    assert found[0].endswith("| Brainstem | SpinalCord | Mandible | old | new | agreement |")
    assert found[2:] == [
        "| the model before |  |  | 0.700 | 0.600 |  | 0.650 |  |  |",
        "| extended (PGCD) | 2 | 0.0625 | 0.800 | 0.600 | 0.400 | 0.700 | 0.400 | 0.950 |",
        "| new classes alone | 32 | 1 |  |  | 0.750 |  | 0.750 |  |",
    ]


def test_the_table_of_few_cases_has_the_draws_of_a_number_in_one_row(schedule, tmp_path):
    file = tmp_path / "scores.csv"
    dice = ({"Brainstem": [0.8], "SpinalCord": [0.6], "Mandible": [value]} for value in (0.2, 0.6))
    settings = (f"cases=5,draw={draw},num_epochs=16" for draw in (0, 1))
    found = [row for s, d in zip(settings, dice, strict=True) for row in rows("PGCD", s, "validation", d)]
    scores.write_rows(file, found)
    planned = list(few_cases.planned(None, ((), ()), 16, ["PGCD", "FineTune"]))
    (row,) = extensions.table(
        file, schedule, ["cases", "method"], few_cases.cells(planned, ["PGCD", "FineTune"])
    ).splitlines()[2:]
    assert row.startswith("| 5 | PGCD | 0.800 (0.800 to 0.800) |")
    assert row.endswith("| 0.400 (0.200 to 0.600) |  |")
