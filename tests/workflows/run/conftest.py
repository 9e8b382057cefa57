"""Fixtures of the launchers."""

import pytest
from toy import DATASET, write_schedule
from toy_jobs import MIB, PGCD, STEPS

from nnunet_cil.workflows.experiment import Experiment


@pytest.fixture
def experiment(toy, tmp_path):
    return Experiment(
        dataset=DATASET,
        configuration="3d_fullres",
        folds=(0,),
        schedule_name=write_schedule(tmp_path, STEPS),
        trainers=(PGCD, MIB),
    )
