"""nnunet_cil compare with models that predict: plain ones, ours and exported ones."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import DATASET, LABELS, toy_volume
from toy_models import make_plain_model, own_copy, write

from nnunet_cil.errors import CILError
from nnunet_cil.host.commands import CommandError
from nnunet_cil.workflows.compare.compare import CompareOptions, compare
from nnunet_cil.workflows.evaluate import predict as predicting
from nnunet_cil.workflows.models.export import export


@pytest.fixture(scope="module")
def _model(_toy_root, tmp_path_factory):
    """A model of plain nnU-Net with two folds, which look trained, and images; made once."""
    root = tmp_path_factory.mktemp("models") / "nnunet"
    shutil.copytree(_toy_root, root)
    model = make_plain_model(root)
    (root / "images").mkdir()
    for i in range(3):
        write(toy_volume(i)[0] * 50 + 60, root / "images" / f"t{i}_0000.nii.gz")
    return root, model


@pytest.fixture
def model(_model, tmp_path, monkeypatch):
    return own_copy(*_model, tmp_path, monkeypatch)


@pytest.fixture
def calls(monkeypatch):
    """A stand-in for nnU-Net's prediction, and its calls; the second model loses the spleen."""
    found = []

    def predict(arguments, _environment, _log, num_cases):
        found.append((arguments, num_cases))
        output = Path(arguments[arguments.index("-o") + 1])
        for i in range(3):
            if not (output / f"t{i}.nii.gz").exists():
                labels = toy_volume(i)[1]
                write(np.where(labels == 2, 0, labels) if output.name == "B" else labels, output / f"t{i}.nii.gz")

    monkeypatch.setattr(predicting, "predict", predict)
    return found


def options(model, other, tmp_path, **changed):
    images = model.parents[2] / "images"
    return CompareOptions(
        **{
            "model_a": model,
            "model_b": other,
            "images": images,
            "output": tmp_path / "out",
            "num_pictures": 0,
            **changed,
        }
    )


def test_a_model_and_its_export_predict_with_all_their_folds(model, tmp_path, calls):
    export(model, tmp_path / "exported")  # given as it was to export, above the data set's folder
    found = compare(options(model, tmp_path / "exported", tmp_path, device="cpu"))
    (first, num_first), (second, _) = calls
    assert (first[:5], num_first) == (["-m", str(model), "-f", "0", "1"], 3)
    assert second[1].endswith(f"exported/{DATASET}/nnUNetTrainer__nnUNetPlans__3d_fullres")
    assert first[first.index("-device") + 1] == "cpu"
    rows = {row["class"]: row for row in found.content["classes"]}
    assert (rows["spleen"]["dice"], rows["spleen"]["num_vanished"], rows["liver"]["dice"]) == (0.0, 3, 1.0)
    assert set(found.content["model_a"]["checkpoints_sha256"]) == {"fold 0", "fold 1"}


def test_an_interrupted_prediction_goes_on_and_a_finished_one_is_kept(model, tmp_path, calls, monkeypatch):
    asked = options(model, model, tmp_path, folds=("1",))
    whole = predicting.predict

    def interrupted(arguments, environment, log, num_cases):
        whole(arguments, environment, log, num_cases)
        if arguments[arguments.index("-o") + 1].endswith("B"):
            (tmp_path / "out" / "predictions" / "B" / "t1.nii.gz").unlink()
            raise CommandError("killed")

    monkeypatch.setattr(predicting, "predict", interrupted)
    with pytest.raises(CommandError, match="killed"):
        compare(asked)
    assert [num for _, num in calls] == [3, 3]
    monkeypatch.setattr(predicting, "predict", whole)
    compare(asked)
    assert calls[2][1] == 1
    assert "--continue_prediction" in calls[2][0]
    compare(asked)
    assert len(calls) == 3


def test_predictions_of_another_fold_are_made_anew(model, tmp_path, calls):
    compare(options(model, model, tmp_path, folds=("1",)))
    compare(options(model, model, tmp_path, folds=("0",)))
    assert [num for _, num in calls] == [3, 3, 3, 3]
    assert "--continue_prediction" not in calls[2][0]


