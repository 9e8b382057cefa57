"""``nnunet_cil doctor``: what is found, and what to set."""

import pytest

from nnunet_cil.cli import main


def test_doctor_is_content_when_everything_is_set(toy, capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "MISSING" not in out
    assert "found by nnU-Net in nnunet_cil.training.methods.pgcd" in out


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("nnUNet_raw", None, "nnUNet_raw: not set"),
        ("nnUNet_results", "nowhere", "nowhere is not a folder"),
        ("nnUNet_extTrainer", None, 'export nnUNet_extTrainer="$(nnunet_cil trainers)"'),
        ("nnUNet_extTrainer", "elsewhere", "does not hold nnunet_cil's trainers"),
    ],
)
def test_doctor_says_what_to_set(toy, monkeypatch, capsys, variable, value, message):
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    assert main(["doctor"]) == 1
    assert message in capsys.readouterr().out
