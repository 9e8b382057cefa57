"""Bad input is one sentence that names the culprit, an exit status, and nothing is written; see ``bad_input.py``."""

import re

import pytest
from bad_input import KINDS
from toy import set_environment

from nnunet_cil.cli import main

MOST_CHARACTERS = 600
"""The longest message, without the world's own path."""

ROWS = [
    pytest.param(row, id=f"{kind}: {index}") for kind, of_kind in KINDS.items() for index, row in enumerate(of_kind)
]


@pytest.fixture
def world(built_world, monkeypatch):
    """The world, in which no training, prediction or preprocessing may begin."""

    def begin(command, *_arguments, **_options):
        raise AssertionError(f"long work has begun: {command}")

    set_environment(monkeypatch, built_world.root / "nnunet")
    monkeypatch.chdir(built_world.root / "here")
    monkeypatch.setattr("nnunet_cil.host.commands.started", begin)
    return built_world


def test_the_table_is_long():
    """At least 40 kinds, and 200 inputs."""
    assert len([rows for rows in KINDS.values() if len(rows) >= 5]) >= 40
    assert len(ROWS) >= 200
    commands = {row.command[0] for rows in KINDS.values() for row in rows if row.command}
    assert {
        "convert",
        "demo",
        "evaluate",
        "export",
        "extend",
        "info",
        "inspect",
        "plan",
        "run",
        "schedules",
        "status",
    } <= commands


def status_of(arguments):
    try:
        return main(arguments)
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize("row", ROWS)
def test_bad_input_is_refused_in_a_sentence_and_nothing_is_written(world, monkeypatch, capfd, row):
    def places(word):
        return str(world.place(word[1:])) if word.startswith("@") else word

    if row.change is not None:
        row.change(world)
    for variable, value in row.environment.items():
        monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, places(value))
    before = world.listing()
    try:
        status = status_of([places(word) for word in row.command])
        after = world.listing()
    finally:
        world.restore()
    printed = capfd.readouterr().err.replace(str(world.root), "")
    assert status not in (0, None)
    assert "Traceback" not in printed
    progress = re.search(r"^(?:.*\r)?(?=nnunet_cil\b)", printed, re.M)  # what a terminal overwrites
    message = printed[progress.end() :].strip()
    assert len(message) <= MOST_CHARACTERS
    assert any(name in message for name in row.names), message
    assert after == before