def test_a_model_without_images_is_refused(model, tmp_path, calls):
    with pytest.raises(CILError, match=r"MODEL_A is a model, which needs images to predict\. Give them with -i"):
        compare(options(model, model, tmp_path, images=None))
    assert not calls


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.replace(file.with_name("t1_0001.nii.gz")), r"'t1' lacks .*t1_0000.* names 1 channels"),
        (lambda file: shutil.copy(file, file.with_name("t1_0001.nii.gz")), r"t1_0001.* is one channel more than"),
        (lambda file: file.write_bytes(file.read_bytes()[:-900]), r"t1_0000\.nii\.gz is cut off or damaged"),
    ],
)
def test_images_that_the_models_cannot_predict_are_refused_before(model, tmp_path, calls, change, message):
    change(model.parents[2] / "images" / "t1_0000.nii.gz")
    with pytest.raises(CILError, match=message):
        compare(options(model, model, tmp_path))
    assert not calls


def test_a_fold_that_is_not_there_or_alone_is_refused(model, tmp_path, calls):
    other = tmp_path / "other" / model.name
    shutil.copytree(model, other)
    with pytest.raises(CILError, match=r"no trained fold 4, only 0, 1\. Choose with -f"):
        compare(options(model, other, tmp_path, folds=("4",)))
    with pytest.raises(CILError, match=r"is one fold\. Give the folder above it"):
        compare(options(model, other / "fold_0", tmp_path))
    assert not calls


def test_a_model_is_compared_with_predictions_that_are_there(model, tmp_path, calls):
    there = tmp_path / "model" / "fold_0" / "validation"  # as nnU-Net leaves them, without a dataset.json of their own
    there.mkdir(parents=True)
    (tmp_path / "model" / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "MR"}, "labels": LABELS, "file_ending": ".nii.gz"})
    )
    for i in range(3):
        write(toy_volume(i)[1], there / f"t{i}.nii.gz")
    found = compare(options(there, model, tmp_path, images=model.parents[2] / "images"))
    assert len(calls) == 1
    assert found.content["model_a"]["folds"] == []
    assert found.content["mean_dice"] == pytest.approx(0.75)


def test_a_model_of_a_trainer_that_is_not_installed_is_predicted_from_a_plain_copy(model, tmp_path, calls):
    file = model / "fold_1" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    torch.save({**content, "trainer_name": "nnUNetTrainerOfAnotherHospital"}, file)
    asked = options(model, model, tmp_path, folds=("1",))
    shutil.rmtree(model / "fold_0")
    compare(asked)
    copy = calls[0][0][1]
    assert copy.startswith(str(tmp_path / "out" / "models"))
    assert copy.endswith("nnUNetTrainer__nnUNetPlans__3d_fullres")
    assert torch.load(f"{copy}/fold_1/checkpoint_final.pth", weights_only=False)["trainer_name"] == "nnUNetTrainer"
    assert {call[0][1] for call in calls} == {copy}  # of both sides, which are one model


def test_kept_predictions_that_are_compared_are_not_replaced(model, tmp_path, calls):
    """The predictions of one comparison are a side, or the reference, of the next."""
    compare(options(model, model, tmp_path, output=tmp_path / "out"))
    kept, images = tmp_path / "out" / "predictions" / "B", model.parents[2] / "images"
    shutil.copy(model / "dataset.json", kept)
    before = (kept / "t0.nii.gz").read_bytes()
    for arguments in (
        options(kept, model, tmp_path, images=images, output=tmp_path / "out"),
        options(model, model, tmp_path, images=images, labels=kept, output=tmp_path / "out"),
    ):
        with pytest.raises(
            CILError, match=r"would go to .*predictions/B, where those of .* Give another folder with -o"
        ):
            compare(arguments)
    assert (kept / "t0.nii.gz").read_bytes() == before
    compare(options(kept, model, tmp_path, images=images, output=tmp_path / "elsewhere"))


def test_predictions_that_somebody_else_made_are_not_removed(model, tmp_path, calls):
    file = tmp_path / "out" / "predictions" / "A" / "t1.nii.gz"
    file.parent.mkdir(parents=True)
    write(toy_volume(1)[1], file)
    before = file.read_bytes()
    with pytest.raises(CILError, match=r"t1\.nii\.gz is there, but nothing says who has predicted it\. Move it away"):
        compare(options(model, model, tmp_path, output=tmp_path / "out"))
    assert file.read_bytes() == before
    file.unlink()
    compare(options(model, model, tmp_path, output=tmp_path / "out"))
