"""One ID, two data sets: every command that takes an ID refuses it, and writes nothing."""

import json

import pytest

from nnunet_cil.cli import main

RUN = ("3d_fullres", "0", "SCHEDULE", "-tr", "nnUNetTrainerPGCD")
COMMANDS = {
    "plan": ("plan", "51", "SCHEDULE"),
    "run": ("run", "51", *RUN),
    "dry run": ("run", "51", *RUN, "--dry-run"),
    "jobs": ("run", "51", *RUN, "--launcher", "local"),
    "status": ("status", "51", *RUN),
    "evaluate": ("evaluate", "51", *RUN),
    "inspect": ("inspect", "051"),
    "schedules": ("schedules", "new", "51", "--steps", "1"),
    "later step": ("status", "Dataset052_Other", *RUN[:2], "LATER", *RUN[3:]),
    "convert": ("convert", "generic", "DOWNLOAD", "51", "--names", "NAMES"),
}


@pytest.fixture
def world(raw, tmp_path, monkeypatch):
    """A raw data set, and another one; schedules and a download."""
    for name in ("Dataset051_Mine", "Dataset052_Other"):
        (raw / name).mkdir()
        content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"}
        (raw / name / "dataset.json").write_text(json.dumps(content))
    for name, second in (("SCHEDULE", {}), ("LATER", {"dataset": "51"})):
        steps = [{"classes": ["a"]}, {"classes": ["b"], **second}]
        (tmp_path / name).write_text(json.dumps({"name": name, "steps": steps}))
    (tmp_path / "NAMES").write_text('{"name": "Mine", "labels": {"a": 1}, "channels": ["CT"]}')
    for folder in ("images", "labels"):
        (tmp_path / "DOWNLOAD" / folder).mkdir(parents=True)
        (tmp_path / "DOWNLOAD" / folder / "x.nii.gz").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tree(folder):
    return sorted(str(f) for f in folder.rglob("*"))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("place", "twin"),
    [("raw", "Dataset051_Twin"), ("preprocessed", "Dataset051_mine"), ("results", "Dataset051_Foreign")],
)
def test_an_id_that_nnunet_finds_twice_is_refused_before_anything_is_written(world, capsys, command, place, twin):
    (world / "nnunet" / place / twin).mkdir()
    before = tree(world)
    assert main(list(COMMANDS[command])) == 1
    said = capsys.readouterr().err
    assert twin in said
    assert "Choose another one" in said or ("the ID 51" in said and "Rename all folders of the one" in said)
    assert tree(world) == before
