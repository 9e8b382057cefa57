"""Tiny volumes in the layout of real downloads."""

from __future__ import annotations

import json
import locale
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SHAPE = (6, 10, 12)
"""Slices, rows, columns."""


def ct(seed: int = 0) -> np.ndarray:
    """Generates a bright body in air, in Hounsfield units."""
    image = np.full(SHAPE, -1000, dtype=np.int16)
    image[:, 1:-1, 1:-1] = np.random.default_rng(seed).integers(-100, 300, (SHAPE[0], SHAPE[1] - 2, SHAPE[2] - 2))
    return image


def mr(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 500, SHAPE).astype(np.int16)


def label_map(*numbers: int) -> np.ndarray:
    """Returns labels of which each fills a column of its own; the rest is background."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for i, number in enumerate(numbers):
        labels[1:-1, 2 + i // 10, 1 + i % 10] = number
    return labels


def save(array: np.ndarray, file: Path, *, spacing=(0.8, 0.8, 3.0), origin=(-10.0, 5.0, 40.0)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = sitk.GetImageFromArray(array, isVector=False)
    more = array.ndim - 3
    picture.SetSpacing([*spacing, *([1.0] * more)])
    picture.SetOrigin([*origin, *([0.0] * more)])
    sitk.WriteImage(picture, str(file))
    return file


def read(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def write_generic(folder: Path, cases: int = 3, numbers=(1, 2)) -> Path:
    """Writes ``images``, ``labels`` and ``names.json``; returns the folder, as all these functions do."""
    for i in range(cases):
        save(ct(i), folder / "images" / f"case{i}_0000.nii.gz")
        save(label_map(*numbers), folder / "labels" / f"case{i}.nii.gz")
    names = {"name": "Mine", "labels": dict(zip(("liver", "spleen"), numbers, strict=True))}
    (folder / "names.json").write_text(json.dumps(names))
    return folder


def pair(image: np.ndarray, labels: np.ndarray, image_file: Path, label_file: Path, **geometry) -> None:
    save(image, image_file, **geometry)
    save(labels, label_file, **geometry)


def mac_twin(file: Path) -> None:
    """Writes the file that macOS's tar leaves beside another."""
    (file.parent / f"._{file.name}").write_bytes(b"\x00\x05\x16\x07")


def write_btcv(folder: Path) -> Path:
    for i, case in enumerate(("0001", "0005", "0035")):
        image = folder / "RawData/Training/img" / f"img{case}.nii.gz"
        pair(ct(i), label_map(*range(1, 14)), image, image.parents[1] / "label" / f"label{case}.nii.gz")
        mac_twin(image)
    save(ct(9), folder / "RawData/Testing/img/img0061.nii.gz")
    return folder


def write_word(folder: Path) -> Path:
    for i, (part, case) in enumerate((("Tr", "0002"), ("Tr", "0003"), ("Val", "0001"), ("Ts", "0007"))):
        root = folder / "WORD-V0.1.0"
        files = [root / f"{kind}{part}" / f"word_{case}.nii.gz" for kind in ("images", "labels")]
        pair(ct(i), label_map(*range(1, 17)), *files)
    return folder


def write_amos22(folder: Path) -> Path:
    for i, (part, case) in enumerate((("Tr", 1), ("Tr", 4), ("Tr", 507), ("Va", 8), ("Va", 510))):
        files = [folder / "amos22" / f"{kind}{part}" / f"amos_{case:04d}.nii.gz" for kind in ("images", "labels")]
        pair(ct(i) if case <= 500 else mr(i), label_map(*range(1, 16)), *files)
    save(ct(9), folder / "amos22/imagesTs/amos_0002.nii.gz")
    return folder


def write_flare22(folder: Path) -> Path:
    for i, case in enumerate(("0001", "0002")):
        root = folder / "FLARE22Train"
        image, labels = root / f"images/FLARE22_Tr_{case}_0000.nii.gz", root / f"labels/FLARE22_Tr_{case}.nii.gz"
        pair(ct(i), label_map(*range(1, 14)), image, labels)
    return folder


