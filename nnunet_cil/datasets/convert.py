"""Writing nnU-Net's raw data set from a checked download: resumable, with links where nnU-Net can read the files.

``converted_from.json`` beside the cases says from which numbers and source files they were written, so that what has been
corrected since is written again.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nnunet_cil.content import files_sha256
from nnunet_cil.datasets.download import Case, Dataset
from nnunet_cil.datasets.findings import Examined, Findings
from nnunet_cil.datasets.parallel import in_parallel
from nnunet_cil.datasets.volumes import Source, read_file, write_volume
from nnunet_cil.errors import CILError
from nnunet_cil.files import moved_into_place, read_json, shortened, write_json
from nnunet_cil.host.folders import check_room
from nnunet_cil.host.splits import NUM_FOLDS, SPLIT_SEED, SPLITS_FILE
from nnunet_cil.validation import validated

Transfer = Literal["link", "copy", "move"]
"""How a file that nnU-Net can read as it is comes into the raw data set."""


RECORD = "converted_from.json"

_REMEDY = "Remove that folder, or choose another data set ID."


@dataclass(frozen=True, kw_only=True)
class _Record:
    """The content of ``converted_from.json``.

    Attributes:
        numbers: class -> number in the source's label files.
        files: file in the target -> SHA-256 of all files that its case was written or copied from.
    """

    numbers: dict[str, int]
    files: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A raw data set, and how many of its cases this call had to write."""

    folder: Path
    num_train: int
    num_test: int
    num_written: int


def write(findings: Findings, target: Path, *, transfer: Transfer = "link", num_processes: int = 1) -> Converted:
    """Writes a raw data set; cases that are there already stay as they are, unless their source files have changed.

    Args:
        findings: a data set without blocking problems.
        target: e.g. ``nnUNet_raw/Dataset017_BTCV``.
        transfer: how files come into the folder that nnU-Net can read as they are.
        num_processes: cases written at the same time.

    Raises:
        CILError: blocking problems, another data set or other numbers in the target, or too little room.
    """
    dataset = findings.dataset
    if not findings.is_usable:
        raise CILError(f"{dataset.name} has problems that must be mended first.")
    cases = [e.case for e in findings.examined]
    refuse_other(target, dataset, cases)
    record = _read_record(target, dataset)
    written_from = dict(record.files)
    changed = _changed(findings.examined, target, written_from)
    todo = [e for e in findings.examined if not all(f.exists() and f not in changed for f in _files(e.case, target))]
    _check_room(target, todo, transfer)
    target.mkdir(parents=True, exist_ok=True)
    for file in changed:
        file.unlink()
    write_json(target / "dataset.json", {**_read_json(target / "dataset.json"), **dataset_json(dataset, cases)})
    folds = splits(cases)
    if folds:
        write_json(target / SPLITS_FILE, folds)
    write_one = partial(write_case, numbers=dict(dataset.numbers), target=target, transfer=transfer)
    for sources in in_parallel(write_one, todo, num_processes, f"Writing {dataset.name}"):
        written_from |= sources
        write_json(target / RECORD, {"numbers": record.numbers, "files": written_from})
    num_test = sum(case.part == "test" for case in cases)
    return Converted(folder=target, num_train=len(cases) - num_test, num_test=num_test, num_written=len(todo))


def refuse_other(target: Path, dataset: Dataset, cases: Sequence[Case]) -> None:
    """Refuses a target with other labels or cases, which belongs to another conversion.

    Raises:
        CILError: there are such.
    """
    expected = {f for case in cases for f in _files(case, target)}
    there = [f for folder in ("Tr", "Ts") for f in sorted((target / f"labels{folder}").glob("[!.]*"))]
    others = [f.name.removesuffix(".nii.gz") for f in there if f not in expected]
    labels = _read_json(target / "dataset.json").get("labels")
    if others or labels not in (None, dataset_json(dataset, cases)["labels"]):
        what = f"the case {others[0]!r}" if others else "other labels"
        raise CILError(f"{target} holds {what} from another conversion. {_REMEDY}")
    numbers = _read_record(target, dataset).numbers
    if numbers != dict(dataset.numbers):
        raise CILError(f"The labels in {target} were written from other numbers, {shortened(numbers)}. {_REMEDY}")


def dataset_json(dataset: Dataset, cases: Sequence[Case]) -> dict[str, Any]:
    """Returns nnU-Net's ``dataset.json``, with reference, licence and citation."""
    return {
        "channel_names": {str(i): name for i, name in enumerate(dataset.channels)},
        "labels": {"background": 0, **{name: i for i, name in enumerate(dataset.numbers, start=1)}},
        "numTraining": sum(case.part != "test" for case in cases),
        "file_ending": ".nii.gz",
        "name": dataset.name,
        "reference": dataset.reference,
        "licence": dataset.licence,
        "citation": dataset.citation,
        "test": sorted(case.name for case in cases if case.part == "test"),
    }


def splits(cases: Sequence[Case]) -> list[dict[str, list[str]]]:
    """Returns nnU-Net's ``splits_final.json``; empty: nnU-Net makes its own.

    Official validation cases make one fold. Otherwise, where patients have several cases, theirs stay in one fold.
    """
    kept = [case for case in cases if case.part != "test"]
    if any(case.part == "val" for case in kept):
        return [{part: sorted(c.name for c in kept if c.part == part) for part in ("train", "val")}]
    patients = sorted({case.patient for case in kept})
    if patients in ([], [""]) or len(patients) < NUM_FOLDS:
        return []
    random.Random(SPLIT_SEED).shuffle(patients)
    fold_of = {patient: i % NUM_FOLDS for i, patient in enumerate(patients)}
    return [
        {
            "train": sorted(c.name for c in kept if fold_of[c.patient] != fold),
            "val": sorted(c.name for c in kept if fold_of[c.patient] == fold),
        }
        for fold in range(NUM_FOLDS)
    ]


