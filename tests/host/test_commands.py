"""Running nnU-Net's commands: what the bar over a training's epochs tells."""

import pytest
import tqdm

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
