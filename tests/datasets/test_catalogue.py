"""Checks what holds for every data set of the catalogue."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conversions import converted
from downloads import (
    ct,
    label_map,
    read,
    save,
    write_abdomenct1k,
    write_acdc,
    write_amos22,
    write_btcv,
    write_chaos,
    write_flare22,
    write_msd,
    write_totalsegmentator,
    write_word,
)

from nnunet_cil.cli import main
from nnunet_cil.datasets.catalogue import NAMES
from nnunet_cil.datasets.totalsegmentator import GROUPS
from nnunet_cil.errors import CILError
from nnunet_cil.workflows.data.convert import convert

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-data-set.md"


def two_channels(folder):
    return write_msd(folder, channels=2)


def organs(folder):
    return write_totalsegmentator(folder, GROUPS["organs"])


OFFICIAL = {
    "btcv": ("btcv", write_btcv, {}),
    "word": ("word", write_word, {}),
    "amos22": ("amos22", write_amos22, {"modality": "MR"}),
    "flare22": ("flare22", write_flare22, {}),
    "msd": ("msd", write_msd, {}),
    "msd with channels": ("msd", two_channels, {}),
    "abdomenct1k": ("abdomenct1k", write_abdomenct1k, {}),
    "totalsegmentator": ("totalsegmentator", organs, {}),
    "chaos ct": ("chaos", write_chaos, {}),
    "chaos mr": ("chaos", write_chaos, {"modality": "T1DUAL"}),
    "acdc": ("acdc", write_acdc, {}),
}


def test_every_data_set_says_what_it_expects(raw, tmp_path):
    for name in NAMES:
        options = {"names": tmp_path / "names.json"} if name == "generic" else {}
        (tmp_path / "names.json").write_text('{"name": "A", "labels": {"liver": 1}}')
        with pytest.raises(CILError, match=r"expected|holds no"):
            convert(name, tmp_path / "nnunet", 41, options=options)


def test_options_are_checked_by_data_set(mine, raw, capsys):
    assert main(["convert", "generic", str(mine), "5"]) == 1
    assert "generic needs --names." in capsys.readouterr().err
    assert main(["convert", "generic", str(mine), "5", "--classes", "liver"]) == 1
    assert "generic takes no --classes" in capsys.readouterr().err


@pytest.mark.parametrize("what", OFFICIAL)
def test_nnunets_own_check_is_content_with_every_converter(raw, source, what, capsys):
    from nnunetv2.experiment_planning import verify_dataset_integrity as check

    name, write, options = OFFICIAL[what]
    folder, _, _ = converted(name, write(source), **options)
    check.verify_dataset_integrity(str(folder), num_processes=1)
    out = capsys.readouterr().out
    assert "verify_dataset_integrity Done" in out
    assert "Warning" not in out


def test_every_converter_is_tested():
    assert {name for name, _, _ in OFFICIAL.values()} | {"openkbp", "generic"} == set(NAMES)


def test_the_example_of_adding_a_data_set_is_converted(raw, source, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), re.S)
    module = ModuleType("nnunet_cil.datasets.twoorgans")
    exec(textwrap.dedent(code), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(NAMES, "twoorgans", "TwoOrgans: the folder with scans and masks")
    for kind, volume in (("scans", ct(1)), ("masks", label_map(1, 2))):
        save(volume, source / "TwoOrgans" / kind / "case1.nii.gz")
    folder, content, text = converted("twoorgans", source)
    assert folder.name == "Dataset040_TwoOrgans"
    assert content["labels"] == {"background": 0, "liver": 1, "spleen": 2}
    assert np.array_equal(read(folder / "labelsTr/case1.nii.gz"), label_map(1, 2))
    assert "1 of the 30 labelled cases" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["amos22", "acdc"])
def test_nnunet_finds_the_converted_data_set_in_order(raw, source, forked_commands, name):
    write = {"amos22": write_amos22, "acdc": write_acdc}[name]
    converted(name, write(source))
    code = (
        "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry as f; f()"
    )
    arguments = ["-d", "40", "-c", "3d_fullres", "--verify_dataset_integrity", "-np", "1", "-npfp", "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "nnUNet_n_proc_DA": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "verify_dataset_integrity Done" in done.stdout
    assert "Warning" not in done.stdout
    assert "Error" not in done.stdout
