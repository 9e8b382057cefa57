"""nnU-Net's own commands on real MR, from raw data to predictions: planning, preprocessing, two steps, prediction."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from toy import write_schedule
from toy_commands import fork_commands

from nnunet_cil.host.plans_files import small_plans
from nnunet_cil.shipped import trainers_folder
from nnunet_cil.workflows.plan.plan import plan

REAL = Path(__file__).parents[3] / "shared" / "data" / "Dataset904_Hippocampus"
DATASET = "Dataset904_Hippocampus"
ENTRY_POINTS = {
    "plan_and_preprocess": "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints:plan_and_preprocess_entry",
    "train": "nnunetv2.run.run_training:run_training_entry",
    "predict": "nnunetv2.inference.predict_from_raw_data:predict_entry_point",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REAL.is_dir(), reason="needs shared/data/Dataset904_Hippocampus beside the project"),
]


def call(command, *arguments):
    module, function = ENTRY_POINTS[command].split(":")
    code = f"from {module} import {function}; {function}()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "nnUNet_n_proc_DA": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def link(source, target, files):
    target.mkdir(parents=True)
    for file in files:
        (target / file).symlink_to(source / file)


def use(monkeypatch, folder):
    for variable, name in (("raw", "raw"), ("preprocessed", "pre"), ("results", "results")):
        monkeypatch.setenv(f"nnUNet_{variable}", str(folder / name))
    monkeypatch.setenv("nnUNet_extTrainer", str(trainers_folder()))


@pytest.fixture(scope="module")
def preprocessed(tmp_path_factory, request):
    """Twelve training and two test cases of the real data set, linked, and preprocessed by nnU-Net, with a tiny network."""
    root = tmp_path_factory.mktemp("hippocampus")
    raw = root / "raw" / DATASET
    cases = sorted(f.name for f in (REAL / "labelsTr").iterdir())[:12]
    link(REAL / "labelsTr", raw / "labelsTr", cases)
    link(REAL / "imagesTr", raw / "imagesTr", [c.replace(".nii.gz", "_0000.nii.gz") for c in cases])
    test = sorted(f.name for f in (REAL / "imagesTs").iterdir())[:2]
    link(REAL / "imagesTs", raw / "imagesTs", test)
    content = json.loads((REAL / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps({**content, "numTraining": 12}))
    (root / "pre").mkdir()
    (root / "results").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        use(patch, root)
        fork_commands(patch, request)
        call("plan_and_preprocess", "-d", "904", "-c", "3d_fullres", "-np", "2", "-npfp", "2")
    folder = root / "pre" / DATASET
    base = json.loads((folder / "nnUNetPlans.json").read_text())
    small = small_plans(base, "Small", "3d_fullres", features=[4, 8, 16], patch_size=[24, 32, 24], batch_size=2)
    (folder / "Small.json").write_text(json.dumps(small))
    return root


@pytest.fixture
def hippocampus(preprocessed, tmp_path, monkeypatch):
    """A copy of it, as nnU-Net's folders."""
    shutil.copytree(preprocessed, tmp_path, symlinks=True, dirs_exist_ok=True)
    use(monkeypatch, tmp_path)
    return tmp_path


@pytest.fixture
def planned(hippocampus):
    """A schedule."""
    training = {"num_iterations_per_epoch": 5, "num_val_iterations_per_epoch": 1, "save_every": 1, "mirror_axes": []}
    training["num_epochs"] = 2
    return write_schedule(hippocampus, [["Posterior"], ["Anterior"]], name="hippocampus_reverse", training=training)


def test_two_steps_on_real_mr_with_nnunets_commands(hippocampus, planned, forked_commands):
    steps = plan("904", planned, base_plans="Small")
    common = ["-tr", "nnUNetTrainerPGCD", "-device", "cpu"]
    for step in steps:
        call("train", "904", "3d_fullres", "0", "-p", step.plans_name, *common)
    last = steps[-1].plans_name
    out = hippocampus / "out"
    raw = hippocampus / "raw" / DATASET
    where = ["-i", str(raw / "imagesTs"), "-o", str(out), "-npp", "1", "-nps", "1"]
    call("predict", "-d", "904", "-c", "3d_fullres", "-f", "0", "-p", last, *common, *where)

    model = hippocampus / "results" / DATASET / f"nnUNetTrainerPGCD__{last}__3d_fullres"
    assert json.loads((model / "dataset.json").read_text())["labels"] == {
        "background": 0,
        "Posterior": 1,
        "Anterior": 2,
    }
    summary = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())
    card = (model / "fold_0" / "MODEL_CARD.md").read_text()
    assert [f"{summary['mean'][c]['Dice']:.3f} |" in card for c in ("1", "2")] == [True, True]
    truth = sitk.GetArrayFromImage(sitk.ReadImage(summary["metric_per_case"][0]["reference_file"]))
    name = Path(summary["metric_per_case"][0]["reference_file"]).name
    original = sitk.GetArrayFromImage(sitk.ReadImage(str(REAL / "labelsTr" / name)))
    assert np.array_equal(truth, np.array([0, 2, 1])[np.rint(original).astype(int)])
    for file in sorted((raw / "imagesTs").iterdir()):
        image = sitk.ReadImage(str(file))
        found = sitk.ReadImage(str(out / file.name.replace("_0000.nii.gz", ".nii.gz")))
        assert found.GetSize() == image.GetSize()
        assert found.GetSpacing() == pytest.approx(image.GetSpacing())


def test_a_run_that_is_killed_three_times_ends_where_it_should(hippocampus, planned):
    """Killed with its children, at moments of all kinds; what was finished by then is not touched again."""
    raw = hippocampus / "raw" / DATASET
    link(REAL / "labelsTs", raw / "labelsTs", [f.name.replace("_0000", "") for f in (raw / "imagesTs").iterdir()])
    out, trainer = hippocampus / "out", "nnUNetTrainerPGCD"
    command = [sys.executable, "-m", "nnunet_cil.cli", "run", "904", "3d_fullres", "0", str(planned), "-tr", trainer]
    command += ["-p", "Small", "-device", "cpu", "-o", str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "nnUNet_n_proc_DA": "1"}

    def start():
        with (hippocampus / "run.txt").open("a") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def finished():
        models = (hippocampus / "results" / DATASET).glob("nnUNetTrainer*/fold_0")
        files = [m / "checkpoint_final.pth" for m in models if (m / "validation" / "summary.json").is_file()]
        files += (out / "scores").glob("[!.]*.json")  # a hidden one is not written to its end
        return {f: f.stat().st_mtime_ns for f in files}

    for moment in (
        "results/*/nnUNetTrainerPGCD__*step0*/fold_0/checkpoint_latest.pth",
        "results/*/nnUNetTrainerPGCD__*step1*/fold_0/checkpoint_latest.pth",
        "out/scores/[!.]*_step0_*.json",
    ):
        process = start()
        deadline = time.monotonic() + 300
        while not any(hippocampus.glob(moment)) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        before = finished()
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, (hippocampus / "run.txt").read_text()[-3000:]
    assert start().wait(timeout=500) == 0, (hippocampus / "run.txt").read_text()[-3000:]
    after = finished()
    assert len(before) == 2 + 1  # models, scores
    assert {f: after[f] for f in before} == before
    assert len(after) == 2 + 2
    content = json.loads((out / "results.json").read_text())
    assert len(content["trainers"][trainer]["dice"][0]["all"]) == 2
    assert (out / "report.html").stat().st_size > 100_000
