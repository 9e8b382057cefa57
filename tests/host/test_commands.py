"""Running nnU-Net's commands: what the bar over a training's epochs tells."""

import subprocess
import sys

import pytest
import tqdm

from nnunet_cil.cli import entry
from nnunet_cil.host import commands


@pytest.mark.parametrize(("epochs_after", "told"), [(30, ["01:30", "01:20"]), (0, [])])
def test_the_bar_tells_the_time_that_is_left_for_all_trainings(tmp_path, monkeypatch, epochs_after, told):
    """A training that goes on at epoch 4 of 20, with two seconds an epoch."""
    clock, found = [100.0], []

    def call(_command, _arguments, _environment, _log, watch):
        for second, line in {0: "x: Epoch 4", 1: "anything", 2: "x: Epoch 5", 12: "x: Epoch 10"}.items():
            clock[0] = 100.0 + second
            watch(line)

    monkeypatch.setattr(commands, "call", call)
    monkeypatch.setattr(commands.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(tqdm.tqdm, "set_postfix_str", lambda _bar, text, **_: found.append(text))
    commands.train([], {}, tmp_path / "log.txt", 20, epochs_after)
    assert found == [f"about {time} left for all trainings" for time in told]


@pytest.mark.parametrize("module", ["json", "argparse", "nnunet_cil"])
def test_a_command_imports_nothing_from_the_current_folder(tmp_path, monkeypatch, module):
    """It may be a stranger's."""
    (tmp_path / f"{module}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    commands.call("nnunet_cil", ["schedules"], commands.user_environment(), tmp_path / "logs" / "log.txt")
    assert not (tmp_path / "ran").exists()


def test_no_process_that_a_command_starts_imports_from_the_current_folder(tmp_path, monkeypatch):
    """Those of a pool begin with python -c, too."""
    (tmp_path / "pickle.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["nnunet_cil", "--version"])
    monkeypatch.setenv("PYTHONSAFEPATH", "")  # taken back at the end
    monkeypatch.delenv("PYTHONSAFEPATH")
    with pytest.raises(SystemExit):
        entry()
    subprocess.run([sys.executable, "-c", "import pickle"], check=True)
    assert not (tmp_path / "ran").exists() or sys.version_info < (3, 11)