def write_msd(folder: Path, *, channels: int = 1) -> Path:
    """Writes Task04 with one channel and labels as floats in one file, or Task05 with channels in a fourth dimension."""
    task = folder / ("Task04_Hippocampus" if channels == 1 else "Task05_Prostate")
    names = ("Anterior", "Posterior") if channels == 1 else ("PZ", "TZ")
    entries = []
    for i, case in enumerate(("001", "003")):
        name = f"{task.name[7:].lower()}_{case}.nii.gz"
        image = mr(i) if channels == 1 else np.stack([mr(10 * i + c) for c in range(channels)])
        save(image, task / "imagesTr" / name)
        save(label_map(1, 2).astype(np.float32 if i else np.uint8), task / "labelsTr" / name)
        mac_twin(task / "imagesTr" / name)
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    save(mr(9), task / "imagesTs/hippocampus_002.nii.gz")
    content = {
        "name": task.name[7:].upper(),
        "licence": "CC-BY-SA 4.0",
        "modality": {"0": "MRI"} if channels == 1 else {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": names[0], "2": names[1]},
        "training": entries,
        "test": ["./imagesTs/hippocampus_002.nii.gz"],
    }
    (task / "dataset.json").write_text(json.dumps(content))
    return folder


def write_abdomenct1k(folder: Path) -> Path:
    parts = ("AbdomenCT-1K-ImagePart1", "AbdomenCT-1K-ImagePart2/AbdomenCT-1K-ImagePart2")
    for i, part in enumerate(parts):
        case = f"Case_{400 * i + 1:05d}"
        pair(ct(i), label_map(1, 2, 3, 4), folder / part / f"{case}_0000.nii.gz", folder / "Mask" / f"{case}.nii.gz")
    save(ct(9), folder / "AbdomenCT-1K-ImagePart3/Case_01001_0000.nii.gz")
    return folder


def write_totalsegmentator(folder: Path, structures) -> Path:
    """Writes meta.csv with semicolons and a byte order mark, and one binary file a structure; two of them overlap."""
    rows = ["image_id;age;gender;institute;study_type;split"]
    for i, (subject, part) in enumerate((("s0011", "train"), ("s0201", "train"), ("s0013", "val"), ("s0029", "test"))):
        rows.append(f"{subject};60;m;A;ct abdomen;{part}")
        save(ct(i), folder / subject / "ct.nii.gz")
        labels = label_map(*range(1, len(structures) + 1))
        for number, name in enumerate(structures, start=1):
            mask = labels == number
            if number == 2:
                mask |= (labels == 1) & (np.arange(SHAPE[0]) == 1)[:, None, None]
            save(mask.astype(np.uint8), folder / subject / "segmentations" / f"{name}.nii.gz")
    (folder / "meta.csv").write_text("\n".join(rows) + "\n", encoding="utf-8-sig")
    return folder


def save_dicom(array: np.ndarray, folder: Path, names, *, from_top: bool, uid: str, modality: str) -> None:
    """Writes a series, one file a slice. ``array``'s first slice lies at the bottom; the first file is top or bottom."""
    folder.mkdir(parents=True)
    before = locale.setlocale(locale.LC_ALL)  # writing DICOM sets it to C, for good
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for i, name in enumerate(names):
        z = len(array) - 1 - i if from_top else i
        picture = sitk.GetImageFromArray(array[z].astype(np.int16))
        picture.SetSpacing((0.8, 0.8))
        tags = {
            "0008|0060": modality,
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2" if modality == "CT" else "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"1.2.3.{uid}.{i + 1}",
            "0020|000d": f"1.2.3.{uid}.98",
            "0020|000e": f"1.2.3.{uid}.99",
            "0020|0013": str(i + 1),
            "0020|0032": f"-10\\5\\{40 + 3 * z}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0018|0050": "3",
        }
        for tag, value in tags.items():
            picture.SetMetaData(tag, value)
        writer.SetFileName(str(folder / name))
        writer.Execute(picture)
    locale.setlocale(locale.LC_ALL, before)


def save_pngs(grey: np.ndarray, folder: Path, names, *, from_top: bool) -> None:
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        z = len(grey) - 1 - i if from_top else i
        sitk.WriteImage(sitk.GetImageFromArray(grey[z].astype(np.uint8)), str(folder / name))


CHAOS_GREYS = np.array([0, 63, 126, 189, 252])


def write_chaos(folder: Path) -> Path:
    """Writes CT that begins at the top in one patient and at the bottom in the other, and MR with names that agree."""
    top = folder / "CHAOS_Train_Sets" / "Train_Sets"
    numbers = range(SHAPE[0])
    for i, (patient, from_top) in enumerate((("1", False), ("10", True))):
        names = [f"i{n:04d},0000b.dcm" for n in numbers]
        save_dicom(ct(i), top / "CT" / patient / "DICOM_anon", names, from_top=from_top, uid=f"1{i}", modality="CT")
        pngs = [f"liver_GT_{n:03d}.png" for n in numbers]
        save_pngs(slanted(1) * 255, top / "CT" / patient / "Ground", pngs, from_top=from_top)
    for sequence, series in (("T1DUAL", ("InPhase", "OutPhase")), ("T2SPIR", ("",))):
        root = top / "MR" / "2" / sequence
        names = [f"IMG-0004-{2 * n + 1:05d}" for n in numbers]
        for i, name in enumerate(series):
            dicom = [f"{n}.dcm" for n in names]
            save_dicom(mr(5 + i), root / "DICOM_anon" / name, dicom, from_top=True, uid=f"2{i}", modality="MR")
        save_pngs(CHAOS_GREYS[slanted(4)], root / "Ground", [f"{n}.png" for n in names], from_top=True)
    return folder


def slanted(number: int) -> np.ndarray:
    """Returns labels 1 to ``number`` that differ from slice to slice, so that a wrong order of slices is noticed."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for z in range(SHAPE[0]):
        labels[z, 2, : z + 3] = 1 + np.arange(z + 3) % number
    return labels


def write_acdc(folder: Path) -> Path:
    """Writes two frames a patient; patient002's end of systole is only in the 4D file; a test patient is uncompressed."""
    for i, (part, patient, systole) in enumerate((("training", 1, 3), ("training", 2, 2), ("testing", 101, 2))):
        root = folder / "database" / part / f"patient{patient:03d}"
        sequence = np.stack([mr(10 * i + t) for t in range(4)])
        save(sequence, root / f"{root.name}_4d.nii.gz")
        (root / "Info.cfg").write_text(f"ED: 1\nES: {systole}\nGroup: DCM\nNbFrame: 4\n")
        ending = "nii" if patient == 101 else "nii.gz"
        for frame in (1, systole):
            name = f"{root.name}_frame{frame:02d}"
            save(label_map(1, 2, 3), root / f"{name}_gt.{ending}")
            if (patient, frame) != (2, 2):
                save(sequence[frame - 1], root / f"{name}.{ending}")
    return folder
