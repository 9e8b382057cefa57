"""AMOS22 in its official layout."""

import pytest
from conversions import cases, classes, converted, folds
from downloads import (
    ct,
    save,
    write_amos22,
)

from nnunet_cil.cli import main
from nnunet_cil.datasets import amos22
from nnunet_cil.errors import CILError


@pytest.mark.parametrize(
    ("modality", "channel", "train", "val"),
    [
        ("CT", "CT", ["amos_0001", "amos_0004"], ["amos_0008"]),
        ("MR", "MRI", ["amos_0507"], ["amos_0510"]),
        ("both", "CT or MRI", ["amos_0001", "amos_0004", "amos_0507"], ["amos_0008", "amos_0510"]),
    ],
)
def test_amos22(raw, source, modality, channel, train, val):
    folder, content, _ = converted("amos22", write_amos22(source), modality=modality)
    assert folds(folder) == [{"train": train, "val": val}]
    assert content["channel_names"] == {"0": channel}
    assert classes(content) == amos22.CLASSES


def test_amos22_validation_cases_as_a_test_set(raw, source):
    folder, _, _ = converted("amos22", write_amos22(source), split="test")
    assert cases(folder, "Ts") == ["amos_0008"]
    assert folds(folder) == []


def test_options_of_the_command(raw, source, capsys):
    arguments = ["convert", "amos22", str(write_amos22(source)), "40", "--modality", "MR", "--split", "test"]
    assert main(arguments) == 0
    assert "1 training and 1 test cases are in" in capsys.readouterr().out
    assert main([*arguments[:4], "--modality", "PET"]) == 1
    assert "--modality 'PET' is unknown" in capsys.readouterr().err


def test_a_ct_among_the_mr_of_amos_is_found(raw, source):
    write_amos22(source)
    save(ct(7), source / "amos22/imagesTr/amos_0507.nii.gz")
    with pytest.raises(CILError, match=r"amos_0507: values from -1000 to .* look like CT"):
        converted("amos22", source, modality="MR")
