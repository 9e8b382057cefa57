"""The commands that are printed can be pasted into a shell, whatever the names in them."""

import argparse
import ast
import json
import re
import shlex
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy import DATASET, ORGANS, write_schedule

import nnunet_cil
from nnunet_cil.cli import main
from nnunet_cil.cli.main import _parser
from nnunet_cil.errors import CILError
from nnunet_cil.lineage import StepRecord
from nnunet_cil.model_card import model_card
from nnunet_cil.step_plans import PreviousModel
from nnunet_cil.training.previous_step import previous_checkpoint
from nnunet_cil.workflows.data.schedules import explain

ODD = "Dataset017_The ward's toy"
PGCD = "nnUNetTrainerPGCD"


def commands(out: str, name: str) -> list[list[str]]:
    """The printed calls of a command, as a shell splits them."""
    return [shlex.split(line) for line in out.splitlines() if line.strip().startswith(name)]


@pytest.fixture
def odd_toy(toy):
    """The toy data set under a name with a space and a quote."""
    toy.rename(toy.with_name(ODD))
    raw = toy.parents[1] / "raw"
    (raw / DATASET).rename(raw / ODD)
    plans = toy.with_name(ODD) / "nnUNetPlans.json"
    plans.write_text(json.dumps(json.loads(plans.read_text()) | {"dataset_name": ODD}))
    return toy.with_name(ODD)


def test_plan_quotes_the_name_of_the_data_set(odd_toy, tmp_path, capsys):
    assert main(["plan", ODD, str(write_schedule(tmp_path, [ORGANS[:2], ORGANS[2:]]))]) == 0
    printed = commands(capsys.readouterr().out, "nnUNetv2_train")
    assert printed == [
        ["nnUNetv2_train", ODD, "3d_fullres", "0", "-tr", PGCD, "-p", f"nnUNetPlans_toy_step{step}"] for step in (0, 1)
    ]


@pytest.mark.parametrize("folds", [[1, 2], ["all"]])
def test_plan_prints_a_fold_that_can_be_trained(toy, tmp_path, monkeypatch, capsys, folds):
    monkeypatch.setattr("nnunet_cil.workflows.plan.plan.note_folds", lambda *_, **__: folds)
    assert main(["plan", DATASET, str(write_schedule(tmp_path, [ORGANS[:2], ORGANS[2:]]))]) == 0
    printed = commands(capsys.readouterr().out, "nnUNetv2_train")
    assert [command[3] for command in printed] == [str(folds[0])] * 2


def test_extend_quotes_the_names_of_data_set_and_plans(monkeypatch, capsys):
    plans = "my plans' second"
    model = SimpleNamespace(configuration="3d_fullres")
    found = SimpleNamespace(
        plan=SimpleNamespace(old_classes=("liver",), new_classes=("spleen",), refined=()),
        file=Path("plans.json"),
        model=model,
        stages=(SimpleNamespace(model=model, folds=("0", "all")),),
        trainer=PGCD,
        plans_name=plans,
        dataset=ODD,
        folds=("0", "all"),
    )
    monkeypatch.setattr("nnunet_cil.workflows.models.extend.extend", lambda *_arguments, **_options: found)
    assert main(["extend", "MODEL", "18"]) == 0
    out = capsys.readouterr().out
    which = ["-tr", PGCD, "-p", plans]
    assert commands(out, "nnUNetv2_train") == [["nnUNetv2_train", ODD, "3d_fullres", f, *which] for f in ("0", "all")]
    predict = ["nnUNetv2_predict", "-d", ODD, "-c", "3d_fullres", "-f", "0", "all", *which, "-i", "IMAGES", "-o", "OUT"]
    assert commands(out, "nnUNetv2_predict") == [predict]


def test_schedules_quote_the_file_that_they_explain(tmp_path):
    folder = tmp_path / "the ward's schedules"
    folder.mkdir()
    file = write_schedule(folder, [ORGANS])
    *_, last = explain(file).splitlines()
    assert shlex.split(last.removeprefix("Use it: ")) == ["nnunet_cil", "plan", "DATASET", str(file)]


def test_schedules_quote_the_data_set_that_they_are_not_meant_to_get(capsys):
    assert main(["schedules", "toy", ODD]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert shlex.split(line.partition(": nnunet_cil ")[2]) == ["schedules", "new", ODD, "--steps", "8,3,2"]


def test_doctor_quotes_the_folder_that_is_missing(toy, tmp_path, monkeypatch, capsys):
    missing = str(tmp_path / "the ward's results")
    monkeypatch.setenv("nnUNet_results", missing)
    assert main(["doctor"]) == 1
    remedy = capsys.readouterr().out.partition("-> ")[2].splitlines()[0]
    assert shlex.split(remedy) == ["mkdir", "-p", missing]


def test_the_model_card_quotes_the_names_of_data_set_and_plans():
    record = StepRecord(
        step=0,
        classes=("liver",),
        schedule="toy",
        dataset=ODD,
        num_cases=4,
        licence="",
        trainer=PGCD,
        plans="my plans",
        configuration="2d",
        fold="all",
        date="",
        versions={},
        previous_sha256=None,
    )
    card = model_card([record], {}, "nnUNetTrainer")
    which = ["-d", ODD, "-c", "2d", "-f", "all", "-tr", "nnUNetTrainer", "-p", "my plans"]
    assert commands(card, "nnUNetv2_predict") == [["nnUNetv2_predict", *which, "-i", "IMAGES", "-o", "OUT"]]
    assert commands(card, "nnUNetv2_train") == [["nnUNetv2_train", ODD, "2d", "all", "-tr", PGCD, "-p", "my plans"]]


def test_a_step_quotes_the_command_that_trains_the_step_before(toy):
    previous = PreviousModel(dataset=ODD, plans="my plans", trainer=PGCD, configuration="2d")
    with pytest.raises(CILError, match="has to be trained first") as error:
        previous_checkpoint(previous, PGCD, "2d", 0)
    command = str(error.value).partition(" Run ")[2].removeprefix("'").removesuffix("'.")
    assert shlex.split(command) == ["nnUNetv2_train", ODD, "2d", "0", "-tr", PGCD, "-p", "my plans"]


def quoted_commands():
    """Yields the commands that the package's texts name in quotes, with X for what is only known later."""
    for file in Path(nnunet_cil.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else "X"
                for part in parts
                if isinstance(part, (ast.Constant, ast.FormattedValue))
            )
            yield from re.findall(r"'((?:nnunet_cil|nnUNetv2_\w+)(?: [^']*)?)'", text)


def test_every_command_that_a_message_names_is_there_with_its_options():
    (parsers,) = (a.choices for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    scripts = {entry.name for entry in entry_points(group="console_scripts")}
    found = set(quoted_commands())
    assert len(found) > 15
    for command in found:
        name, *words = command.split()
        assert name in scripts, command
        if name == "nnunet_cil" and words:
            options = {word for word in words[1:] if word.startswith("-")}
            assert options <= parsers[words[0]]._option_string_actions.keys(), command
