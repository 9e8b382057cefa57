"""Tiny volumes in the layout of real downloads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SHAPE = (6, 10, 12)
"""Slices, rows, columns."""


def ct(seed: int = 0) -> np.ndarray:
    """A bright body in air, in Hounsfield units."""
    image = np.full(SHAPE, -1000, dtype=np.int16)
    image[:, 1:-1, 1:-1] = np.random.default_rng(seed).integers(-100, 300, (SHAPE[0], SHAPE[1] - 2, SHAPE[2] - 2))
    return image


def mr(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 500, SHAPE).astype(np.int16)


def label_map(*numbers: int) -> np.ndarray:
    """Each number fills a column of its own; the rest is background."""
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
    """``images``, ``labels`` and ``names.json``; the folder."""
    for i in range(cases):
        save(ct(i), folder / "images" / f"case{i}_0000.nii.gz")
        save(label_map(*numbers), folder / "labels" / f"case{i}.nii.gz")
    names = {"name": "Mine", "labels": dict(zip(("liver", "spleen"), numbers, strict=True))}
    (folder / "names.json").write_text(json.dumps(names))
    return folder
