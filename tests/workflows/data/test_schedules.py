"""``nnunet_cil schedules``, and that every shipped schedule fits what its converter writes."""

import json
from pathlib import Path

import pytest
from downloads import (
    label_map,
    save,
    write_acdc,
    write_amos22,
    write_btcv,
    write_generic,
    write_msd,
    write_word,
)

from nnunet_cil.cli import main
from nnunet_cil.datasets import phantom
from nnunet_cil.datasets.catalogue import find
from nnunet_cil.datasets.openkbp import DEFAULT_ORGANS
from nnunet_cil.datasets.totalsegmentator import GROUPS
from nnunet_cil.errors import CILError
from nnunet_cil.labels import check_classes
from nnunet_cil.schedule import load_schedule, shipped_schedules
from nnunet_cil.workflows.data.convert import convert
from nnunet_cil.workflows.data.schedules import new


@pytest.fixture
def dataset(raw, tmp_path, monkeypatch) -> None:
    """Dataset040_Mine with liver, spleen (the smaller) and kidney (the largest), the current folder elsewhere."""
    source = write_generic(tmp_path / "mine")
    for i in range(3):
        labels = label_map(1, 2, 3, 3, 3, 1)
        save(labels, source / "labels" / f"case{i}.nii.gz")
    names = {"name": "Mine", "labels": {"liver": 1, "spleen": 2, "kidney": 3}}
    (source / "names.json").write_text(json.dumps(names))
    convert("generic", source, 40, options={"names": source / "names.json"})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize(
    ("order", "seed", "name", "classes"),
    [
        ("label", 0, "mine_2-1", ["liver", "spleen", "kidney"]),
        ("size", 0, "mine_2-1_by-size", ["kidney", "liver", "spleen"]),
        ("name", 0, "mine_2-1_by-name", ["kidney", "liver", "spleen"]),
        ("random", 3, "mine_2-1_random3", None),
    ],
)
def test_a_new_schedule_is_valid_and_in_order(dataset, order, seed, name, classes):
    file = new(40, [2, 1], order=order, seed=seed)
    assert file == Path(f"{name}.json")
    schedule = load_schedule(file)
    assert schedule.name == name
    assert [len(step.classes) for step in schedule.steps] == [2, 1]
    if classes is None:
        assert sorted(schedule.classes_until(9)) == ["kidney", "liver", "spleen"]
        assert load_schedule(new(40, [2, 1], order=order, seed=seed, output=Path("again.json"))) == schedule
    else:
        assert list(schedule.classes_until(9)) == classes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["40", "--steps", "2,2"], "--steps 2,2 are 4 classes, but Dataset040_Mine has 3: liver, spleen, kidney."),
        (["40", "--steps", "3,0"], "Every step needs at least one"),
        (["40", "--steps", "2+1"], "--steps '2+1' should be whole numbers with commas between"),
        (
            ["40", "--steps", "2,1", "--order", "big"],
            "--order 'big' is unknown. It is one of label, size, name, random.",
        ),
        (["41", "--steps", "2,1"], "There is no data set '41'"),
        (["40"], "'schedules new' needs --steps"),
        ([], "'schedules new' needs DATASET"),
    ],
)
def test_bad_requests_are_refused(dataset, capsys, arguments, message):
    assert main(["schedules", "new", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_nothing_is_overwritten(dataset, capsys):
    assert main(["schedules", "new", "40", "--steps", "2,1"]) == 0
    assert "step 1: kidney" in capsys.readouterr().out
    with pytest.raises(CILError, match=r"mine_2-1.json exists already"):
        new(40, [2, 1])


def test_schedules_are_listed_and_explained(capsys):
    assert main(["schedules"]) == 0
    out = capsys.readouterr().out
    assert all(f"| {name} " in out for name in shipped_schedules())
    assert main(["schedules", "openkbp_2-2-1"]) == 0
    out = capsys.readouterr().out
    assert "openkbp_2-2-1: 5 classes in 2-2-1" in out
    assert "  step 1: RightParotid, LeftParotid\n    num_epochs = 1000\n    mirror_axes = []" in out
    assert main(["schedules", "openkbp_2-2-1", "40"]) == 1
    assert "Only 'new' takes a data set" in capsys.readouterr().err
    assert main(["schedules", "openkbp_221"]) == 1
    assert "did you mean 'openkbp_2-2-1'" in capsys.readouterr().err


def openkbp(folder):
    for patient in ("train-pats/pt_1", "test-pats/pt_2"):
        (folder / patient).mkdir(parents=True)
        for organ in DEFAULT_ORGANS:
            (folder / patient / f"{organ}.csv").touch()
    return folder


def totalsegmentator(folder):
    folder.mkdir()
    (folder / "meta.csv").write_text("image_id;split\ns0011;train\n")
    return folder


CONVERTERS = {
    "btcv": ("btcv", write_btcv, {}),
    "word": ("word", write_word, {}),
    "amos22": ("amos22", write_amos22, {}),
    "acdc": ("acdc", write_acdc, {}),
    "hippocampus": ("msd", write_msd, {}),
    "openkbp": ("openkbp", openkbp, {}),
    "totalsegmentator": ("totalsegmentator", totalsegmentator, {"classes": list(GROUPS)}),
}
"""First part of a schedule's name -> the converter, what writes its download, and its options."""


@pytest.mark.parametrize("name", sorted(shipped_schedules()))
def test_every_shipped_schedule_fits_what_its_converter_writes(name, tmp_path):
    schedule = load_schedule(name)
    prefix = name.split("_")[0]
    if prefix == "phantom":
        numbers = phantom.LABELS
    else:
        converter, write, options = CONVERTERS[prefix]
        numbers = find(converter, write(tmp_path / "download"), options).numbers
    check_classes([step.classes for step in schedule.steps], numbers, schedule=name, dataset=prefix)


def test_totalsegmentators_organs_are_learnt_by_their_schedule():
    assert set(load_schedule("totalsegmentator_9-8-7").classes_until(9)) == set(GROUPS["organs"])


def test_listed_files_are_ordered_by_size(dataset, raw, tmp_path):
    folder = raw / "Dataset040_Mine"
    (folder / "labelsTr").rename(tmp_path / "elsewhere")
    content = json.loads((folder / "dataset.json").read_text())
    content["dataset"] = {
        f"case{i}": {"images": [f"imagesTr/case{i}_0000.nii.gz"], "label": str(tmp_path / f"elsewhere/case{i}.nii.gz")}
        for i in range(3)
    }
    content["labels"] = {name: str(number) for name, number in content["labels"].items()}
    (folder / "dataset.json").write_text(json.dumps(content))
    assert load_schedule(new(40, [2, 1], order="size")).classes_until(9) == ("kidney", "liver", "spleen")
