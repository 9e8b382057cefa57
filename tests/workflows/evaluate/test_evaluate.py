"""nnunet_cil evaluate: from models and reference labels to tables."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from toy import DATASET, train, write_schedule
from toy_models import ORDER, PGCD, run, write_model

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.files import write_json
from nnunet_cil.owners import current_owner, start_of
from nnunet_cil.workflows.plan.plan import plan


def test_classes_are_scored_by_name_and_what_is_forgotten_is_seen(trained):
    _, schedule, _ = trained
    found = run(schedule)
    content = json.loads((found.folder / "results.json").read_text())
    (dice,) = content["trainers"][PGCD]["dice"]
    assert dice["classes"][0] == {"kidney": 1}
    assert dice["classes"][1] == {"kidney": pytest.approx(2 / 3), "liver": 1}
    assert dice["forgetting"] == pytest.approx(1 / 3)
    assert dice["matrix"][0][0] == 1
    assert dice["matrix"][0][1] is None
    assert dice["intransigence"] is None
    assert "NaN" not in (found.folder / "results.json").read_text()
    with (found.folder / "per_case.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * (1 + 2)
    assert {r["case"] for r in rows} == {"t0", "t1", "t2"}
    assert "| step 1 | 0.667  | 1.000  |" in found.summary
    assert found.summary == (found.folder / "summary.md").read_text()


def test_each_steps_plans_are_read_once(trained, monkeypatch):
    root, schedule, _ = trained
    read_bytes, read = Path.read_bytes, []

    def counted(file, *arguments, **options):
        read.append(file.relative_to(root) if file.is_relative_to(root) else file)
        return read_bytes(file, *arguments, **options)

    monkeypatch.setattr(Path, "read_bytes", counted)
    run(schedule)
    plans = [file.name for file in read if file.parent == Path("preprocessed") / DATASET and "Plans" in file.name]
    assert sorted(plans) == ["nnUNetPlans_toy_step0.json", "nnUNetPlans_toy_step1.json"]


def test_nothing_is_done_twice_unless_the_model_has_changed(trained):
    root, schedule, calls = trained
    first = run(schedule)
    assert len(calls) == 2
    assert run(schedule).summary == first.summary
    assert len(calls) == 2
    write_model(next((root / "results" / DATASET).glob("*step1*")) / "fold_0" / "checkpoint_final.pth", "new")
    run(schedule)
    assert [("step1" in " ".join(c), "--continue_prediction" in c) for c in calls[2:]] == [(True, False)]


def test_the_time_of_a_prediction_is_kept_though_nothing_is_predicted_again(trained):
    _, schedule, _ = trained
    first, second = (json.loads((run(schedule).folder / "results.json").read_text())["costs"] for _ in range(2))
    assert first == second
    ((cost,),) = first.values()
    assert cost["prediction_seconds"] > 0
    assert cost["training_seconds"] == [None, None]  # of checkpoints that only look trained


@pytest.mark.parametrize("where", ["output", "fold"])
def test_what_another_process_writes_is_not_scored(trained, where):
    root, schedule, calls = trained
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        owner = replace(current_owner(), pid=process.pid, start=start_of(process.pid))
        fold = next((root / "results" / DATASET).glob("*step1*")) / "fold_0"
        folder = fold if where == "fold" else root / "results" / DATASET / "evaluation" / "nnUNetPlans_toy__3d_fullres"
        lock = {"process": owner.token, "host": "here", "since": "today", "command": "nnUNetv2_train"}
        write_json(folder / ".in_use.json", lock)
        with pytest.raises(CILError, match=f"{folder} is in use by process {process.pid} on here since today"):
            run(schedule)
        assert not calls
    found = run(schedule)
    assert found.folder == root / "results" / DATASET / "evaluation" / "nnUNetPlans_toy__3d_fullres"
    assert not (found.folder / ".in_use.json").exists()


def test_an_evaluation_that_waits_for_another_one_begins_at_its_end(trained, caplog):
    root, schedule, _ = trained
    file = root / "results" / DATASET / "evaluation" / "nnUNetPlans_toy__3d_fullres" / ".in_use.json"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)"]) as process:
        owner = replace(current_owner(), pid=process.pid, start=start_of(process.pid))
        write_json(file, {"process": owner.token, "host": "here", "since": "today", "command": "nnunet_cil run"})
        with caplog.at_level("INFO"):
            found = run(schedule, waits=True)
        assert process.poll() == 0
    assert found.summary
    assert sum("is in use by process" in m and "waiting for its end" in m for m in caplog.messages) == 1


@pytest.mark.slow
def test_evaluate_with_nnunets_own_prediction(toy, forked_commands, tmp_path, capsys):
    """Trained for two epochs, predicted by nnUNetv2_predict on images of its own, from the command line."""
    schedule = write_schedule(tmp_path, ORDER)
    for step in plan(DATASET, schedule):
        train(PGCD, step.plans_name)
    raw = toy.parents[1] / "raw" / DATASET
    command = [
        "evaluate",
        "17",
        "3d_fullres",
        "0",
        str(schedule),
        "-tr",
        PGCD,
        "-device",
        "cpu",
        "-o",
        str(tmp_path / "o"),
    ]
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder, source in ((images, raw / "imagesTr"), (labels, raw / "labelsTr")):
        folder.mkdir()
        for file in sorted(source.iterdir())[:2]:
            (folder / file.name).write_bytes(file.read_bytes())
    assert main([*command, "-i", str(images), "-l", str(labels)]) == 0
    assert "## Over the whole schedule" in capsys.readouterr().out
    assert len(list((tmp_path / "o" / "predictions" / f"{PGCD}_step1_fold0").glob("*.nii.gz"))) == 2
    ((cost,),) = json.loads((tmp_path / "o" / "results.json").read_text())["costs"].values()
    assert cost["num_parameters"] > 1000
    assert all(seconds > 0 for seconds in (*cost["training_seconds"], cost["prediction_seconds"]))
