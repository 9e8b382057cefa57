"""A training that is left to do: how many of its epochs are left."""

from types import SimpleNamespace

import pytest
from toy_models import write_model

from nnunet_cil.workflows.model_fold import ModelFold
from nnunet_cil.workflows.run.trainings import Training


@pytest.mark.parametrize(("checkpoint", "left"), [(None, 20), ("latest", 13), ("final", 0)])
def test_the_epochs_that_are_left_are_those_behind_the_newest_checkpoint(tmp_path, checkpoint, left):
    model = ModelFold(SimpleNamespace(folder=tmp_path, plan=SimpleNamespace(num_epochs=20)), 1)
    model.folder.mkdir()
    if checkpoint:
        write_model(model.folder / f"checkpoint_{checkpoint}.pth", "nnUNetPlans", current_epoch=7)
    assert Training(model=model).epochs_left == left
