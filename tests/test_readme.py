"""The README's commands are the ones that are run; so is the documentation's example."""

import os
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from toy import DATASET, ORGANS, called, make_batch, make_setup, train, write_schedule

from nnunet_cil.errors import CILError
from nnunet_cil.networks.teacher import TeacherOutput
from nnunet_cil.shipped import trainer_names, trainers_folder
from nnunet_cil.training.catalogue import trainer_class
from nnunet_cil.workflows.plan.plan import plan

ROOT = Path(__file__).parents[1]


def test_ci_runs_the_readmes_test_command():
    command = 'pip install ".[test]" && pytest'
    assert f"```bash\n{command}\n```" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\nbash -c '{command}'\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_trainer_has_its_row_and_every_row_its_trainer():
    shown = set(trainer_names())
    listed = set(re.findall(r"`(nnUNetTrainer\w+)`", (ROOT / "docs" / "explanation" / "methods.md").read_text()))
    assert shown - {"nnUNetTrainerCIL"} == listed


def examples(page: str) -> list[str]:
    """Returns the Python code of a how-to."""
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"```python[^\n]*\n(.*?)```", text, re.S)


def test_the_readmes_results_are_the_stored_ones():
    options = "teacher_volumes=1,old_dice_weight=0.25,new_class_start=imprinted,old_class_sampling=1"
    methods = {"PGCD": ("PGCD", ""), "MiB, given PGCD's options": ("MiB", options), "MiB as published": ("MiB", "")}
    data_sets = "acdc_1-1-1_disjoint_cpu", "hippocampus_1-1_disjoint_cpu", "openkbp_2-2-1_disjoint_short"
    means = {name: [] for name in methods}
    for data_set in data_sets:
        files = sorted((ROOT / "benchmarks" / "results").glob(f"{data_set}_core*.csv.gz"))
        scores = pd.concat(
            [pd.read_csv(file).assign(file=file.name, setting=lambda s: s.setting.fillna("")) for file in files]
        )
        last = scores[(scores.cases == "validation") & (scores.step == scores.step.max())]
        trainings = last.groupby(["method", "setting", "file", "class"]).dice.mean().unstack()
        for name, method in methods.items():
            means[name].append(trainings.loc[method].mean().mean())
    text = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", (ROOT / "README.md").read_text())  # a method may be a link
    rows = re.findall(r"^\| ([\w',\s]+?)" + r" \| (0\.\d+)" * 4 + r" \|$", text, re.M)
    assert [name for name, *_ in rows] == list(methods)
    for name, *shown in rows:
        assert [f"{mean:.3f}" for mean in (*means[name], sum(means[name]) / len(data_sets))] == shown, name


def test_every_message_that_is_explained_is_one_of_the_code():
    code = " ".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "nnunet_cil").rglob("*.py")))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # a message over several lines is one
    page = (ROOT / "docs" / "how-to" / "when-something-fails.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]*)`", page, re.M)
    assert messages
    for message in messages:
        for part in filter(None, map(str.strip, message.split("..."))):
            assert part in code, message


def test_the_test_in_adding_a_method_passes(tmp_path, monkeypatch):
    code, _, test = examples("add-a-method")
    (tmp_path / "warm.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    found = {}
    exec(test, found)
    found["test_a_student_that_equals_its_teacher_is_left_alone"]()


def test_the_example_of_adding_a_method_reads_whole_volumes_and_rests_between_two_distillations():
    code, _, _ = examples("add-a-method")
    found = {"__name__": "warm"}
    exec(code, found)
    torch.manual_seed(0)
    logits, target = torch.randn(1, 4, 3, 3, requires_grad=True), torch.zeros(1, 1, 3, 3)
    teacher = TeacherOutput(torch.randn(1, 3, 3, 3), target)
    volumes = torch.randint(0, 3, (1, 3, 3))
    losses = []
    for carried in (None, volumes):
        loss = found["WarmLoss"](make_setup(3, warm_weight=1.0, warm_temperature=3.0, distillation_interval=2))
        for terms in ({"segmentation", "distillation"}, {"segmentation"}):
            called(loss, logits, target, make_batch(teacher, carried=carried, volume_trust=0.9))
            means = loss.mean_terms()
            assert set(means) == terms
            losses.append(means.get("distillation"))
    assert abs(losses[0] - losses[2]) > 1e-3


def test_the_example_of_adding_a_method_trains(toy, tmp_path, monkeypatch):
    code, setting, _ = examples("add-a-method")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "warm.py").write_text(code)
    (tmp_path / "mine" / "settings.py").write_text(setting)
    monkeypatch.setenv("nnUNet_extTrainer", f"{trainers_folder()}{os.pathsep}{tmp_path / 'mine'}")
    options = {"teacher_volumes": True, "distillation_interval": 2}
    trainer_class("nnUNetTrainerWarm").check_hyperparameters(options, "Schedule x")
    with pytest.raises(CILError, match=r"teacher_volumes changes nothing .* with warm_weight 0"):
        trainer_class("nnUNetTrainerWarm").check_hyperparameters({**options, "warm_weight": 0}, "Schedule x")
    names = [s.plans_name for s in plan(DATASET, write_schedule(tmp_path, (ORGANS[:2], ORGANS[2:])))]
    assert trainer_class("nnUNetTrainerLwF10").lwf_weight == 10 != trainer_class("nnUNetTrainerLwF").lwf_weight
    train("nnUNetTrainerWarm", names[0])
    trainer = train("nnUNetTrainerWarm", names[1])
    logging = trainer.logger.get_checkpoint()
    total = logging["loss_segmentation"][-1] + logging["loss_distillation"][-1]
    assert total == pytest.approx(logging["train_losses"][-1], rel=1e-4)
