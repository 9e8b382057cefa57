"""benchmarks/nnunet_matrix.py in short: a cascade of two steps from its trainings to an ensemble, and checks that can fail."""

import json
from pathlib import Path

import nnunet_matrix
import numpy as np
import pytest
import SimpleITK as sitk
from toy import base_plans, preprocess, set_environment, toy_volume
from toy_commands import call as nnunet
from toy_commands import train

from nnunet_cil.cli import main
from nnunet_cil.workflows.run import run as workflow
from nnunet_cil.workflows.tools import tools

LOW, CASCADE = "3d_lowres", "3d_cascade_fullres"
TRAINING = {"num_epochs": 1, "num_iterations_per_epoch": 2, "num_val_iterations_per_epoch": 1, "mirror_axes": []}


@pytest.fixture
def source(tmp_path):
    """Boxes for hippocampi."""
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / "source" / part).mkdir(parents=True)
    for i in range(5):
        for part, ending, array in zip(("imagesTr", "labelsTr"), ("_0000", ""), toy_volume(i, 2), strict=True):
            file = tmp_path / "source" / part / f"h_{i}{ending}.nii.gz"
            sitk.WriteImage(sitk.GetImageFromArray(array), str(file))
    return tmp_path / "source"


@pytest.fixture
def matrix(source, tmp_path, monkeypatch):
    """Plain labels, laid out, planned and preprocessed with toy networks; every command runs in this process."""
    work, kind = tmp_path / "work", nnunet_matrix.KINDS["labels"]
    for name in ("raw", "preprocessed", "results"):
        (work / name).mkdir(parents=True)
    set_environment(monkeypatch, work)
    nnunet_matrix.lay_out(source, kind, work, num_cases=4, num_tests=1)
    folder = work / "preprocessed" / kind.dataset
    folder.mkdir()
    for name, content in (
        ("dataset.json", json.loads((work / "raw" / kind.dataset / "dataset.json").read_text())),
        (f"{nnunet_matrix.PLANS}.json", toy_plans(kind.dataset)),
        ("dataset_fingerprint.json", {}),
    ):
        (folder / name).write_text(json.dumps(content))
    preprocess(folder, nnunet_matrix.PLANS, (LOW, "3d_fullres"))
    nnunet_matrix.write_split(folder)
    in_this_process(monkeypatch)
    return nnunet_matrix.Matrix(
        kind=kind, configurations=(LOW, CASCADE), work=work, call=called(monkeypatch), least_dice=0.0
    )


def toy_plans(dataset):
    """Returns the toy's plans with the low resolution and the cascade that the script adds."""
    plans = base_plans(name=nnunet_matrix.PLANS)
    plans["dataset_name"] = dataset
    made = nnunet_matrix.tiny_plans(
        {**plans, "configurations": {k: plans["configurations"][k] for k in ("2d", "3d_fullres")}}
    )
    for name in (LOW, "3d_fullres"):
        own = made["configurations"][name]
        own["architecture"] = plans["configurations"]["3d_fullres"]["architecture"]
        own["patch_size"] = [16, 16, 16] if name == "3d_fullres" else [8, 8, 8]
    return made


def in_this_process(monkeypatch):
    """Lets ``run`` train in this process."""
    monkeypatch.setattr(workflow, "train", lambda arguments, *_: train(arguments))


def called(monkeypatch):
    def call(command, arguments, *_):
        if command == "nnunet_cil":
            assert main(arguments) == 0
        elif command == "nnUNetv2_train":
            train(arguments)
        else:
            nnunet(monkeypatch, command, arguments)

    def call_tool(command, arguments, environment, *_):
        with monkeypatch.context() as patched:
            for name in ("nnUNet_raw", "nnUNet_preprocessed"):
                patched.setenv(name, environment[name])
            call(command, arguments)

    monkeypatch.setattr(tools, "call", call_tool)
    return call


