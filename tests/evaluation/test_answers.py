"""The sentences that a report opens with say what the scores do, and no more."""

import math

import pytest

from nnunet_cil.evaluation.answers import answers
from nnunet_cil.evaluation.results import JOINT, ranked, results
from nnunet_cil.evaluation.scores import score_table

STEPS = [["liver", "aorta"], ["spleen"]]


def content(scores, differences=(), steps=STEPS):
    """The content of an evaluation.

    Args:
        scores: method -> Dice of each class after each step.
        differences: (method, difference, low, high) to the best in all classes.
        steps: the classes of each step.
    """
    table = score_table(
        {"trainer": trainer, "step": step, "fold": 0, "case": "k", "class": name, "dice": dice}
        for trainer, per_step in scores.items()
        for step, dices in enumerate(per_step)
        for name, dice in dices.items()
    )
    to_best = [
        {"group": "all", "method": m, "difference": d, "low": low, "high": high, "num_trainings": 2}
        for m, d, low, high in differences
    ]
    return {"steps": steps, "trainers": results(table, steps), "differences_to_best": to_best}


FIRST = {"liver": 0.9, "aorta": 0.8}
KEEPS = [FIRST, {"liver": 0.9, "aorta": 0.7, "spleen": 0.6}]
LEARNS = [FIRST, {"liver": 0.5, "aorta": 0.3, "spleen": 0.8}]
FORGETS = [FIRST, {"liver": 0.0, "aorta": 0.0, "spleen": 0.7}]
THREE = {"nnUNetTrainerForgets": FORGETS, "nnUNetTrainerKeeps": KEEPS, "nnUNetTrainerLearns": LEARNS}
BEHIND_BY = {"Learns": ("nnUNetTrainerLearns", -0.2, -0.3, 0.1), "Forgets": ("nnUNetTrainerForgets", -0.5, -0.6, -0.4)}


def texts(*arguments, **options):
    return {answer.question: answer.text for answer in answers(content(*arguments, **options))}


def test_methods_are_named_where_they_kept_and_learnt_most_and_least():
    found = texts(THREE, BEHIND_BY.values())
    assert list(found)[1:] == ["What was kept?", "What was learnt?"]
    assert found["What was kept?"] == (
        "Keeps kept most: its old classes end at 0.800, 0.050 below their best (aorta has lost most, 0.100). Forgets kept "
        "least: 0.000, 0.850 below their best."
    )
    assert found["What was learnt?"] == (
        "Learns learnt most: new classes have 0.800 right after their step. Keeps least: 0.600."
    )


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        (
            [*BEHIND_BY.values()],
            ". It is ahead of Forgets by more than its interval, but not of Learns. The next is Learns, at -0.200 (-0.300 to "
            "+0.100).",
        ),
        (
            [BEHIND_BY["Forgets"]],
            ", ahead of every other by more than its interval. The next is Forgets, at -0.500 (-0.600 to -0.400).",
        ),
        (
            [BEHIND_BY["Learns"]],
            ", but not by more than its interval: Learns may be as good. The next is Learns, at -0.200 (-0.300 to +0.100).",
        ),
        ([("nnUNetTrainerLearns", -0.2, math.nan, math.nan)], ". One case and one training tell no interval."),
    ],
)
def test_the_best_is_ahead_only_where_the_interval_leaves_out_0(differences, expected):
    lead = next(iter(texts(THREE, differences).values()))
    assert lead == f"Keeps, with a mean Dice of 0.733 over all classes after the last step{expected}"


def test_joint_training_which_has_all_labels_is_no_rival():
    scores = {JOINT: [FIRST, {"liver": 0.95, "aorta": 0.95, "spleen": 0.95}], "nnUNetTrainerKeeps": KEEPS}
    assert ranked(content(scores)["trainers"]) == ["nnUNetTrainerKeeps", JOINT]
    assert texts(scores)["How good is it?"] == "All classes have a mean Dice of 0.733 after the last step with Keeps."


def test_a_schedule_of_one_step_has_nothing_to_keep():
    found = texts({"nnUNetTrainerKeeps": [FIRST]}, steps=STEPS[:1])
    assert list(found) == ["How good is it?"]


def test_what_is_kept_as_it_was_has_lost_nothing():
    found = texts({"nnUNetTrainerKeeps": [FIRST, {**FIRST, "spleen": 0.6}]})
    assert found["What was kept?"] == "Old classes end at 0.850, as good as ever."
    assert found["What was learnt?"] == "New classes have 0.600 right after their step."


def test_what_no_scored_case_shows_is_named():
    nan = math.nan
    scores = {
        "nnUNetTrainerKeeps": [FIRST, {"liver": 0.9, "aorta": nan, "spleen": 0.6}],
        "nnUNetTrainerLearns": [FIRST, {"liver": 0.5, "aorta": nan}],
    }
    found = texts(scores, [("nnUNetTrainerLearns", -0.2, -0.3, 0.1)])
    assert found["What was not scored?"] == "aorta: no scored case shows it, so every mean is without it."
    both = [FIRST, {"liver": 0.5}]
    several = texts({"nnUNetTrainerKeeps": both})
    assert several["What was not scored?"].startswith("aorta and spleen: no scored case shows them,")
    assert several["What was learnt?"] == "No scored case shows a new class."
    assert "What was not scored?" not in texts({"nnUNetTrainerKeeps": KEEPS})
