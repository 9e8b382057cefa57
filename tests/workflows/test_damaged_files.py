"""Damaged JSON files, over the commands that read them: one sentence, an exit code, and nothing written."""

import json
import shutil

import pytest
from toy import DATASET, ORGANS, set_environment, write_schedule

from nnunet_cil.cli import main

TRAINER = "nnUNetTrainerPGCD"


@pytest.fixture(scope="module")
def root(_toy_root, tmp_path_factory):
    """The toy data set with the plans of two steps; every test leaves it as it was."""
    root = tmp_path_factory.mktemp("damaged")
    shutil.copytree(_toy_root, root / "nnunet")
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, root / "nnunet")
        write_schedule(root, [ORGANS[:2], ORGANS[2:]])
        assert main(["plan", "17", str(root / "toy.json")]) == 0
        yield root


def files_of(root):
    return {str(f): f.stat().st_mtime_ns for f in sorted(root.rglob("*")) if f.is_file()}


def refused(capsys, root, *command):
    """Returns the sentence with which a command is refused."""
    before = files_of(root)
    assert main([str(part) for part in command]) == 1
    shown = capsys.readouterr()
    (sentence,) = [line for line in shown.err.splitlines() if line.startswith("nnunet_cil: ")]
    assert "Traceback" not in shown.err + shown.out
    assert len(sentence) < 700
    assert files_of(root) == before
    return sentence


@pytest.fixture
def damage():
    """Returns a function that writes a file, which is as it was after the test."""
    saved = {}

    def write(file, content):
        saved[file] = file.read_bytes()
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    yield write
    for file, content in saved.items():
        file.write_bytes(content)


def commands(root):
    """Returns the commands that read the preprocessed data set, its plans and the schedule."""
    models = ["17", "3d_fullres", "0", root / "toy.json", "-tr", TRAINER]
    return {
        "plan": ["plan", "17", root / "toy.json"],
        "status": ["status", *models],
        "evaluate": ["evaluate", *models, "-device", "cpu"],
        "run": ["run", *models, "-device", "cpu"],
    }


NO_OBJECT = [
    b"",
    b"null",
    b"[]",
    b"[[]]",
    b'"text"',
    b"7",
    b"\xff\xfe{\x00}\x00",
    b"{" * 5000,
    b'{"a": 1, "a": 2}',
    b'{"labels"',
]


@pytest.mark.parametrize("content", NO_OBJECT, ids=lambda c: str(c[:12]))
@pytest.mark.parametrize(
    ("name", "command"),
    [
        *(
            (name, command)
            for name in ("schedule", "dataset.json")
            for command in ("plan", "status", "evaluate", "run")
        ),
        *(("nnUNetPlans_toy_step0.json", command) for command in ("plan", "status", "evaluate", "run")),
        ("nnUNetPlans.json", "plan"),
    ],
)
def test_what_is_no_object_is_refused(root, damage, capsys, name, command, content):
    if (name, command, content) == ("dataset.json", "run", b""):
        pytest.skip("a copy that nnU-Net has only begun to write: run copies the data set's again")
    file = root / "toy.json" if name == "schedule" else root / "nnunet/preprocessed" / DATASET / name
    damage(file, content)
    assert file.name in refused(capsys, root, *commands(root)[command])


LABELS = {
    "numbers as names": {"0": "background", "1": "liver"},
    "a list": ["background", "liver"],
    "null": None,
    "true": {"background": 0, "liver": True, "spleen": 2, "kidney": 3, "cyst": 4},
    "a gap": {"background": 0, "liver": 1, "spleen": 2, "kidney": 3, "cyst": 5},
    "huge": {"background": 0, "liver": 1, "spleen": 2, "kidney": 3, "cyst": 10**20},
    "twice": {"background": 0, "liver": 1, "spleen": 2, "kidney": 3, "cyst": 3},
    "ignore below": {"background": 0, "ignore": 1, "liver": 2, "spleen": 3, "kidney": 4, "cyst": 5},
    "no name": {"background": 0, "": 1, "spleen": 2, "kidney": 3, "cyst": 4},
    "no background": {"liver": 1, "spleen": 2, "kidney": 3, "cyst": 4},
    "regions": {"background": 0, "liver": [1, 2], "spleen": 2, "kidney": 3, "cyst": 4},
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("command", ["inspect", "schedules", "plan", "status", "evaluate", "run"])
def test_labels_that_nnunet_cannot_use_are_refused(root, damage, capsys, command, labels):
    reads_raw = command in ("inspect", "schedules")
    file = root / "nnunet" / ("raw" if reads_raw else "preprocessed") / DATASET / "dataset.json"
    damage(file, {**json.loads(file.read_text()), "labels": labels})
    raw = {
        "inspect": ["inspect", "17"],
        "schedules": ["schedules", "new", "17", "--steps", "2,2", "-o", root / "new.json"],
    }
    sentence = refused(capsys, root, *(raw | commands(root))[command])
    assert "dataset.json" in sentence


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cil": None}, "say nothing about a step"),
        ({"cil": []}, "but must be an object"),
        ({"cil": {}}, "schema version None"),
        ({"cil": {"schema_version": 1}}, "lacks 'schedule'"),
        ({"configurations": None}, "has null for 'configurations'"),
        ({"configurations": {}}, "has no configuration"),
        ({"plans_name": 3}, "has 3 for 'plans_name'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("command", ["status", "evaluate"])  # run plans anew
def test_damaged_step_plans_are_refused(root, damage, capsys, command, changed, message):
    file = root / "nnunet/preprocessed" / DATASET / "nnUNetPlans_toy_step1.json"
    damage(file, {**json.loads(file.read_text()), **changed})
    assert message in refused(capsys, root, *commands(root)[command])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("steps", None, "has null for 'steps'"),
        ("steps", [["liver"], "spleen"], "has 'spleen' for 'steps[1]'"),
        ("labels", {"liver": "1"}, "has '1' for 'labels.liver'"),
        ("previous", "step0", "has 'step0' for 'previous'"),
        ("cases", [1], "has 1 for 'cases[0]'"),
        ("training", [], "has [] for 'training'"),
        ("step", ..., "lacks 'step'"),
        ("step", 0, "was edited by hand"),
        ("schedule", "other", "was edited by hand"),
    ],
)
@pytest.mark.parametrize("command", ["status", "evaluate"])
def test_a_damaged_block_is_refused(root, damage, capsys, command, key, value, message):
    file = root / "nnunet/preprocessed" / DATASET / "nnUNetPlans_toy_step1.json"
    plans = json.loads(file.read_text())
    plans["cil"][key] = value
    if value is ...:
        del plans["cil"][key]
    damage(file, plans)
    assert message in refused(capsys, root, *commands(root)[command])
