"""The fold that a trainer trains on: its cases, and the classes that they show."""

import json

import blosc2
import pytest
from toy import ORGANS, make_trainer, plan_toy, train

from nnunet_cil.errors import CILError
from nnunet_cil.training.final_validation import _prepare_folder

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


def leave_organ_in(toy, label, *cases):
    """Takes an organ out of all preprocessed cases but some."""
    for file in (toy / "nnUNetPlans_3d_fullres").glob("*_seg.b2nd"):
        if file.name.removesuffix("_seg.b2nd") not in cases:
            labels = blosc2.open(str(file))[:]
            file.unlink()
            blosc2.asarray(labels * (labels != label), urlpath=str(file))


@pytest.mark.parametrize("trainer", ["nnUNetTrainerPGCD", "nnUNetTrainerJoint", "nnUNetTrainerReplay"])
def test_a_class_that_no_training_case_of_the_fold_shows_is_refused_before_the_training(toy, tmp_path, trainer):
    """Cases 4 and 5 validate fold 0, cases 0 and 1 validate fold 1."""
    name = plan_toy(tmp_path, [ORGANS[:2], ORGANS[2:]])[1]
    leave_organ_in(toy, 4, "case_4", "case_0")
    write_split(toy, (CASES[1:4], CASES[4:]), (CASES[3:], CASES[:1]))
    begun = make_trainer(trainer, name)
    begun.initialize = lambda: setattr(begun, "was_initialized", True)  # builds the network
    with pytest.raises(
        CILError, match=r"Step 1 of toy learns 'cyst' .* no training case of fold 0 .*'case_4'.*leaves out.*'case_0'"
    ):
        begun.on_train_start()
    with pytest.raises(CILError, match="The previous step has to be trained first"):
        make_trainer(trainer, name, fold=1).on_train_start()


def test_cases_that_are_in_no_fold_are_told_in_the_log(toy, tmp_path, capsys):
    write_split(toy, (CASES[:2], CASES[2:4]))
    name = plan_toy(tmp_path, [ORGANS])[0]
    train("nnUNetTrainerPGCD", name)
    assert "does not list 2 of the 6 cases ('case_4', 'case_5')" in capsys.readouterr().out


def test_replay_learns_new_classes_from_the_cases_of_its_step_alone(toy, tmp_path):
    names = plan_toy(tmp_path, [ORGANS[:2], ORGANS[2:]], cases="disjoint", hyperparameters={"replay_cases": 6})
    train("nnUNetTrainerReplay", names[0])
    trainer = make_trainer("nnUNetTrainerReplay", names[1])
    leave_organ_in(toy, 3, *trainer.kept_cases)
    with pytest.raises(CILError, match=r"learns 'kidney' .* only cases of other steps"):
        trainer.on_train_start()


def test_cases_that_label_other_classes_than_was_planned_are_refused(toy, tmp_path):
    name = plan_toy(tmp_path, [ORGANS])[0]
    file = toy / "dataset.json"
    patterns = {"case_[24]": ["liver"], "*": list(ORGANS)}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"labelled_classes": patterns}))
    with pytest.raises(
        CILError, match=r"says of 'case_2', 'case_4' something else than when step 0 of toy was planned"
    ):
        make_trainer("nnUNetTrainerPGCD", name).on_train_start()


def test_a_validation_leaves_no_probabilities_of_an_earlier_model(tmp_path):
    for name in ("a.1.nii.gz", "a.1.npz", "a.1.pkl", "b.nii.gz", "b.npz", "summary.json", "notes.txt"):
        (tmp_path / name).touch()
    _prepare_folder(tmp_path, ["a.1"], ".nii.gz")
    assert {file.name for file in tmp_path.iterdir()} == {"a.1.nii.gz", "notes.txt"}
