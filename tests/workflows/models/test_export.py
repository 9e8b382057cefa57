"""nnunet_cil export and info, the lineage in the checkpoint, and the model card."""

import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from test_owners import ended_process
from toy import DATASET, ORGANS, make_trainer, plan_toy, set_environment, train, write_scores

from nnunet_cil.cli import main
from nnunet_cil.content import file_sha256
from nnunet_cil.errors import CILError
from nnunet_cil.model_card import model_card
from nnunet_cil.training.checkpoints import read_checkpoint
from nnunet_cil.workflows.models.export import export
from nnunet_cil.workflows.models.extend import ExtendOptions, extend
from nnunet_cil.workflows.models.info import describe

PGCD = "nnUNetTrainerPGCD"

PREDICT = """
import sys
if {plain}:
    sys.modules["nnunet_cil"] = None  # importing it fails
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
predictor.initialize_from_trained_model_folder({model!r}, (0,))
predictor.predict_from_files([[{image!r}]], [{target!r}], num_processes_preprocessing=1,
                             num_processes_segmentation_export=1)
"""


@pytest.fixture(scope="module")
def trained(_toy_root, tmp_path_factory):
    """nnU-Net's folders with two trained steps; trained once."""
    root = tmp_path_factory.mktemp("trained") / "nnunet"
    shutil.copytree(_toy_root, root)
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, root)
        stale = root / "results" / DATASET / f"{PGCD}__nnUNetPlans_toy_step0__3d_fullres" / "fold_0" / "validation"
        stale.mkdir(parents=True)
        (stale / "summary.json").write_text(json.dumps({"mean": {"1": {"Dice": 0.123}}}))
        models = [
            Path(train(PGCD, name).output_folder_base) for name in plan_toy(root.parent, [ORGANS[2:3], ORGANS[:2]])
        ]
    return root, [model.relative_to(root) for model in models]


@pytest.fixture
def models(trained, tmp_path, monkeypatch):
    """A copy of the two models: their folders (above the folds)."""
    root, folders = trained
    shutil.copytree(root, tmp_path / "nnunet")
    set_environment(monkeypatch, tmp_path / "nnunet")
    return [tmp_path / "nnunet" / folder for folder in folders]