def _changed(examined: Sequence[Examined], target: Path, written_from: Mapping[str, str]) -> set[Path]:
    """Returns the files in the target, written or copied, of cases one of whose sources has changed since."""
    recorded = {
        e.case: [file for file in _own_files(e.case, target) if _name(file, target) in written_from] for e in examined
    }
    return {
        file
        for case, files in recorded.items()
        for file in files
        if written_from[_name(file, target)] != files_sha256(_source_files(case))
    }


def _own_files(case: Case, target: Path) -> list[Path]:
    """Returns the files of a case in the raw data set that are there and no links."""
    return [file for file in _files(case, target) if file.is_file() and not file.is_symlink()]


def _source_files(case: Case) -> list[Path]:
    """Returns all files that a case is read from: its labels are written onto the image's grid."""
    return [file for source in (*case.images, case.labels) for file in source.files]


def _name(file: Path, target: Path) -> str:
    return file.relative_to(target).as_posix()


def write_case(examined: Examined, *, numbers: Mapping[str, int], target: Path, transfer: Transfer) -> dict[str, str]:
    """Writes or links the files of a case, the labels last: a case with labels is complete.

    Returns:
        File in the target -> SHA-256 of the case's sources; without links, and empty where sources have been moved.
    """
    case = examined.case
    _write_files(examined, numbers, target, transfer)
    sources, own = _source_files(case), _own_files(case, target)
    if not own or not all(file.is_file() for file in sources):
        return {}
    return {_name(file, target): files_sha256(sources) for file in own}


def _write_files(examined: Examined, numbers: Mapping[str, int], target: Path, transfer: Transfer) -> None:
    case = examined.case
    *image_files, label_file = _files(case, target)
    reference = None
    for source, file, as_is in zip(case.images, image_files, examined.image_as_is, strict=True):
        if not file.exists() and as_is:
            _transfer(source, file, transfer)
        elif not file.exists():
            image = source.read().image
            if file != image_files[0]:  # nnU-Net has no tolerance: all channels on exactly the first one's grid
                reference = reference or read_file(image_files[0]).image
                image.CopyInformation(reference)
            write_volume(image, file)
    if label_file.exists():
        return
    if examined.labels_as_is:
        _transfer(case.labels, label_file, transfer)
    else:
        write_volume(_relabelled(case.labels, numbers, reference or read_file(image_files[0]).image), label_file)


def _relabelled(source: Source, numbers: Mapping[str, int], reference: Any) -> Any:
    """Reads labels and numbers them 1, 2, ... in the order of ``numbers``, on the image's grid."""
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(source.read().image)
    if not np.issubdtype(array.dtype, np.integer):
        array = np.rint(array).astype(np.int32)
    table = np.zeros(max(numbers.values()) + 1, dtype=np.uint8 if len(numbers) < 256 else np.uint16)
    for label, number in enumerate(numbers.values(), start=1):
        table[number] = label
    picture = sitk.GetImageFromArray(table[array])
    picture.CopyInformation(reference)
    return picture


def _transfer(source: Source, file: Path, transfer: Transfer) -> None:
    (original,) = source.files
    with moved_into_place(file) as temporary:
        temporary.unlink(missing_ok=True)
        if transfer == "link":
            try:
                temporary.symlink_to(original.resolve())
            except OSError as error:
                raise CILError(
                    f"{file.parent} cannot hold links ({error.strerror}). Copy the files with --copy."
                ) from error
        elif transfer == "copy":
            shutil.copyfile(original, temporary)
        else:
            shutil.move(original, temporary)


def _files(case: Case, target: Path) -> list[Path]:
    """Returns the files of a case in the raw data set: the image of each channel, then the labels."""
    folder = "Ts" if case.part == "test" else "Tr"
    images = [target / f"images{folder}" / f"{case.name}_{i:04d}.nii.gz" for i in range(len(case.images))]
    return [*images, target / f"labels{folder}" / f"{case.name}.nii.gz"]


def _check_room(target: Path, todo: Sequence[Examined], transfer: Transfer) -> None:
    """Refuses to begin what the disk cannot hold; what is written is taken to be as large as what it is read from."""
    files = {
        f
        for e in todo
        for source, as_is in [*zip(e.case.images, e.image_as_is, strict=True), (e.case.labels, e.labels_as_is)]
        if not as_is or transfer == "copy"
        for f in source.files
    }
    check_room(target, sum(f.stat().st_size for f in files))


def _read_record(target: Path, dataset: Dataset) -> _Record:
    """Reads the record of earlier calls; that of none, where there is no file."""
    if not (file := target / RECORD).exists():
        return _Record(numbers=dict(dataset.numbers), files={})
    found: _Record = validated(_Record, read_json(file, _REMEDY), str(file), _REMEDY)
    return found


def _read_json(file: Path) -> dict[str, Any]:
    """Reads a JSON object; empty where there is no file."""
    return read_json(file, _REMEDY) if file.exists() else {}
