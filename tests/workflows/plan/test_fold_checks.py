"""Which folds of a schedule's data sets can be trained, before anything is."""

import json
import logging
from pathlib import Path

import blosc2
import pytest
from toy import DATASET, ORGANS, make_raw, write_schedule
from toy_sequence import MOVED, NEW, NEW_LABELS, PGCD, schedule_file

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.schedule import Schedule, Step
from nnunet_cil.step_plans import plan_steps
from nnunet_cil.workflows.plan.fold_checks import check_folds, note_folds
from nnunet_cil.workflows.plan.plan import plan
from nnunet_cil.workflows.plan.preprocessed_data import PreprocessedData
from nnunet_cil.workflows.plan.step_files import check_length

LABELS = {"background": 0, "liver": 1, "spleen": 2}
CASES = [f"c{i}" for i in range(6)]


def data_set(folder, shown, *configurations, folds=(((0, 1, 2, 3), (4, 5)), ((2, 3, 4, 5), (0, 1)))):
    """A preprocessed data set whose cases all have a liver, and those in ``shown`` a spleen; changes by configuration."""
    folder.mkdir(exist_ok=True)
    split = [{"train": [f"c{i}" for i in train], "val": [f"c{i}" for i in val]} for train, val in folds]
    (folder / "splits_final.json").write_text(json.dumps(split))
    present = {
        name: {case: {0, 1, *([2] if i in where else [])} for i, case in enumerate(CASES)}
        for name, where in {"3d_fullres": shown, **dict(configurations)}.items()
    }
    return PreprocessedData(folder=folder, dataset_json={"labels": LABELS}, plans={}, present=present)


def steps_on(*data, cases=(None, None)):
    schedule = Schedule(name="two", steps=(Step(classes=("liver",)), Step(classes=("spleen",))))
    names = [d.folder.name for d in data]
    return plan_steps(schedule, names, [d.dataset_json for d in data], ["p_step0", "p_step1"], cases), data


def test_the_folds_that_are_asked_for_count(tmp_path):
    steps, data = steps_on(*[data_set(tmp_path / "A", {4})] * 2)
    check_folds(steps, data, [1, "all"])
    with pytest.raises(CILError, match=r"Step 1 of two learns 'spleen' .* no training case of fold 0 of A"):
        check_folds(steps, data, [1, 0])
    with pytest.raises(CILError, match=r"There is no fold 2: .*A/splits_final.json has folds 0 to 1 only"):
        check_folds(steps, data, [2])


def test_a_fold_that_cannot_be_trained_is_noted_as_long_as_another_can(tmp_path, caplog):
    caplog.set_level(logging.INFO, "nnunet_cil")
    steps, data = steps_on(*[data_set(tmp_path / "A", {4})] * 2)
    assert note_folds(steps, data, force=False) == [1]
    (note,) = caplog.messages
    assert note.startswith(
        "Note: Step 1 of two learns 'spleen' (label 2), but no training case of fold 0 of A shows it"
    )


def test_where_no_fold_can_be_trained_fold_all_is_left(tmp_path, caplog):
    caplog.set_level(logging.INFO, "nnunet_cil")
    folds = (((0, 1), (4, 5)), ((2, 3), (4, 5)))
    assert note_folds(*steps_on(*[data_set(tmp_path / "A", {4}, folds=folds)] * 2), force=False) == ["all"]
    first, second, last = caplog.messages
    assert "fold 0" in first
    assert "fold 1" in second
    assert last == "Note: No fold can be trained as it is, except all."


def test_a_fold_must_be_there_in_every_data_set(tmp_path, caplog):
    caplog.set_level(logging.INFO, "nnunet_cil")
    two, one = data_set(tmp_path / "A", {0}), data_set(tmp_path / "B", {3}, folds=(((0, 3), (1,)),))
    note_folds(*steps_on(two, one), force=False)
    missing, unlisted = caplog.messages[0], caplog.messages[1:]
    assert "There is no fold 1" in missing
    assert "B/splits_final.json has fold 0 only" in missing
    assert not unlisted


