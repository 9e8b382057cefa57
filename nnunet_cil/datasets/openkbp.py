"""OpenKBP: head-and-neck planning CT with contoured organs at risk, as the public open-kbp repository ships it.

Source: Babier et al. 2021, OpenKBP: The open-access knowledge-based planning grand challenge and dataset,
https://doi.org/10.1002/mp.14845, https://github.com/ababier/open-kbp (MIT licence).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.datasets.download import Case, Dataset, Part, Problem, chosen_parts
from nnunet_cil.datasets.volumes import Volume, overlap_note
from nnunet_cil.errors import CILError, did_you_mean

GRID = (128, 128, 128)
"""Every patient's grid: row (anterior to posterior), column (patient's right to left), slice (superior to inferior)."""

ORGANS = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Mandible", "Esophagus", "Larynx")
"""The organs that open-kbp contours."""

DEFAULT_ORGANS = ORGANS[:5]
"""The organs that most patients have."""

MARGIN = 2
"""Voxels that are kept around the patient when the air (CT 0) is cut away."""


@dataclass(frozen=True, kw_only=True)
class Patient:
    """A patient in SimpleITK's terms.

    Attributes:
        image: (slice, row, column).
        labels: (slice, row, column).
        spacing_mm: (x, y, z).
        origin_mm: (x, y, z).
        num_overlapping: voxels that belong to two organs.
    """

    image: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    num_overlapping: int


@dataclass(frozen=True)
class Ct:
    """The CT of a patient's folder; read together with the contours of ``organs``."""

    folder: Path
    organs: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Returns the file of the CT, and that of the spacing."""
        return self.folder / "ct.csv", self.folder / "voxel_dimensions.csv"

    def read(self) -> Volume:
        """Reads the CT, cut to the patient."""
        patient = read_patient(self.folder, self.organs)
        return Volume(_picture(patient.image, patient))


@dataclass(frozen=True)
class Contours:
    """The contours of a patient's folder: label 1, 2, ... for ``organs``."""

    folder: Path
    organs: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Returns the contours that are there."""
        return tuple(f for organ in self.organs if (f := self.folder / f"{organ}.csv").is_file())

    def read(self) -> Volume:
        """Reads the label map, cut as the CT is."""
        patient = read_patient(self.folder, self.organs)
        return Volume(_picture(patient.labels, patient), overlap_note(patient.num_overlapping))


def find(
    source: Path,
    *,
    classes: Sequence[str] = DEFAULT_ORGANS,
    cases: Mapping[str, Sequence[str]] | None = None,
    keep_incomplete: bool = False,
) -> Dataset:
    """Finds the patients of a clone of open-kbp.

    Args:
        source: the clone, or its folder ``provided-data``.
        classes: organs, to become label 1, 2, ...
        cases: ``{"train": [...], "test": [...]}`` to take just these; without it, ``train-pats`` and ``validation-pats``
            are training cases, ``test-pats`` test cases.
        keep_incomplete: keep patients who lack a contour, left out by default: their organ is there, unlabelled.

    Raises:
        CILError: no patients, or unknown organs or cases.
    """
    organs = tuple(classes)
    for organ in organs:
        if organ not in ORGANS:
            raise CILError(f"open-kbp has no organ {organ!r}{did_you_mean(organ, ORGANS)}.")
    patients = find_patients(source)
    parts = _official_parts(patients) if cases is None else chosen_parts(cases, patients)
    missing = {c: [o for o in organs if not (patients[c] / f"{o}.csv").is_file()] for c in sorted(parts)}
    kept = [c for c, organs_missing in missing.items() if keep_incomplete or not organs_missing]
    if all(parts[c] == "test" for c in kept):
        told = "\n".join(f"  {problem.case}: {problem.text}" for problem in _missing_contours(missing, "left out"))
        raise CILError(
            f"No training patient of {source} has all of {', '.join(organs)}. Choose other organs with --classes, or keep such "
            f"patients with --keep-incomplete.\n{told}".rstrip()
        )
    return Dataset(
        name="OpenKBP",
        cases=tuple(
            Case(name=c, images=(Ct(patients[c], organs),), labels=Contours(patients[c], organs), part=parts[c])
            for c in kept
        ),
        numbers={organ: i for i, organ in enumerate(organs, start=1)},
        reference="https://github.com/ababier/open-kbp",
        licence="MIT",
        citation="Babier et al. 2021, OpenKBP: The open-access knowledge-based planning grand challenge and dataset, "
        "https://doi.org/10.1002/mp.14845",
        hounsfield=False,
        problems=_missing_contours(missing, "kept" if keep_incomplete else "left out"),
    )


def _missing_contours(missing: Mapping[str, Sequence[str]], action: str) -> tuple[Problem, ...]:
    """Returns a note for each patient who lacks contours: which, and what is done with the patient."""
    return tuple(
        Problem(case=case, kind="no contour", text=f"{action}, has no contour of {', '.join(organs)}", blocking=False)
        for case, organs in missing.items()
        if organs
    )


def find_patients(source: Path) -> dict[str, Path]:
    """Returns case name (``openkbp_001``) -> patient folder."""
    root = source / "provided-data" if (source / "provided-data").is_dir() else source
    patients = {
        f"openkbp_{int(m[1]):03d}": p
        for p in sorted(root.glob("*-pats/pt_*"))
        if p.is_dir() and (m := re.fullmatch(r"pt_(\d+)", p.name))
    }
    if not patients:
        raise CILError(
            f"{source} holds no patients: expected provided-data/train-pats/pt_1 and so on, as in a clone of "
            "https://github.com/ababier/open-kbp."
        )
    return patients


def _official_parts(patients: Mapping[str, Path]) -> dict[str, Part]:
    return {c: "test" if folder.parent.name == "test-pats" else "train" for c, folder in patients.items()}


@lru_cache(maxsize=1)  # a case's image and its labels are asked for one after the other
def read_patient(folder: Path, organs: tuple[str, ...]) -> Patient:
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
    return Patient(
        image=np.ascontiguousarray(arrays[0][box]),
        labels=np.ascontiguousarray(arrays[1][box]),
        spacing_mm=(column_mm, row_mm, slice_mm),
        origin_mm=(x * column_mm, y * row_mm, (z - (GRID[2] - 1)) * slice_mm),
        num_overlapping=int((num_claims > 1).sum()),
    )


def _read_spacing(file: Path) -> tuple[float, float, float]:
    """Reads the spacing in mm of row, column and slice."""
    try:
        row_mm, column_mm, slice_mm = np.loadtxt(file).tolist()
    except (OSError, ValueError, TypeError) as error:
        raise CILError(f"{file} does not hold three voxel dimensions in mm: {error}.") from error
    return row_mm, column_mm, slice_mm


def _read_csv(file: Path, *, with_values: bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Reads open-kbp's sparse format: in each line a flat index into the grid (C order), and a value for the CT."""
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


def _picture(array: npt.NDArray[np.int16] | npt.NDArray[np.uint8], patient: Patient) -> Any:
    import SimpleITK as sitk

    picture = sitk.GetImageFromArray(array)
    picture.SetSpacing(patient.spacing_mm)
    picture.SetOrigin(patient.origin_mm)
    return picture
