"""The command line: what it prints, how it exits, how fast it starts."""

import argparse
import errno
import inspect
import json
import os
import pkgutil
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from nnunet_cil.cli import commands, main
from nnunet_cil.cli.main import COMMANDS


def test_a_mistake_is_one_sentence_and_status_1(toy, tmp_path, capsys):
    assert main(["plan", "17", "openkbp_2-2-1"]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith(
        "nnunet_cil: step 0 of openkbp_2-2-1 names 'Brainstem', which is not"
    )
    assert "Traceback" not in captured.err


def test_a_place_that_cannot_be_written_is_one_sentence(toy, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    new = ["schedules", "new", "17", "--steps", "2,2", "-o"]
    assert main([*new, str(tmp_path / "file" / "new.json")]) == 1
    assert "file/new.json). Create what is missing, or name another place." in capsys.readouterr().err

    def refuse(*_arguments, **_options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "there")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert main([*new, str(tmp_path / "new.json")]) == 1
    assert "nnunet_cil: Permission denied (there). Change its permissions" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_help_explains_every_command(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([*command, "-h"])
    assert stop.value.code == 0
    assert len(capsys.readouterr().out) > 150


@pytest.mark.parametrize(
    ("arguments", "parser"),
    [
        (["export", "model", "there", "-o", "out"], "nnunet_cil export"),
        (["run", "17", "2d", "0", "s", "-tr", "T", "--what=1"], "nnunet_cil run"),
    ],
)
def test_an_option_that_a_command_lacks_is_refused_with_that_commands_help(capsys, arguments, parser):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    unknown = "-o out" if "-o" in arguments else "--what=1"
    assert f"{parser}: error: unrecognized arguments: {unknown}. '{parser} -h' explains." in capsys.readouterr().err


def test_every_module_of_the_commands_is_a_command():
    assert sorted(module.name for module in pkgutil.iter_modules(commands.__path__)) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_one_module_with_a_parser_and_a_call(name):
    module = import_module(f"nnunet_cil.cli.commands.{name}")
    functions = [
        f for f, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    assert {f for f in functions if not f.startswith("_")} == {"add_parser", "execute"}
    parser = module.add_parser(argparse.ArgumentParser().add_subparsers())
    assert parser.prog.endswith(f" {name}")
    assert parser.description


def test_the_command_line_starts_without_heavy_imports():
    heavy = ["torch", "numpy", "nnunetv2", "matplotlib", "SimpleITK", "pandas", "scipy", "submitit", "tqdm", "pydantic"]
    code = (
        "import sys, json; from nnunet_cil.cli import main; main(['trainers']); "
        f"print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert json.loads(out.splitlines()[-1]) == []


@pytest.mark.parametrize(
    ("command", "goes_on"),
    [(["demo"], True), (["evaluate", "17", "2d", "0", "s", "-tr", "T"], True), (["doctor"], False)],
)
def test_an_interruption_is_one_line_and_status_130(monkeypatch, capsys, command, goes_on):
    def interrupt(_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"nnunet_cil.cli.commands.{command[0]}.execute", interrupt)
    assert main(command) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("nnunet_cil: Interrupted.")
    assert line.endswith("Run the same command again: it goes on where it stopped.") == goes_on


def test_ctrl_c_ends_a_command_with_one_line_and_status_130(tmp_path):
    # a shell's background jobs ignore SIGINT, and so would what they start
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from nnunet_cil.cli import entry; entry()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "demo", "-o", str(tmp_path / "demo"), "-device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith("nnunet_cil demo: 3 steps, on cpu")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert error == "nnunet_cil: Interrupted. Run the same command again: it goes on where it stopped.\n"
