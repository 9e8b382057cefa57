"""Looks at what a schedule left: one lineage, nothing trained twice, nothing left over, scores of the models that are there."""

from __future__ import annotations

import csv
import hashlib
import math
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_EPOCH = re.compile(r": Epoch (\d+)\s*$", re.M)


def names_in(folder: Path) -> list[str]:
    """Returns the paths of all files and empty folders below a folder; the logs of a training, one a call, count as one."""
    found = set()
    for path in folder.rglob("*"):
        if path.is_file() or path.is_symlink() or not any(path.iterdir()):
            found.add(re.sub(r"training_log_[\d_]+\.txt", "training_log.txt", str(path.relative_to(folder))))
    return sorted(found)


def differences(folder: Path, reference: Path) -> list[str]:
    """Returns a sentence for every file that is missing, or that nobody asked for."""
    there, expected = set(names_in(folder)), set(names_in(reference))
    hidden = [n for n in expected if any(part.startswith(".") for part in Path(n).parts)]
    return [
        *(f"the undisturbed run leaves a hidden file: {name}" for name in hidden),
        *(f"missing: {name}" for name in sorted(expected - there)),
        *(f"left over: {name}" for name in sorted(there - expected)),
    ]


def content_differences(folder: Path, reference: Path) -> list[str]:
    """Returns a sentence for every file that has another content than the reference's."""
    pairs = ((f, folder / f.relative_to(reference)) for f in sorted(reference.rglob("*")) if f.is_file())
    return [f"other content: {b.relative_to(folder)}" for a, b in pairs if b.is_file() and _digest(a) != _digest(b)]


def _digest(file: Path) -> str:
    """Returns a hash of a file's content; of an archive's entries, without their times."""
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            return str([(e.filename, e.CRC) for e in sorted(archive.infolist(), key=lambda e: e.filename)])
    return hashlib.sha256(file.read_bytes()).hexdigest()


def folds_of(results: Path) -> list[Path]:
    """Returns the folders of all trained folds below nnUNet_results."""
    return sorted(file.parent for file in results.rglob("checkpoint_final.pth"))


def training_faults(results: Path, num_epochs: int) -> Iterator[str]:
    """Yields what was trained twice: a training goes on at its last epoch, and a finished one never begins again."""
    for fold in folds_of(results):
        begun: int | None = None
        ended = False
        for log in sorted(fold.glob("training_log_*.txt"), key=_time_of):
            text = log.read_text(encoding="utf-8", errors="replace")
            for number, epoch in enumerate(map(int, _EPOCH.findall(text))):
                if ended:
                    yield f"{_short(fold)}: epoch {epoch} after the training was done"
                goes_on = (0,) if begun is None else (begun, begun + 1) if number == 0 else (begun + 1,)
                if epoch not in goes_on:
                    yield f"{_short(fold)}: epoch {epoch} after epoch {begun}"
                begun = epoch
            ended = ended or "Training done." in text
        if begun != num_epochs - 1:
            yield f"{_short(fold)}: the last epoch is {begun}, not {num_epochs - 1}"


def epochs_begun(results: Path) -> int:
    """Returns how many epochs were begun, all trainings together."""
    return sum(
        len(_EPOCH.findall(log.read_text(encoding="utf-8", errors="replace")))
        for log in results.rglob("training_log_*.txt")
    )


def _time_of(log: Path) -> tuple[int, ...]:
    return tuple(map(int, log.stem.removeprefix("training_log_").split("_")))


def _short(fold: Path) -> str:
    return f"{fold.parent.name}/{fold.name}"


def lineage_faults(results: Path) -> Iterator[str]:
    """Yields what is wrong with the chain of hashes: each model stands on the final checkpoint that is there."""
    from nnunet_cil.content import file_sha256
    from nnunet_cil.training.checkpoints import read_checkpoint
    from nnunet_cil.training.state import StepState

    digests = {fold: file_sha256(fold / "checkpoint_final.pth") for fold in folds_of(results)}
    for fold in digests:
        state = StepState.from_checkpoint(read_checkpoint(fold / "checkpoint_final.pth"))
        if state is None:
            continue
        expected = None
        for record, later in zip(state.lineage, [*state.lineage[1:], None], strict=True):
            if record.previous_sha256 != expected:
                yield f"{_short(fold)}: step {record.step} stands on another model"
            name = f"{record.trainer}__{record.plans}__{record.configuration}"
            expected = digests.get(results / record.dataset / name / f"fold_{record.fold}")
            if later is not None and expected is None:
                yield f"{_short(fold)}: the model of step {record.step} is not there"


def prediction_faults(results: Path, images: Path) -> Iterator[str]:
    """Yields validation cases whose prediction is not the one that the final checkpoint makes."""
    import contextlib
    import io

    import SimpleITK as sitk
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    for fold in folds_of(results):
        predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
        name = fold.name.removeprefix("fold_")
        with contextlib.redirect_stdout(io.StringIO()):
            predictor.initialize_from_trained_model_folder(str(fold.parent), (int(name),), "checkpoint_final.pth")
        for file in sorted((fold / "validation").glob("*.nii.gz")):
            image = images / file.name.replace(".nii.gz", "_0000.nii.gz")
            with contextlib.redirect_stdout(io.StringIO()):
                (found,) = predictor.predict_from_files_sequential([[str(image)]], None)
            if not np.array_equal(found, sitk.GetArrayFromImage(sitk.ReadImage(str(file)))):
                yield f"{_short(fold)}: the prediction of {file.name} is another model's"


def score_faults(results: Path, preprocessed: Path, evaluation: Path) -> Iterator[str]:
    """Yields rows of ``per_case.csv`` whose Dice is not that of the fold's prediction, and models without rows."""
    import json

    import SimpleITK as sitk

    with (evaluation / "per_case.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = json.loads((preprocessed / "dataset.json").read_text())["labels"]
    read: dict[Path, Any] = {}

    def labels(file: Path) -> Any:
        if file not in read:
            read[file] = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        return read[file]

    folds = folds_of(results)
    for fold in folds:
        trainer, plans, _ = fold.parent.name.split("__")
        step, name = plans.rsplit("_step", 1)[1], fold.name.removeprefix("fold_")
        own = [r for r in rows if (r["trainer"], r["step"], r["fold"]) == (trainer, step, name)]
        if not own:
            yield f"{_short(fold)}: no scores"
        channels = json.loads((fold.parent / "dataset.json").read_text())["labels"]
        for row in own:
            case = f"{row['case']}.nii.gz"
            prediction = labels(fold / "validation" / case) == channels[row["class"]]
            reference = labels(preprocessed / "gt_segmentations" / case) == numbers[row["class"]]
            total = prediction.sum() + reference.sum()
            dice = 2 * (prediction & reference).sum() / total if total else math.nan
            if not np.isclose(dice, float(row["dice"]), equal_nan=True):
                yield f"{_short(fold)}: {row['case']}, {row['class']} has a Dice of {dice}, not {row['dice']}"