def test_a_cascade_learns_two_steps_and_nnunets_tools_agree_with_ours(matrix, tmp_path):
    matrix.run(nnunet_matrix.write_schedule(matrix.kind, matrix.work, TRAINING), "cpu")
    apart = [row for row in matrix.rows if row["what"] == "nnU-Net's Dice less ours"]
    assert [(row["configuration"], row["class"]) for row in apart] == [
        (configuration, name) for configuration in (LOW, CASCADE) for name in ("Anterior", "Posterior")
    ]
    assert all(row["is_right"] for row in apart)
    assert {row["what"] for row in matrix.rows if row["configuration"] == f"{LOW} and {CASCADE}"} == {
        "Dice of the ensemble",
        "Dice, postprocessed",
    }
    predicted = matrix.work / "predicted" / matrix.kind.dataset
    labels = {int(v) for f in predicted.rglob("*.nii.gz") for v in np.unique(nnunet_matrix.read(f))}
    assert labels <= {0, 1, 2}
    file = matrix.results / "evaluation" / f"{nnunet_matrix.PLANS}_matrix__{CASCADE}" / "per_case.csv"
    before = nnunet_matrix.mean_dice(file, 1)
    lines = file.read_text().splitlines()
    header = lines[0].split(",")
    changed = lines[-1].split(",")
    changed[header.index("dice")] = "0.987654"
    file.write_text("\n".join([*lines[:-1], ",".join(changed)]) + "\n")
    assert nnunet_matrix.mean_dice(file, 1) != before
    matrix.rows.clear()
    matrix.check_cross_validation()
    assert not all(row["is_right"] for row in matrix.rows)


def test_the_four_kinds_are_nnunets(source, tmp_path):
    for name, kind in nnunet_matrix.KINDS.items():
        nnunet_matrix.lay_out(source, kind, tmp_path / "w", num_cases=2, num_tests=1)
        raw = tmp_path / "w" / "raw" / kind.dataset
        content = json.loads((raw / "dataset.json").read_text())
        assert ("ignore" in content["labels"]) == ("ignore" in name)
        assert ("regions_class_order" in content) == ("regions" in name)
        values = set(np.unique(nnunet_matrix.read(raw / "labelsTr" / "h_0.nii.gz")).tolist())
        assert values == {0, 1, 2} | ({3} if "ignore" in name else set())
    tests = tmp_path / "w" / "tests" / "labels"
    assert [file.name for file in tests.iterdir()] == ["h_2.nii.gz"]
    assert 3 not in np.unique(nnunet_matrix.read(Path(tests / "h_2.nii.gz")))


def test_the_table_has_a_row_a_cell_and_one_of_the_ensemble(tmp_path):
    def cell(configuration, **values):
        return [
            f"Dataset998_Matrix_ignore,{configuration},{w},{c},{v},True" for w, own in values.items() for c, v in own
        ]

    what = {"apart": nnunet_matrix.APART, "own": nnunet_matrix.VALIDATED, "new": nnunet_matrix.PREDICTED}
    what |= {"both": nnunet_matrix.ENSEMBLE, "after": nnunet_matrix.POSTPROCESSED}
    rows = cell("2d", apart=[("a", 0.0), ("b", 2e-16)], own=[("a", 0.5), ("b", 0.75)], new=[("a", 0.25), ("b", 1.0)])
    rows += cell("2d and 3d", both=[("a", 0.5), ("b", 0.125)], after=[("a", 0.625), ("b", 0.125)])
    for name, told in what.items():
        rows = [row.replace(f",{name},", f',"{told}",') for row in rows]
    (tmp_path / "m.csv").write_text("\n".join(["kind,configuration,what,class,value,is_right", *rows]))
    assert nnunet_matrix.table(tmp_path / "m.csv").splitlines()[2:] == [
        "| Matrix_ignore | 2d | 0.500 / 0.750 | 2e-16 | 0.250 / 1.000 |  |",
        "| Matrix_ignore | 2d and 3d |  |  | 0.500 / 0.125 | 0.625 / 0.125 |",
    ]
