"""Checks the page on trust, sentence by sentence: each has a test, here or where the rest of its subject is tested."""

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_records import RECORD

from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.report import page
from nnunet_cil.evaluation.scores import write_csv
from nnunet_cil.evaluation.summary import Section
from nnunet_cil.evaluation.tables import Table
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.processes import end_with_parent
from nnunet_cil.lineage import read_lineage
from nnunet_cil.locks import Lock
from nnunet_cil.model_card import model_card
from nnunet_cil.owners import current_owner
from nnunet_cil.schedule import load_schedule
from nnunet_cil.workflows.compare.compare import CompareOptions, compare
from nnunet_cil.workflows.models.export import export
from nnunet_cil.workflows.models.info import describe
from nnunet_cil.workflows.models.trained_model import read_model

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "what-is-trusted.md"
MODELS, PREVIOUS_STEP = "workflows/models", "training/test_previous_step.py"

TESTS = {
    "It builds a network from class names in `plans.json` and reads checkpoints": [
        "test_nnunet_calls_what_plans_name",
        "test_nnunet_reads_checkpoints_as_pickles",
    ],
    "`nnunet_cil info`, `extend`, `export` and `compare` run none.": [
        "test_no_command_for_models_runs_code_of_a_checkpoint"
    ],
    "| checkpoint of the previous step, or for": [
        "test_no_command_for_models_runs_code_of_a_checkpoint",
        f"{PREVIOUS_STEP}::test_checkpoint_that_carries_code",
        f"{MODELS}/test_extend.py::test_a_checkpoint_that_would_run_code_is_refused",
    ],
    "| checkpoint resumed with `--c` |": ["test_a_checkpoint_is_checked_before_nnunet_resumes_it"],
    "| checkpoint for `nnUNetv2_predict`": ["test_nnunet_reads_checkpoints_as_pickles"],
    "| `plans.json` of a model, by `extend`, `export` and `compare` |": [
        "host/test_networks.py::test_any_other_name_is_refused_without_being_imported",
        "host/test_networks.py::test_a_package_of_the_user_is_imported_only_when_it_is_trusted",
        f"{MODELS}/test_foreign_models.py::test_plans_that_name_or_build_something_else_are_refused",
        f"{MODELS}/test_export.py::test_a_models_plans_neither_lead_elsewhere_nor_run_code",
    ],
    "| `plans.json`, by nnU-Net's own commands |": ["test_nnunet_calls_what_plans_name"],
    "| preprocessed cases (`.pkl`) |": ["test_preprocessed_cases_are_pickles"],
    "| folders in `nnUNet_extTrainer` |": ["test_folders_of_trainers_are_imported"],
    "| the current folder |": [
        "host/test_commands.py::test_a_command_imports_nothing_from_the_current_folder",
        "host/test_commands.py::test_no_process_that_a_command_starts_imports_from_the_current_folder",
    ],
    "| schedules, `dataset.json` |": ["test_schedules_and_dataset_json_are_data_only"],
    "| archives for `convert` |": [
        "datasets/test_archives.py::test_an_archive_that_leads_elsewhere_is_refused_and_touches_nothing",
        "datasets/test_archives.py::test_nothing_in_a_tar_is_unpacked_elsewhere",
    ],
    "| names on model cards and pages |": [
        "test_names_are_shown_as_text",
        "test_model_card.py::test_nothing_in_a_record_becomes_markup",
    ],
    "| names in `per_case.csv` |": ["test_names_stand_in_a_csv_file_as_they_are"],
    "Hashes tell of changes. They are no signatures.": ["test_whoever_can_write_a_file_can_write_its_hash"],
    "- **Previous model**": [
        f"{MODELS}/test_export.py::test_lineage_grows_by_a_record_a_step",
        f"{PREVIOUS_STEP}::test_previous_model_that_changed_since_the_step_began",
    ],
    "- **Split**": ["training/test_cases.py::test_a_checkpoint_records_the_cases_of_its_fold_without_their_names"],
    "- **Step plans**": ["workflows/plan/test_plan.py::test_edited_block_and_changed_data_set_are_refused"],
    "- **Labels** changed": [
        f"{MODELS}/test_extend.py::test_label_numbers_that_changed_since_the_preprocessing_are_refused"
    ],
    "- **Scores** are taken again": [
        "workflows/evaluate/test_evaluate.py::test_nothing_is_done_twice_unless_the_model_has_changed",
        "workflows/evaluate/test_score.py::test_other_true_labels_are_scored_anew",
    ],
    "One process at a time trains a fold; others are refused.": [
        "test_locks.py::test_a_lock_that_is_held_names_its_holder",
        "test_locks.py::test_one_of_many_that_take_a_lock_at_once_wins",
    ],
    "Its lock is a hard link, which only one can make.": ["test_a_lock_is_a_hard_link_that_is_made_once"],
    "That of a process on another machine": [
        "test_locks.py::test_a_lock_of_another_machine_is_not_taken_over_and_it_is_said_how"
    ],
    "Without hard links, two that begin at once": ["test_without_hard_links_the_last_of_two_has_the_lock"],
    "This was run on Linux": ["test_locks_are_tested_on_linux"],
    "Outside of Linux a training": [
        "test_modules_are_imported_without_what_windows_lacks",
        "test_elsewhere_than_on_linux_a_training_does_not_end_with_its_command",
    ],
    "Its [lineage](../glossary.md#lineage): data sets": [
        f"{MODELS}/test_export.py::test_an_exported_model_holds_what_prediction_needs_and_its_provenance"
    ],
    "Not images, prototypes, or names of cases": [
        f"{MODELS}/test_export.py::test_no_name_of_a_case_leaves_with_an_exported_model"
    ],
    "Who knows a case's name can test": ["test_case_hashes.py::test_cases_are_found_again_by_their_names_alone"],
}
"""The beginning of a sentence, or of a row -> its tests: of this module, or below the folder of tests."""

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="needs a checkout")


