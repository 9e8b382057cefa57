"""The state of a step in its checkpoint."""

import pytest
import torch

from nnunet_cil.errors import CILError
from nnunet_cil.lineage import foreign_record
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.training.state import StepState

INIT_ARGS = {
    "plans": {"dataset_name": "Dataset017_Toy", "plans_name": "nnUNetPlans"},
    "dataset_json": {},
    "configuration": "2d",
    "fold": 0,
}


def test_the_state_of_a_step_survives_its_checkpoint():
    bank = PrototypeBank(torch.randn(3, 4), torch.tensor([5.0, 0.0, 2.0], dtype=torch.float64))
    record = foreign_record({"init_args": INIT_ARGS}, ["a", "b"])
    state = StepState(
        classes=("a", "b"),
        lineage=(record,),
        prototypes=bank,
        stray_free=("b",),
        method_state={"importances": {"x": torch.ones(2)}},
    )
    found = StepState.from_checkpoint({"network_weights": {}, **state.to_checkpoint()})
    assert (found.classes, found.lineage, found.stray_free) == (("a", "b"), (record,), ("b",))
    assert torch.equal(found.prototypes.prototypes, bank.prototypes)
    assert torch.equal(found.prototypes.counts, bank.counts)
    assert torch.equal(found.method_state["importances"]["x"], torch.ones(2))


def test_a_checkpoint_without_a_state_has_none():
    assert StepState.from_checkpoint({"network_weights": {}}) is None


def test_the_state_of_a_later_version_is_refused():
    state = StepState(classes=("a",), lineage=()).to_checkpoint()
    (content,) = state.values()
    content["schema_version"] += 1
    with pytest.raises(CILError, match=r"by a later version of nnunet_cil .*Update nnunet_cil"):
        StepState.from_checkpoint(state)