def test_a_class_that_one_configuration_lacks_is_told_with_it(tmp_path):
    found = data_set(tmp_path / "A", {0, 4}, ("2d", {4}), ("3d_lowres", {0}))
    with pytest.raises(CILError, match=r"^In 2d: Step 1 of two learns 'spleen'"):
        check_folds(*steps_on(found, found), [0])


def test_hands_that_are_empty_in_a_fold_are_told_before_any_training(tmp_path):
    found = data_set(tmp_path / "A", {0, 1, 2, 3, 4})
    steps, data = steps_on(found, found, cases=(("c0", "c4"), ("c1", "c2")))
    with pytest.raises(CILError, match="Fold 0 of A has no validation case among the 2 cases of step 1"):
        check_folds(steps, data, [0])


def leave_organ_in(toy, label, *cases, configurations=("2d", "3d_fullres")):
    """Takes an organ out of all preprocessed cases but some."""
    for configuration in configurations:
        for file in (toy / f"nnUNetPlans_{configuration}").glob("*_seg.b2nd"):
            if file.name.removesuffix("_seg.b2nd") not in cases:
                labels = blosc2.open(str(file))[:]
                file.unlink()
                blosc2.asarray(labels * (labels != label), urlpath=str(file))


def plans_in(toy):
    return {f.name: f.read_bytes() for f in toy.glob("*.json")}


def test_plan_and_run_say_it_before_anything_is_written_or_trained(toy, tmp_path, capsys):
    """Case 1 validates fold 1."""
    leave_organ_in(toy, 3, "case_1")
    schedule, before = write_schedule(tmp_path, [ORGANS[:2], ORGANS[2:]]), plans_in(toy)
    message = (
        "Step 1 of toy learns 'kidney' (label 3), but no training case of fold 1 of Dataset017_Toy shows it, only "
    )
    for how in ([], ["--dry-run"], ["--launcher", "local"]):
        assert main(["run", "17", "3d_fullres", "0", "1", str(schedule), "-tr", PGCD, "-device", "cpu", *how]) == 1
        assert message + "validation cases ('case_1')." in capsys.readouterr().err
        assert plans_in(toy) == before
    assert main(["plan", "17", str(schedule)]) == 0
    assert f"Note: {message}" in capsys.readouterr().out
    assert main(["run", "17", "3d_fullres", "0", str(schedule), "-tr", PGCD, "--dry-run"]) == 0
    assert "Note:" not in capsys.readouterr().out
    (toy / "splits_final.json").write_text(json.dumps([{"train": ["case_0", "case_3"], "val": ["case_1", "case_2"]}]))
    assert main(["plan", "17", str(schedule)]) == 0
    told = capsys.readouterr().out
    assert "fold 0 of Dataset017_Toy shows it" in told
    assert "No fold can be trained as it is, except all" in told
    assert "does not list 2 of the 6 cases ('case_4', 'case_5')" in told


def test_run_looks_at_the_configuration_that_it_trains(toy, tmp_path, capsys):
    leave_organ_in(toy, 4, "case_5", configurations=["2d"])
    schedule = write_schedule(tmp_path, [ORGANS])
    assert main(["run", "17", "3d_fullres", "0", str(schedule), "-tr", PGCD, "--dry-run"]) == 0
    capsys.readouterr()
    assert main(["run", "17", "2d", "0", str(schedule), "-tr", PGCD, "--dry-run"]) == 1
    assert "learns 'cyst' (label 4), but no training case of fold 0" in capsys.readouterr().err
    assert main(["plan", "17", str(schedule)]) == 0
    assert "Note: In 2d: Step 0 of toy learns 'cyst' (label 4)" in capsys.readouterr().out