def sentences():
    """The page's sentences, and the rows of its table."""
    found = []
    for block in re.split(r"\n\s*\n|\n(?=[|-] ?)", PAGE.read_text(encoding="utf-8")):
        text = " ".join(block.split())
        if text.startswith("|") and not re.match(r"\|(---|\s*file \|)", text):
            found.append(text)
        elif text.startswith("!!!"):
            found += re.split(r"(?<=\.) (?=`)", text.split('" ', 1)[1])
        elif text and not text.startswith(("#", "|")):
            found += [text] if text.startswith(("- ", "Hashes")) else re.split(r"(?<=[.]) (?=[A-Z])", text)
    return found


def test_every_sentence_of_the_page_has_a_test():
    beginnings = [[key for key in TESTS if sentence.startswith(key)] for sentence in sentences()]
    assert [s for s, keys in zip(sentences(), beginnings, strict=True) if len(keys) != 1] == []
    assert {key for keys in beginnings for key in keys} == set(TESTS)


@pytest.mark.parametrize("test", sorted({test for tests in TESTS.values() for test in tests}))
def test_every_test_of_a_sentence_is_there(test):
    file, _, name = test.rpartition("::")
    code = (ROOT / "tests" / file if file else Path(__file__)).read_text(encoding="utf-8")
    assert f"\ndef {name}(" in code


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("place", ["network_weights", "init_args", "cil", "trainer_name", "optimizer_state"])
def test_no_command_for_models_runs_code_of_a_checkpoint(tmp_path, place):
    model = tmp_path / "model"
    (model / "fold_0").mkdir(parents=True)
    for name in ("plans", "dataset"):
        described = {"plans_name": "a", "dataset_name": "Dataset001_A", "configurations": {"2d": {}}}
        described |= {"labels": {"background": 0, "a": 1}, "channel_names": {"0": "MR"}, "file_ending": ".nii.gz"}
        (model / f"{name}.json").write_text(json.dumps(described))
    content = {"network_weights": {}, "init_args": {}, place: {"deep": [Canary(tmp_path / "ran")]}}
    torch.save(content, model / "fold_0/checkpoint_final.pth")

    def compare_with_itself(folder):
        compare(CompareOptions(model_a=folder, model_b=folder, output=tmp_path / "out"))

    for call in (describe, read_model, lambda folder: export(folder, tmp_path / "out"), compare_with_itself):
        with pytest.raises(CILError, match="would run code from the file"):
            call(model)
    assert not (tmp_path / "ran").exists()
    torch.load(model / "fold_0/checkpoint_final.pth", weights_only=False)
    assert (tmp_path / "ran").exists()  # the canary sings where it may


def test_nnunet_calls_what_plans_name():
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    called = get_network_from_plans("types.SimpleNamespace", {"chosen": "by a stranger"}, [], 1, 2)
    assert called.chosen == "by a stranger"


def test_nnunet_reads_checkpoints_as_pickles():
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    for reads in (
        nnUNetPredictor.initialize_from_trained_model_folder,
        load_pretrained_weights,
        nnUNetTrainer.load_checkpoint,
    ):
        assert "weights_only=False" in inspect.getsource(reads)


def test_a_checkpoint_is_checked_before_nnunet_resumes_it(tmp_path):
    from types import SimpleNamespace

    from nnunet_cil.training.base import nnUNetTrainerCIL

    torch.save({"network_weights": {}, "init_args": Canary(tmp_path / "ran")}, tmp_path / "checkpoint_latest.pth")
    trainer = SimpleNamespace(step_plan=SimpleNamespace(model_classes=("a",)))
    with pytest.raises(CILError, match="would run code from the file"):
        nnUNetTrainerCIL.load_checkpoint(trainer, str(tmp_path / "checkpoint_latest.pth"))
    assert not (tmp_path / "ran").exists()


