"""benchmarks/trainers: the settings of the studies."""

import os
import re
from dataclasses import replace
from pathlib import Path

import planned_runs
import pytest
import scores
import study

from nnunet_cil.shipped import trainers_folder
from nnunet_cil.training.catalogue import trainer_class
from nnunet_cil.training.hyperparameters import settable
from nnunet_cil.training.methods.pgcd_base import WEIGHTINGS

OPTIONS = "new_class_start", "old_class_sampling", "teacher_volumes", "drop_strays", "old_dice_weight"
TRAINERS = Path(study.__file__).parent / "trainers"


@pytest.fixture
def _found_by_nnunet(monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", f"{trainers_folder()}{os.pathsep}{TRAINERS}")


@pytest.mark.usefixtures("_found_by_nnunet")
def test_each_setting_is_one_of_a_published_table_under_the_name_that_it_has_there():
    text = (TRAINERS / "study_trainers.py").read_text()
    names = re.findall(r"^class (nnUNetTrainer\w+)\(", text, re.MULTILINE)
    published = {
        (row["method"], row["setting"]) for file in scores.RESULTS.glob("*.csv.gz") for row in scores.read_rows(file)
    }
    methods = [study.method_of_trainer(name) for name in names]
    assert {(m.name, m.setting) for m in methods} <= published
    assert len({(m.name, m.setting) for m in methods}) == len(names) > 25


@pytest.mark.usefixtures("_found_by_nnunet")
def test_each_variant_for_absent_organs_has_its_row_but_for_two_parents():
    names = re.findall(
        r"^class (nnUNetTrainer\w+)\(", (TRAINERS / "absent_organ_trainers.py").read_text(), re.MULTILINE
    )
    files = scores.RESULTS.glob("hippocampus_1-1_cropped_cpu_*.csv.gz")
    published = {(row["method"], row["setting"]) for file in files for row in scores.read_rows(file)}
    methods = {name: study.method_of_trainer(name) for name in names}
    without = {name for name, m in methods.items() if (m.name, m.setting) not in published}
    assert without == {"nnUNetTrainerPGCDAbsentOrgan", "nnUNetTrainerPGCD_everywhere"}


@pytest.mark.usefixtures("_found_by_nnunet")
def test_no_setting_of_a_study_starts_new_classes_otherwise_than_it_did():
    text = (TRAINERS / "study_trainers.py").read_text()
    trainers = [trainer_class(name) for name in re.findall(r"^class (nnUNetTrainer\w+)\(", text, re.MULTILINE)]
    assert {t.new_class_start for t in trainers} == {"balanced", "apart"}
    noisy = [t for t in trainers if any(isinstance(vars(c).get("new_class_noise"), float) for c in t.__mro__)]
    assert len(noisy) > 10
    assert {t.new_class_start for t in noisy} == {"apart"}
    assert study.method_of_trainer("nnUNetTrainerLwF_noise1").parent == "nnUNetTrainerLwF"


@pytest.mark.usefixtures("_found_by_nnunet")
def test_a_trainer_is_named_by_what_it_sets():
    late = study.method_of_trainer("nnUNetTrainerPGCD_noise0_weight10_noise1from2")
    assert (late.name, late.setting) == ("PGCD", "new_class_noise=1,pgcd_weight=10,from_step=2")
    assert (late.from_step, late.parent) == (2, "nnUNetTrainerPGCD_noise0_weight10")
    assert study.method_of_trainer("nnUNetTrainerPGCDOnly").name == "PGCDOnly"  # not PGCD without DAPD
    assert study.method_of_trainer("nnUNetTrainerPGCDOnly").setting == ""


@pytest.mark.usefixtures("_found_by_nnunet")
def test_each_other_weighting_is_a_trainer_and_a_choice_is_named_as_it_is_written():
    controls = [name for name in WEIGHTINGS if name != trainer_class("nnUNetTrainerPGCD").pgcd_weighting]
    found = [study.method_of_trainer(f"nnUNetTrainerPGCD_{name}") for name in controls]
    assert [(m.name, m.setting) for m in found] == [("PGCD", f"pgcd_weighting={name}") for name in controls]


@pytest.mark.usefixtures("_found_by_nnunet")
def test_as_many_settings_are_tried_for_each_rival_and_no_name_stands_for_two():
    for rival, settings in planned_runs.CHOICE.items():
        (run,) = [run for run in planned_runs.runs("choice") if run.part == f"choice_{rival}"][:1]
        tried = [study.method_of_trainer(f"nnUNetTrainer{name}") for name in run.methods]
        assert [m.name for m in tried] == ["PGCD", *[rival] * 9]
        assert len({m.setting for m in tried[1:]}) == len(settings) == 9
        assert tried[1].setting == ""  # as published


def test_a_rivals_settings_are_tried_on_all_data_sets_before_the_next_rival():
    runs = list(planned_runs.runs("choice"))
    assert [run.protocol.dataset for run in runs] == ["901", "904", "900"] * 3
    assert [run.part for run in runs[::3]] == ["choice_MiB", "choice_PseudoLabel", "choice_LwF"]
    assert len({run.table for run in runs}) == len(runs)


@pytest.mark.usefixtures("_found_by_nnunet")
def test_methods_of_a_pair_are_trainers_and_no_name_stands_for_two():
    trainers = [name for name in planned_runs.CORE if name != planned_runs.SEPARATE]
    found = [study.method_of_trainer(f"nnUNetTrainer{name}") for name in trainers]
    assert len({(m.name, m.setting) for m in found}) == len(trainers)


@pytest.mark.usefixtures("_found_by_nnunet")
@pytest.mark.parametrize("rival", ["MiB", "LwF", "PseudoLabel"])
def test_a_rival_of_a_pair_has_the_options_of_pgcd_that_are_not_fixed_in_it(rival):
    pgcd, own = trainer_class("nnUNetTrainerPGCD"), trainer_class(f"nnUNetTrainer{rival}_sampled")
    options = [name for name in OPTIONS if name in settable(own)]
    assert {"new_class_start", "old_class_sampling", "teacher_volumes"} <= set(options)
    assert {name: getattr(own, name) for name in options} == {name: getattr(pgcd, name) for name in options}


def test_a_method_is_missing_until_all_its_cases_are_scored(monkeypatch, tmp_path):
    monkeypatch.setattr(planned_runs, "RESULTS", tmp_path)
    run = next(run for run in planned_runs.runs("core") if run.fold == 2)
    run = replace(run, cases=("validation", "test"))
    assert run.missing == list(run.methods)
    row = dict.fromkeys(scores.COLUMNS, "") | {"step": str(run.protocol.num_steps), "fold": "2"}
    mib = {**row, "method": "MiB", "trainer": "nnUNetTrainerMiB"}
    separate = {**row, "method": "Separate", "setting": "new_over_old", "trainer": "nnUNetTrainerFineTune"}
    rows = [{**separate, "cases": cases} for cases in run.cases] + [{**mib, "cases": "test"}]
    scores.write_rows(run.table, [*rows, {**mib, "cases": "validation", "step": "1"}])
    assert run.missing == [name for name in run.methods if name != "Separate"]
    assert len(run.commands()) == len(run.missing)
    (command,) = run.commands(["MiB", "Separate"])
    assert "MiB" in command
    scores.write_rows(run.table, [*rows, {**mib, "cases": "validation"}])
    assert "MiB" not in run.missing
