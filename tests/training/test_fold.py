"""The fold that a trainer trains on: its cases, and the classes that they show."""

import json

import pytest
from toy import make_trainer, plan_toy

from nnunet_cil.errors import CILError

CASES = [f"case_{i}" for i in range(6)]


def write_split(toy, *folds):
    (toy / "splits_final.json").write_text(
        json.dumps([dict(zip(("train", "val"), fold, strict=True)) for fold in folds])
    )


@pytest.mark.parametrize("fold", [2, 7, -1])
def test_a_fold_that_the_split_lacks_is_not_replaced_by_a_random_one(toy, tmp_path, fold):
    name = plan_toy(tmp_path)[0]
    with pytest.raises(CILError, match=rf"There is no fold {fold}: .*splits_final.json has folds 0 to 1 only"):
        make_trainer("nnUNetTrainerPGCD", name, fold=fold).do_split()


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        ((CASES[:4], ["case_4", "case_6"]), "fold 0 names 'case_6', which Dataset017_Toy does not have"),
        ((CASES[:5], CASES[4:]), "fold 0 has 'case_4' in 'train' and in 'val'"),
        (([], CASES), "fold 0 has no case in 'train'"),
        ((None, CASES), "fold 0 must be"),
    ],
)
def test_a_split_that_cannot_be_used_is_refused(toy, tmp_path, fold, message):
    trainer = make_trainer("nnUNetTrainerPGCD", plan_toy(tmp_path)[0])
    write_split(toy, fold)
    with pytest.raises(CILError, match=message):
        trainer.do_split()
    assert len(make_trainer("nnUNetTrainerPGCD", "nnUNetPlans_toy_step0", fold="all").do_split()[0]) == 6


def test_a_case_that_is_half_there_is_refused(toy, tmp_path):
    trainer = make_trainer("nnUNetTrainerPGCD", plan_toy(tmp_path)[0])
    (toy / "nnUNetPlans_3d_fullres" / "case_2.b2nd").unlink()
    with pytest.raises(CILError, match=r"Case 'case_2' in .*3d_fullres is incomplete \(case_2.b2nd is missing\)"):
        trainer.do_split()


def test_fewer_cases_than_folds_are_refused(toy, tmp_path):
    trainer = make_trainer("nnUNetTrainerPGCD", plan_toy(tmp_path)[0])
    (toy / "splits_final.json").unlink()
    for i in (1, 3):
        for file in (toy / "nnUNetPlans_3d_fullres").glob(f"case_{i}*"):
            file.unlink()
    with pytest.raises(CILError, match="has 4 training cases, but nnU-Net's split into 5 folds needs 5"):
        trainer.do_split()
    assert not (toy / "splits_final.json").exists()