def test_a_checkpoint_for_which_there_is_no_room_is_told_in_a_sentence(models, tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        assert main(["export", str(models[1]), str(tmp_path / "out")]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capsys.readouterr().err.splitlines()[-1].startswith("nnunet_cil: File too large. Raise the limit")
    assert not (tmp_path / "out").exists()


def test_lineage_grows_by_a_record_a_step(models):
    first, second = (read_checkpoint(m / "fold_0/checkpoint_final.pth")["cil"]["lineage"] for m in models)
    assert len(first) == 1
    assert second[0] == first[0]
    assert [r["classes"] for r in second] == [list(ORGANS[2:3]), list(ORGANS[:2])]
    assert second[1]["previous_sha256"] == file_sha256(models[0] / "fold_0/checkpoint_final.pth")
    assert first[0]["previous_sha256"] is None
    assert second[1]["dataset"] == DATASET
    assert second[1]["num_cases"] > 0
    assert set(second[1]["versions"]) == {"nnunet_cil", "nnunetv2", "torch"}


def test_the_model_card_names_every_class_and_how_to_predict(models):
    card = (models[1] / "fold_0/MODEL_CARD.md").read_text()
    for label, (name, step) in enumerate([(ORGANS[2], 0), (ORGANS[0], 1), (ORGANS[1], 1)], start=1):
        assert f"| {label} | {name} | {step} | {DATASET} |" in card
    assert f"nnUNetv2_predict -d {DATASET} -c 3d_fullres -f 0 -tr {PGCD} -p nnUNetPlans_toy_step1" in card
    assert "Not a medical device" in card


def test_the_model_card_has_the_scores_of_its_own_training_only(models):
    """A validation that an earlier training left is not taken for this one's; a class that no case has is blank."""
    from nnunet_cil.lineage import read_lineage

    card = (models[0] / "fold_0/MODEL_CARD.md").read_text()
    assert f"| 1 | {ORGANS[2]} | 0 |" in card
    lineage = read_lineage(read_checkpoint(models[0] / "fold_0/checkpoint_final.pth")["cil"]["lineage"])
    assert "| 0.500 |" in model_card(lineage, {ORGANS[2]: 0.5})
    assert "nan" not in model_card(lineage, {ORGANS[2]: float("nan")})
    assert "0.123" not in card


def test_the_model_card_says_which_steps_saw_old_labels(models):
    trainers = (PGCD, "nnUNetTrainerJoint")
    first, joint = (make_trainer(name, f"nnUNetPlans_toy_step{i}").step_record() for i, name in enumerate(trainers))
    assert "; but step 1 (nnUNetTrainerJoint) used labels of earlier steps, too." in model_card([first, joint], {})
    own = make_trainer(PGCD, "nnUNetPlans_toy_step1").step_record()
    assert "used labels of earlier steps" not in model_card([first, own], {})


def test_scores_of_earlier_steps_stay_on_the_card(models):
    """A step's scores are known when the next one begins, also in what is exported from it."""
    write_scores(models[0] / "fold_0", {"1": {"Dice": 0.456}})
    trainer = train(PGCD, "nnUNetPlans_toy_step1")
    card = (Path(trainer.output_folder) / "MODEL_CARD.md").read_text()
    assert f"| {ORGANS[2]} | 0.456 |  |" in card
    write_scores(Path(trainer.output_folder), {"1": {"Dice": 0.4}, "2": {"Dice": float("nan")}})
    exported = export(models[1], models[1].parent / "exported")
    card = (exported / "fold_0" / "MODEL_CARD.md").read_text()
    assert f"| {ORGANS[2]} | 0.456 | 0.400 |" in card
    assert f"| {ORGANS[0]} |  |  |" in card
    assert f"nnUNetv2_train {DATASET} 3d_fullres 0 -tr {PGCD} -p nnUNetPlans_toy_step1" in card


def test_info_tells_origin_and_prototypes(models, capsys):
    assert main(["info", str(models[1])]) == 0
    text = capsys.readouterr().out
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert rows[2][:5] == ["1", ORGANS[2], "0", DATASET, PGCD]
    assert rows[4][:3] == ["3", ORGANS[1], "1"]
    assert f"Without stray regions, as their labels showed: {ORGANS[2]}, {ORGANS[0]}, {ORGANS[1]}." in text
    bank = read_checkpoint(models[1] / "fold_0/checkpoint_final.pth")["cil"]["prototypes"]
    found = {r[0]: r for r in rows[:-6] if r[0] in ("background", *ORGANS)}
    assert list(found) == ["background", ORGANS[2], *ORGANS[:2]]
    norms = torch.linalg.vector_norm(bank["prototypes"], dim=1)
    assert [float(r[2]) for r in found.values()] == pytest.approx(norms.tolist(), rel=1e-2)
    unit = bank["prototypes"] / norms[:, None]
    similarity = unit @ unit.T - 3 * torch.eye(4)
    names = list(found)
    assert [r[3] for r in found.values()] == [names[i] for i in similarity.argmax(1)]
    pairs = rows[-4:]
    assert [r[0] for r in pairs] == names
    expected = (unit @ unit.T).flatten().tolist()
    assert [float(c) for r in pairs for c in r[1:]] == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_an_exported_model_predicts_the_same_where_this_package_is_not(models, tmp_path):
    out = tmp_path / "plain"
    assert main(["export", str(models[1]), str(out)]) == 0
    plain = out / DATASET / "nnUNetTrainer__nnUNetPlans_toy_step1__3d_fullres"
    image = next((Path(os.environ["nnUNet_raw"]) / DATASET / "imagesTr").iterdir())
    found = []
    for model in (models[1], plain):
        target = tmp_path / f"{model.parents[1].name}.nii.gz"
        code = PREDICT.format(plain=model is plain, model=str(model), image=str(image), target=str(target))
        environment = {**os.environ, "PYTHONPATH": "" if model is plain else os.pathsep.join(sys.path)}
        if model is plain:
            environment.pop("nnUNet_extTrainer")
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(sitk.GetArrayFromImage(sitk.ReadImage(str(target))))
    assert np.array_equal(*found)


def test_an_exported_model_holds_what_prediction_needs_and_its_provenance(models, tmp_path):
    model = export(models[1], tmp_path / "plain")
    content = torch.load(model / "fold_0/checkpoint_final.pth", weights_only=True)
    assert set(content) == {"network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes"}
    original = checkpoint_of(models[1])
    for name, tensor in content["network_weights"].items():
        assert torch.equal(tensor, original["network_weights"][name])
    assert "cil" not in json.loads((model / "plans.json").read_text())
    assert "cil" not in content["init_args"]["plans"]
    described = json.loads((model / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, ORGANS[2]: 1, ORGANS[0]: 2, ORGANS[1]: 3}
    assert described["nnunet_cil"]["lineage"]["fold_0"] == original["cil"]["lineage"]
    assert "-tr nnUNetTrainer -p" in (model / "fold_0/MODEL_CARD.md").read_text()
    text = describe(model)
    assert f"| 1     | {ORGANS[2]}" in text
    assert "not recorded" not in text
    assert original["cil"]["lineage"][1]["previous_sha256"] in text


def checkpoint_of(model):
    return torch.load(model / "fold_0/checkpoint_final.pth", weights_only=False)


def test_the_archive_is_installed_by_nnunet(models, tmp_path, monkeypatch):
    from nnunetv2.model_sharing.model_import import install_model_from_zip_file

    (tmp_path / "model.tmp").mkdir()  # somebody's
    archive = export(models[1], tmp_path / "model.zip", zipped=True)
    assert archive == tmp_path / "model.zip"
    assert sorted(p.name for p in tmp_path.glob("model*")) == ["model.tmp", "model.zip"]
    monkeypatch.setattr("nnunetv2.model_sharing.model_import.nnUNet_results", str(tmp_path / "elsewhere"))
    install_model_from_zip_file(str(archive))
    installed = tmp_path / "elsewhere" / DATASET / "nnUNetTrainer__nnUNetPlans_toy_step1__3d_fullres"
    assert (installed / "fold_0/checkpoint_final.pth").is_file()


def test_nothing_is_overwritten(models, tmp_path):
    model = export(models[1], tmp_path / "plain")
    before = (model / "plans.json").stat().st_mtime_ns
    with pytest.raises(CILError, match="is there already"):
        export(models[1], tmp_path / "plain")
    assert (model / "plans.json").stat().st_mtime_ns == before


def test_what_a_kill_has_left_beside_a_finished_archive_goes_with_the_next_call(models, tmp_path):
    left = tmp_path / f".{ended_process().token}_export"
    left.mkdir()
    archive = tmp_path / "plain.zip"
    archive.write_bytes(b"of an earlier call")
    with pytest.raises(CILError, match="is there already"):
        export(models[1], archive, zipped=True)
    assert not left.exists()


def test_what_is_no_model_is_refused(models, tmp_path, capsys):
    assert main(["export", str(tmp_path), str(tmp_path / "o")]) == 1
    assert "is not the folder of a trained nnU-Net v2 model" in capsys.readouterr().err
    assert main(["info", str(tmp_path)]) == 1
    (tmp_path / "x.pth").write_bytes(b"no")
    with pytest.raises(CILError, match=r"x.pth is not a checkpoint of nnU-Net"):
        describe(tmp_path / "x.pth")
    with pytest.raises(CILError, match=r"x.pth is no folder"):
        export(models[1], tmp_path / "x.pth")


def test_a_network_that_plain_nnunet_would_not_build_is_refused(models, tmp_path):
    file = models[1] / "fold_0/checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    content["network_weights"]["extra.weight"] = torch.zeros(1)
    torch.save(content, file)
    with pytest.raises(CILError, match="plain nnU-Net builds another network"):
        export(models[1], tmp_path / "plain")
    assert not list((tmp_path / "plain").rglob("checkpoint*"))


RUNS_CODE = {"network_class_name": "pathlib.Path.touch", "arch_kwargs": {}, "_kw_requires_import": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(dataset_name="../Dataset001_A"), "dataset_name in plans.json is '../Dataset001_A'"),
        (lambda p: p.update(dataset_name="/elsewhere/Dataset001_A"), "dataset_name"),
        (lambda p: p.update(plans_name="a/../../b"), "plans_name in plans.json is 'a/../../b', which is no name of"),
        (lambda p: p.update(plans_name="a\\b"), "plans_name"),
        (lambda p: p.update(plans_name=None), "plans_name"),
        (lambda p: p["configurations"]["3d_fullres"].update(data_identifier="../x"), "data_identifier of '3d_fullres'"),
        (lambda p: p["configurations"].update({"../2d": p["configurations"]["2d"]}), "the configuration '../2d'"),
        (lambda p: p["configurations"]["2d"].update(architecture=RUNS_CODE), "names 'pathlib.Path.touch'"),
    ],
)
@pytest.mark.parametrize("command", ["export", "extend", "zip"])
def test_a_models_plans_neither_lead_elsewhere_nor_run_code(models, tmp_path, capsys, command, change, message):
    plans = json.loads((models[1] / "plans.json").read_text())
    change(plans)
    (models[1] / "plans.json").write_text(json.dumps(plans))
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "out"
    words = {
        "export": ["export", models[1], out],
        "extend": ["extend", models[1], 17],
        "zip": ["export", models[1], out, "--zip"],
    }
    assert main([str(word) for word in words[command]]) == 1
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("key", ["configuration", "trainer_name"])
def test_a_models_checkpoint_does_not_lead_elsewhere(models, tmp_path, key):
    file = models[1] / "fold_0/checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    (content["init_args"] if key == "configuration" else content)[key] = "x/../../../y"
    torch.save(content, file)
    with pytest.raises(CILError, match="which is no name of a file or folder"):
        export(models[1], tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def everything_in(file):
    """Yields the name and the bytes of a file, and of what it packs."""
    yield file.name.encode() + file.read_bytes()
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                packed = archive.read(name)
                yield name.encode() + packed
                if zipfile.is_zipfile(io.BytesIO(packed)):
                    inner = zipfile.ZipFile(io.BytesIO(packed))
                    yield from (inner.read(member) for member in inner.namelist())


def plant_names(model):
    """Leaves names of cases wherever a data set, its plans or a training may have them."""
    names = [f"MRN-77{i}" for i in range(6)]
    told = {
        "dataset": {name: {"images": [f"{name}_0000.nii.gz"], "label": f"{name}.nii.gz"} for name in names},
        "labelled_classes": {names[0]: [ORGANS[0]], "*": list(ORGANS[:3])},
        "training": [{"image": f"./imagesTr/{name}.nii.gz"} for name in names],
        "test": names,
        "excluded": {"blurred": names[:1]},
    }
    block = {"cases": names[:3], "earlier_cases": [names[3:]], "labelled": {names[1]: [ORGANS[0]]}}
    plans, dataset_json = (json.loads((model / f"{file}.json").read_text()) for file in ("plans", "dataset"))
    plans["cil"].update(block)
    dataset_json.update(told)
    for file, content in {"plans": plans, "dataset": dataset_json}.items():
        (model / f"{file}.json").write_text(json.dumps(content))
    checkpoint = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=False)
    content["init_args"].update(plans=plans, dataset_json=dataset_json)
    torch.save(content, checkpoint)
    for file in (
        "dataset_fingerprint.json",
        "splits_final.json",
        "fold_0/debug.json",
        "fold_0/validation/summary.json",
    ):
        (model / file).parent.mkdir(exist_ok=True)
        (model / file).write_text(json.dumps({"mean": {}, "metric_per_case": [{"prediction_file": names[0]}]}))


@pytest.mark.parametrize("zipped", [False, True])
def test_no_name_of_a_case_leaves_with_an_exported_model(models, tmp_path, zipped):
    plant_names(models[1])
    assert any(b"MRN-77" in packed for f in models[1].rglob("*") if f.is_file() for packed in everything_in(f))
    exported = export(models[1], tmp_path / "plain.zip" if zipped else tmp_path / "plain", zipped=zipped)
    files = [exported] if zipped else [f for f in exported.rglob("*") if f.is_file()]
    written = [packed for file in files for packed in everything_in(file)]
    assert any(b"case_hashes" in packed for packed in written)
    for packed in written:
        assert not re.search(rb"case_\d|MRN-77", packed)


def test_an_exported_model_can_be_extended_and_still_knows_its_training_cases(models, forked_commands, tmp_path):
    """The same data set, where nothing but the exported model tells which cases it was trained on."""
    exported = export(models[0], tmp_path / "plain")
    step = extend(
        exported, DATASET, ExtendOptions(classes=("spleen",), refine=("kidney",), name="again", plans_name="Own")
    )
    split = [{"train": [f"case_{i}" for i in (3, 4, 5)], "val": ["case_0", "case_2"]}]
    (Path(os.environ["nnUNet_preprocessed"]) / DATASET / "splits_final.json").write_text(json.dumps(split))
    with pytest.raises(CILError, match="validates on 'case_0', 'case_2', but step 0"):
        make_trainer(PGCD, step.plans_name).on_train_start()


@pytest.mark.parametrize("name", ["checkpoint_best.pth", "checkpoint_latest.pth"])
@pytest.mark.parametrize("command", ["info", "export"])
def test_a_model_without_a_final_checkpoint_says_which_one_it_has(models, tmp_path, capsys, name, command):
    """And the remedy works."""
    fold = models[1] / "fold_0"
    final = (fold / "checkpoint_final.pth").read_bytes()
    for file in fold.glob("checkpoint_*.pth"):
        file.unlink()
    (fold / name).write_bytes(final)
    words = [command, str(models[1]), *([str(tmp_path / "out")] if command == "export" else [])]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert f"has no checkpoint_final.pth, only fold_0/{name}. Train it to its end" in said
    shutil.copy(fold / name, fold / "checkpoint_final.pth")
    assert main(words) == 0


def test_nnunets_own_archive_of_a_step_installs_and_loads_with_this_package(models, tmp_path, monkeypatch):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.model_sharing.model_export import export_pretrained_model
    from nnunetv2.model_sharing.model_import import install_model_from_zip_file

    fold = models[1] / "fold_0"
    (fold / "validation").mkdir()
    for file in ("progress.png", "validation/summary.json"):  # of a training that the tests do not draw and validate
        (fold / file).write_text("{}")
    export_pretrained_model(DATASET, str(tmp_path / "own.zip"), ("3d_fullres",), PGCD, "nnUNetPlans_toy_step1", (0,))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "elsewhere"))
    install_model_from_zip_file(str(tmp_path / "own.zip"))
    installed = tmp_path / "elsewhere" / DATASET / models[1].name
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(installed), (0,))
    for name, tensor in checkpoint_of(models[1])["network_weights"].items():
        assert torch.equal(predictor.list_of_parameters[0][name], tensor), name
    assert describe(installed).splitlines()[1:] == describe(models[1]).splitlines()[1:]
    monkeypatch.delenv("nnUNet_extTrainer")
    with pytest.raises(RuntimeError, match=rf"Could not find requested nnunet trainer {PGCD} .* `nnUNet_extTrainer`"):
        predictor.initialize_from_trained_model_folder(str(installed), (0,))


def test_the_folder_of_a_model_is_enough_for_nnunets_prediction(models, tmp_path, monkeypatch):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor, predict_entry_point_modelfolder

    loaded = []
    monkeypatch.setattr(nnUNetPredictor, "predict_from_files", lambda self, *_, **__: loaded.append(self))
    moved = models[1].rename(tmp_path / "a_model")
    folds = ["-f", "0", "-device", "cpu", "-i", str(tmp_path), "-o", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_predict_from_modelfolder", "-m", str(moved), *folds])
    predict_entry_point_modelfolder()
    (predictor,) = loaded
    assert predictor.label_manager.foreground_labels == [1, 2, 3]
    assert predictor.dataset_json["labels"] == {"background": 0, ORGANS[2]: 1, ORGANS[0]: 2, ORGANS[1]: 3}