@pytest.mark.parametrize("num_cases", [1, 4])
def test_a_later_data_set_with_few_cases_is_told_before_it_is_preprocessed(
    toy, tmp_path, monkeypatch, capsys, num_cases
):
    from nnunet_cil.workflows.run import run as running

    monkeypatch.setattr(running, "preprocess", lambda *_: pytest.fail("the long work began"))
    make_raw(tmp_path / "nnunet", NEW, NEW_LABELS, num_cases=num_cases)
    schedule = schedule_file(tmp_path)
    message = (
        f"{NEW} has {num_cases} training cases, but nnU-Net's split into 5 folds needs 5. Add cases, write a split"
    )
    assert main(["run", "17", "3d_fullres", "0", str(schedule), "-tr", PGCD, "-device", "cpu"]) == 1
    assert message in capsys.readouterr().err
    assert not (toy.parent / NEW).exists()
    assert main(["plan", "17", str(schedule)]) == 1
    assert message in (error := capsys.readouterr().err)
    assert "say so with 'nnunet_cil plan ... --force'" in error
    with pytest.raises(CILError, match=f"(?s)not preprocessed with them yet.*{MOVED}"):  # for fold all
        plan(17, schedule, force=True)


def test_a_fold_that_a_later_data_set_lacks_is_told_first(toy, tmp_path, capsys):
    make_raw(tmp_path / "nnunet", NEW, NEW_LABELS)
    (toy.parent / NEW).mkdir()
    split = [{"train": ["new_0", "new_3"], "val": ["new_1"]}]
    (toy.parent / NEW / "splits_final.json").write_text(json.dumps(split))
    assert main(["run", "17", "3d_fullres", "1", str(schedule_file(tmp_path)), "-tr", PGCD, "-device", "cpu"]) == 1
    assert f"There is no fold 1: {toy.parent / NEW / 'splits_final.json'} has fold 0 only" in capsys.readouterr().err


def test_names_that_are_too_long_for_a_folder_are_refused_first(toy, tmp_path, capsys):
    schedule = write_schedule(tmp_path, [ORGANS], name="s")
    schedule.write_text(json.dumps(json.loads(schedule.read_text()) | {"name": "b" * 145}))
    for arguments in (
        ["plan", "17", str(schedule)],
        ["run", "17", "2d", "0", str(schedule), "-tr", "nnUNetTrainerPseudoLabel"],
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert "With nnUNetTrainerPseudoLabel and " in error
        assert "is too long for a folder's. Give the schedule a shorter name" in error
    assert not list(Path(toy).glob("*step0*"))


def test_a_name_counts_with_the_trainer_and_the_configuration():
    """A name has 255 bytes at most; 64 are for what logs, locks and temporary files add."""
    plans = "p" * (255 - 64 - len("nnUNetTrainerMiB____3d_fullres"))
    check_length(plans, ["2d", "3d_fullres"], ["nnUNetTrainerMiB"], "Shorten it.")
    for name, trainer in (
        (plans + "p", "nnUNetTrainerMiB"),
        (plans, "nnUNetTrainerPGCD"),
        ("é" + plans[1:], "nnUNetTrainerMiB"),
    ):
        with pytest.raises(CILError, match=f"With {trainer} and 3d_fullres .* too long for a folder's. Shorten it"):
            check_length(name, ["2d", "3d_fullres"], [trainer], "Shorten it.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("null", "holds null, but must hold a JSON list"),
        ('[{"train": ["case_0"], "val": "case_1"}]', "fold 0 must be"),
        ('[{"train": ["case_0", "case_1"], "val": ["case_1"]}]', "fold 0 has 'case_1' in 'train' and in 'val'"),
        (
            '[{"train": ["case_0", "case_1"], "val": ["case_9"]}]',
            f"fold 0 names 'case_9', which {DATASET} does not have",
        ),
    ],
)
def test_a_split_that_cannot_be_used_is_one_sentence(toy, tmp_path, capsys, content, message):
    (toy / "splits_final.json").write_text(content)
    schedule, before = write_schedule(tmp_path, [ORGANS]), plans_in(toy)
    for arguments in (["plan", "17"], ["run", "17", "3d_fullres", "0"]):
        more = ["-tr", PGCD, "-device", "cpu"] if arguments[0] == "run" else []
        assert main([*arguments, str(schedule), *more]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(f"nnunet_cil: {toy / 'splits_final.json'}")
        assert message in error
    assert plans_in(toy) == before