def test_preprocessed_cases_are_pickles(tmp_path):
    from batchgenerators.utilities.file_and_folder_operations import load_pickle, save_pickle
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    assert "load_pickle" in inspect.getsource(nnUNetDatasetBlosc2.load_case)
    save_pickle(Canary(tmp_path / "ran"), str(tmp_path / "case.pkl"))
    load_pickle(str(tmp_path / "case.pkl"))
    assert (tmp_path / "ran").exists()


def test_folders_of_trainers_are_imported(tmp_path):
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    (tmp_path / "mine_of_the_test.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    recursive_find_python_class(str(tmp_path), "nnUNetTrainerMine", None)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch ran']",
        '{"name": "a", "steps": __import__("os").system("touch ran")}',
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"a": ' + "9" * 5000 + "}",
        '{"name": {"__reduce__": ["os.system", "touch ran"]}, "steps": [], "labels": {}, "channel_names": {}, "file_ending": ""}',
    ],
)
def test_schedules_and_dataset_json_are_data_only(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    for name, read in (("schedule.json", lambda f: load_schedule(str(f))), ("dataset.json", read_dataset_json)):
        (tmp_path / name).write_text(text)
        with pytest.raises(CILError):
            read(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["dataset.json", "schedule.json"]


def test_names_are_shown_as_text():
    name = "<script>alert(1)</script>[x](javascript:alert(1))"
    sections = [Section(name, Table([name], [[name]]), name)]
    assert "<script>alert" not in page(name, [name], sections, [])
    card = model_card([dataclasses.replace(RECORD, classes=(name,), licence=name)], {})
    assert not re.search(r"(?<!\\)<script>|(?<!\\)\[x", card)


def test_names_stand_in_a_csv_file_as_they_are(tmp_path):
    import pandas

    write_csv(tmp_path / "per_case.csv", pandas.DataFrame({"case": ["=1+1"]}))
    assert "=1+1" in (tmp_path / "per_case.csv").read_text().splitlines()


def test_whoever_can_write_a_file_can_write_its_hash():
    forged = dataclasses.replace(RECORD, step=1, previous_sha256="0" * 64).to_json()
    assert read_lineage([forged])[0].previous_sha256 == "0" * 64


def test_a_lock_is_a_hard_link_that_is_made_once(tmp_path, monkeypatch):
    lock, link = Lock(tmp_path / "lock.json", "The folder"), os.link

    def overtaken(source, target):
        Path(target).write_text(json.dumps({"process": dataclasses.replace(current_owner(), host="0" * 8).token}))
        link(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    with pytest.raises(CILError, match="The folder is in use by process"):
        lock.acquire()


def test_without_hard_links_the_last_of_two_has_the_lock(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", no_links)
    lock = Lock(tmp_path / "lock.json", "The folder")
    with lock.held():
        assert json.loads(lock.file.read_text())["process"] == current_owner().token
    lock.file.write_text(json.dumps({"process": dataclasses.replace(current_owner(), host="0" * 8).token}))
    with pytest.raises(CILError, match="The folder is in use"):
        lock.acquire()


def test_locks_are_tested_on_linux():
    """Where this fails, the tests have begun to run elsewhere, and the page can say so."""
    assert sys.platform == "linux"


WITHOUT = """
import psutil  # has its own for every system
import os, signal, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("getuid", "fork", "killpg", "setsid", "register_at_fork"):
    delattr(os, name)
del signal.SIGKILL, signal.SIGHUP
import importlib
for name in ("locks", "owners", "files", "host.processes", "host.commands", "host.networks", "datasets.archives",
             "workflows.data.convert", "cli.main", "cli.arguments"):
    importlib.import_module("nnunet_cil." + name)
from pathlib import Path
from nnunet_cil.host.processes import let_forks_end_with_parent
from nnunet_cil.locks import Lock
let_forks_end_with_parent()
with Lock(Path(sys.argv[1]), "It").held():
    assert Path(sys.argv[1]).exists()
print("imported")
"""


def test_modules_are_imported_without_what_windows_lacks(tmp_path):
    command = [sys.executable, "-c", WITHOUT, str(tmp_path / "lock.json")]
    environment = {
        **os.environ,
        "TMPDIR": str(tmp_path),
    }  # without fcntl, a file that is left there would be waited for
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout == "imported\n"


def test_elsewhere_than_on_linux_a_training_does_not_end_with_its_command(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr("ctypes.CDLL", lambda *_: pytest.fail("asks a system that cannot do it"))
    end_with_parent(os.getppid())
