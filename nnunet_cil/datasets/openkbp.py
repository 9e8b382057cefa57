"""OpenKBP: head-and-neck planning CT with contoured organs at risk, as the public open-kbp repository ships it.

Source: Babier et al. 2021, OpenKBP: The open-access knowledge-based planning grand challenge and dataset,
https://doi.org/10.1002/mp.14845, https://github.com/ababier/open-kbp (MIT licence).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nnunet_cil.errors import CILError, did_you_mean

GRID = (128, 128, 128)
"""Every patient's grid: row (anterior to posterior), column (patient's right to left), slice (superior to inferior)."""

ORGANS = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Mandible", "Esophagus", "Larynx")
"""The organs that open-kbp contours; every default label set is taken from the front."""

DEFAULT_ORGANS = ORGANS[:5]
"""Those that most patients have."""

MARGIN = 2
"""Voxels kept around the patient when the air (CT 0) around is cut away."""


@dataclass
class Report:
    """What a conversion did.

    Attributes:
        written: cases converted now, or by an earlier, interrupted run.
        incomplete: case -> structures that it lacks.
        overlaps: case -> number of voxels that two structures claimed (the lower label won).
    """

    written: list[str] = field(default_factory=list)
    incomplete: dict[str, list[str]] = field(default_factory=dict)
    overlaps: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Volume:
    """A patient as SimpleITK stores it: arrays (slice, row, column), spacing and origin (x, y, z) in mm."""

    image: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    num_overlapping: int


def convert(
    source: Path,
    target: Path,
    *,
    organs: Sequence[str] = DEFAULT_ORGANS,
    cases: Mapping[str, Sequence[str]] | None = None,
    keep_incomplete: bool = False,
) -> Report:
    """Writes an nnU-Net raw data set from a clone of open-kbp. A second call goes on where the first was stopped.

    Args:
        source: the clone, or its folder ``provided-data``.
        target: the data set's folder, e.g. ``nnUNet_raw/Dataset900_OpenKBP``.
        organs: label 1, 2, ...
        cases: ``{"train": [...], "test": [...]}`` to take just these; None: ``train-pats`` and ``validation-pats``
            train, ``test-pats`` test.
        keep_incomplete: keep patients who lack a structure. They have the organ, only its contour is missing, so
            they are left out by default.

    Raises:
        CILError: no patients, unknown organs or cases, or a file that is not as open-kbp ships it.
    """
    from tqdm import tqdm

    for organ in organs:
        if organ not in ORGANS:
            raise CILError(f"open-kbp has no organ {organ!r}{did_you_mean(organ, ORGANS)}.")
    patients = find_patients(source)
    parts = _partition(patients, cases)
    report = Report()
    for case in sorted(c for names in parts.values() for c in names):
        missing = [organ for organ in organs if not (patients[case] / f"{organ}.csv").is_file()]
        if missing:
            report.incomplete[case] = missing
    if not keep_incomplete:
        parts = {part: [c for c in names if c not in report.incomplete] for part, names in parts.items()}
    if not parts["Tr"]:
        raise CILError(f"No training patient of {source} has all of {', '.join(organs)}. Choose other organs.")
    _write_dataset_json(target, organs, parts)
    todo = [(part, case) for part, names in parts.items() for case in names]
    for part, case in tqdm(todo, desc="Converting OpenKBP", unit="patient"):
        image = target / f"images{part}" / f"{case}_0000.nii.gz"
        label = target / f"labels{part}" / f"{case}.nii.gz"
        volume = read_patient(patients[case], organs)
        if volume.num_overlapping:
            report.overlaps[case] = volume.num_overlapping
        if not (image.is_file() and label.is_file()):
            _write(volume.image, volume, image)
            _write(volume.labels, volume, label)
        report.written.append(case)
    return report


def find_patients(source: Path) -> dict[str, Path]:
    """Case name (``openkbp_001``) -> patient folder."""
    root = source / "provided-data" if (source / "provided-data").is_dir() else source
    found = {
        f"openkbp_{int(m[1]):03d}": p
        for p in sorted(root.glob("*-pats/pt_*"))
        if p.is_dir() and (m := re.fullmatch(r"pt_(\d+)", p.name))
    }
    if not found:
        raise CILError(
            f"{source} holds no patients: expected provided-data/train-pats/pt_1 and so on, as in a clone of "
            "https://github.com/ababier/open-kbp."
        )
    return found


def _partition(patients: Mapping[str, Path], cases: Mapping[str, Sequence[str]] | None) -> dict[str, list[str]]:
    if cases is None:
        test = [c for c, folder in patients.items() if folder.parent.name == "test-pats"]
        return {"Tr": [c for c in patients if c not in test], "Ts": test}
    parts = {"Tr": list(cases.get("train", [])), "Ts": list(cases.get("test", []))}
    missing = [c for names in parts.values() for c in names if c not in patients]
    if missing:
        raise CILError(f"{len(missing)} of the wanted cases are not in the source, the first is {missing[0]!r}.")
    return parts


def read_patient(folder: Path, organs: Sequence[str]) -> Volume:
    """Reads one patient, cuts the air around away, and turns it to SimpleITK's axes (LPS orientation)."""
    indices, values = _read_csv(folder / "ct.csv", with_values=True)
    image = np.zeros(np.prod(GRID), dtype=np.int16)
    image[indices] = np.rint(values)
    labels = np.zeros(np.prod(GRID), dtype=np.uint8)
    num_claims = np.zeros(np.prod(GRID), dtype=np.uint8)
    for number in range(len(organs), 0, -1):  # the lower label is written last and wins
        file = folder / f"{organs[number - 1]}.csv"
        if file.is_file():
            voxels, _ = _read_csv(file, with_values=False)
            labels[voxels] = number
            num_claims[voxels] += 1
    row_mm, column_mm, slice_mm = _read_spacing(folder / "voxel_dimensions.csv")
    arrays = [a.reshape(GRID).transpose(2, 0, 1)[::-1] for a in (image, labels)]
    body = np.argwhere(arrays[0] > 0)
    if not len(body):
        raise CILError(f"{folder / 'ct.csv'} has no voxel above 0.")
    low = np.maximum(body.min(0) - MARGIN, 0)
    high = np.minimum(body.max(0) + 1 + MARGIN, arrays[0].shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    z, y, x = (int(i) for i in low)
    return Volume(
        image=np.ascontiguousarray(arrays[0][box]),
        labels=np.ascontiguousarray(arrays[1][box]),
        spacing_mm=(column_mm, row_mm, slice_mm),
        origin_mm=(x * column_mm, y * row_mm, (z - (GRID[2] - 1)) * slice_mm),
        num_overlapping=int((num_claims > 1).sum()),
    )


def _read_spacing(file: Path) -> tuple[float, float, float]:
    """Spacing in mm of row, column and slice."""
    try:
        row_mm, column_mm, slice_mm = np.loadtxt(file).tolist()
    except (OSError, ValueError, TypeError) as error:
        raise CILError(f"{file} does not hold three voxel dimensions in mm: {error}.") from error
    return row_mm, column_mm, slice_mm


def _read_csv(file: Path, *, with_values: bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """open-kbp's sparse format: a flat index into the grid (C order) a line, and a value for the CT."""
    try:
        if with_values:
            table = np.loadtxt(file, delimiter=",", skiprows=1, ndmin=2)
            indices, values = table[:, 0].astype(np.int64), table[:, 1]
        else:
            lines = file.read_text(encoding="utf-8").splitlines()[1:]
            indices = np.array([line.rstrip(",") for line in lines], dtype=np.int64)
            values = np.ones(len(indices))
    except (OSError, ValueError, IndexError) as error:
        raise CILError(f"{file} cannot be read as open-kbp's sparse CSV: {error}.") from error
    if len(indices) and not 0 <= indices.min() <= indices.max() < np.prod(GRID):
        raise CILError(f"{file} holds an index outside the {GRID} grid.")
    return indices, values


def _write(array: npt.NDArray[np.int16] | npt.NDArray[np.uint8], volume: Volume, file: Path) -> None:
    import SimpleITK as sitk

    picture = sitk.GetImageFromArray(array)
    picture.SetSpacing(volume.spacing_mm)
    picture.SetOrigin(volume.origin_mm)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}")
    sitk.WriteImage(picture, str(temporary), useCompression=True)
    temporary.replace(file)


def _write_dataset_json(target: Path, organs: Sequence[str], parts: Mapping[str, Sequence[str]]) -> None:
    """Written first; a target with other labels or cases belongs to another conversion and is refused."""
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{organ: i for i, organ in enumerate(organs, start=1)}},
        "numTraining": len(parts["Tr"]),
        "file_ending": ".nii.gz",
        "name": "OpenKBP",
        "reference": "Babier et al. 2021, https://doi.org/10.1002/mp.14845, https://github.com/ababier/open-kbp",
        "licence": "MIT",
    }
    file = target / "dataset.json"
    present = {
        part: {f.name.removesuffix(".nii.gz") for f in (target / f"labels{part}").glob("[!.]*")} for part in parts
    }
    others = [case for part, cases in present.items() for case in sorted(cases - set(parts[part]))]
    if others or (file.is_file() and json.loads(file.read_text(encoding="utf-8"))["labels"] != content["labels"]):
        what = f"the case {others[0]!r}" if others else "other labels"
        raise CILError(
            f"{target} holds {what} from another conversion. Remove that folder, or choose another data set ID."
        )
    target.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
