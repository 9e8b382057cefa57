"""Checks that a trainer which cannot learn from a step's labels is refused with one that can."""

import re
from functools import cache

import pytest
from toy import set_environment

from nnunet_cil.errors import CILError
from nnunet_cil.shipped import trainer_names
from nnunet_cil.step_plans import StepPlan
from nnunet_cil.training import catalogue
from nnunet_cil.training.catalogue import check_data, trainer_class

LABELS = {"background": 0, "left": 1, "right": 2, "tumour": 3}
REGIONS = {"background": 0, "left": [1, 2], "right": 2, "tumour": 3}
found = cache(trainer_class)  # nnU-Net's search takes a while
ADVICE = re.compile(r" Use ((?:nnUNetTrainer\w+(?: or )?)+)\.$")


@pytest.mark.parametrize("has_new", [True, False])
@pytest.mark.parametrize("refined", [(), ("right",)])
@pytest.mark.parametrize("is_partial", [False, True])
@pytest.mark.parametrize("has_regions", [False, True])
def test_trainers_that_a_refusal_names_are_not_refused(
    monkeypatch, tmp_path, has_regions, is_partial, refined, has_new
):
    set_environment(monkeypatch, tmp_path)
    monkeypatch.setattr(catalogue, "trainer_class", found)
    labels = REGIONS if has_regions else LABELS
    new = ("tumour",) if has_new else ()
    step = StepPlan(
        **{"schedule": "s", "step": 1, "steps": (("left", "right"), new), "refined": refined},
        **{"dataset_labels": labels, "labels": labels, "regions_class_order": (1, 2, 3) if has_regions else ()},
        labelled={"a": ("right",)} if is_partial else {},
    )
    learns, refused = [], {}
    for name in trainer_names():
        try:
            check_data(found(name), step, "Dataset001_A")
            learns.append(name)
        except CILError as error:
            refused[name] = ADVICE.search(str(error))
    assert "nnUNetTrainerPGCD" in learns
    for name, advice in refused.items():
        named = advice[1].split(" or ")
        assert "nnUNetTrainerPGCD" in named
        assert set(named) <= set(learns) - {name}
