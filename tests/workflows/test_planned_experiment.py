"""An experiment's models come from the plans of its steps, which are read once."""

import json
from dataclasses import replace

import pytest
from toy import DATASET, ORGANS, write_schedule

from nnunet_cil.errors import CILError
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.plan.plan import plan
from nnunet_cil.workflows.planned_experiment import PlannedExperiment

PGCD, MIB = "nnUNetTrainerPGCD", "nnUNetTrainerMiB"


@pytest.fixture
def experiment(toy, tmp_path):
    return Experiment(
        dataset="17",
        configuration="3d_fullres",
        folds=(0, 1),
        schedule_name=write_schedule(tmp_path, [ORGANS[:2], ORGANS[2:3], ORGANS[3:]]),
        trainers=(MIB, PGCD),
    )


def test_a_shared_step_0_is_there_once_and_first(experiment):
    plan(17, experiment.schedule_name, first_trainer=PGCD)
    planned = PlannedExperiment.read(experiment)
    assert [(m.trainer, m.step) for m in planned.models()] == [(PGCD, 0), (MIB, 1), (MIB, 2), (PGCD, 1), (PGCD, 2)]
    assert [m.trainer for m in planned.models_of(MIB)] == [PGCD, MIB, MIB]
    assert [m.fold for m in planned.model_folds()] == [0] * 5 + [1] * 5
    folder = planned.models()[1].folder
    assert folder.parts[-2:] == (DATASET, f"{MIB}__nnUNetPlans_toy_step1__3d_fullres")


def test_each_trainers_models_follow_each_other_in_every_fold(experiment):
    plan(17, experiment.schedule_name)
    found = [
        (earlier.trainer, earlier.step, later.trainer, later.step, earlier.fold, later.fold)
        for earlier, later in PlannedExperiment.read(experiment).successions()
    ]
    assert found == [(t, s, t, s + 1, fold, fold) for t in (MIB, PGCD) for s in (0, 1) for fold in (0, 1)]


def test_the_plans_of_a_renamed_data_set_are_refused(experiment, toy):
    plan(17, experiment.schedule_name)
    renamed = toy.rename(toy.parent / "Dataset017_Abdomen")
    (toy.parents[1] / "raw" / DATASET).rename(toy.parents[1] / "raw" / renamed.name)
    with pytest.raises(
        CILError, match=rf"_step0\.json says that it is of the data set '{DATASET}'.* 'nnunet_cil plan' again"
    ):
        PlannedExperiment.read(replace(experiment, dataset="Dataset017_Abdomen"))
    with pytest.raises(
        CILError, match=r"nnUNetPlans\.json says .*write \"dataset_name\": \"Dataset017_Abdomen\" there"
    ):
        plan(17, experiment.schedule_name)
    base = json.loads((renamed / "nnUNetPlans.json").read_text())
    (renamed / "nnUNetPlans.json").write_text(json.dumps({**base, "dataset_name": renamed.name}))
    plan(17, experiment.schedule_name)
    assert PlannedExperiment.read(replace(experiment, dataset="17")).models()[0].dataset == renamed.name


def test_steps_that_are_not_planned_name_the_command(experiment):
    with pytest.raises(CILError, match=f"Run 'nnunet_cil plan {DATASET} .* -p nnUNetPlans' first"):
        PlannedExperiment.read(experiment)
