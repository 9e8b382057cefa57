"""A small multi-organ phantom: generated volumes on which forgetting is visible within minutes.

Five organs of different size, contrast and texture in a body of soft tissue. Some look alike: the two kidneys differ in
their side only, liver and spleen in their texture and place, and the aorta is thin. Unlabelled blobs keep intensity alone
from being enough.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.datasets.volumes import write_volume

_Floats = npt.NDArray[np.floating[Any]]

SHAPE = (36, 44, 44)
SPACING_MM = (3.0, 3.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class Organ:
    """An ellipsoid, or a tube along the first axis.

    Attributes:
        name: class name.
        centre: mean position as a fraction of the shape, (slice, row, column).
        radii: voxels, (slice, row, column); a tube ignores the first.
        intensity: mean, where soft tissue is 0 and air -2.
        texture: standard deviation of a smooth random field inside.
        tube: a tube through all slices instead of an ellipsoid.
    """

    name: str
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    intensity: float
    texture: float
    tube: bool = False


ORGANS = (
    Organ(name="liver", centre=(0.45, 0.42, 0.28), radii=(9.0, 9.0, 8.0), intensity=1.0, texture=0.15),
    Organ(name="aorta", centre=(0.50, 0.66, 0.52), radii=(0.0, 2.8, 2.8), intensity=1.9, texture=0.05, tube=True),
    Organ(name="left kidney", centre=(0.55, 0.68, 0.76), radii=(6.5, 4.2, 3.8), intensity=1.4, texture=0.25),
    Organ(name="right kidney", centre=(0.55, 0.68, 0.26), radii=(6.5, 4.2, 3.8), intensity=1.4, texture=0.25),
    Organ(name="spleen", centre=(0.40, 0.42, 0.76), radii=(6.0, 5.0, 4.5), intensity=1.0, texture=0.45),
)
"""In the order of their labels, 1 to 5."""

LABELS = {"background": 0, **{organ.name: number for number, organ in enumerate(ORGANS, start=1)}}


def make_volume(seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Generates a patient: image and labels, both of ``SHAPE`` (slice, row, column)."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")).astype(np.float32)
    size = np.array(SHAPE, dtype=np.float32)
    patient_shift = rng.normal(0, 0.9, 3)
    patient_scale = rng.uniform(0.92, 1.08)
    body = _ellipsoid(grid, size / 2, np.array([1e6, 0.46 * size[1], 0.46 * size[2]]))
    image = np.where(body, 0.0, -2.0).astype(np.float32) + body * 0.12 * _smooth_noise(rng, 3.0)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for _ in range(6):
        centre = size * rng.uniform(0.25, 0.75, 3)
        blob = _ellipsoid(grid, centre, rng.uniform(1.5, 3.0, 3)) & body
        image[blob] = rng.uniform(0.6, 1.8)
    for number, organ in enumerate(ORGANS, start=1):
        centre = np.array(organ.centre) * size + patient_shift + rng.normal(0, 0.7, 3)
        radii = np.array(organ.radii) * patient_scale * rng.uniform(0.9, 1.1, 3)
        if organ.tube:
            radii[0] = 1e6
        shape = _ellipsoid(grid + 0.6 * _smooth_noise(rng, 4.0), centre, radii) & body & (labels == 0)
        image[shape] = organ.intensity + (organ.texture * _smooth_noise(rng, 1.2))[shape]
        labels[shape] = number
    return image + rng.normal(0, 0.12, SHAPE).astype(np.float32), labels


def _ellipsoid(grid: _Floats, centre: _Floats, radii: _Floats) -> npt.NDArray[np.bool_]:
    distances = ((grid - centre[:, None, None, None]) / radii[:, None, None, None]) ** 2
    inside: npt.NDArray[np.bool_] = distances.sum(0) <= 1
    return inside


def _smooth_noise(rng: np.random.Generator, sigma: float) -> npt.NDArray[np.float32]:
    """Generates a smooth random field of mean 0 and standard deviation 1."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(rng.normal(0, 1, SHAPE), sigma)
    normalised: npt.NDArray[np.float32] = ((field - field.mean()) / field.std()).astype(np.float32)
    return normalised


def write_dataset(folder: Path, *, num_training: int, num_test: int) -> None:
    """Writes an nnU-Net raw data set with imagesTr, labelsTr, imagesTs and labelsTs; files that exist stay."""
    for part, first, count in (("Tr", 0, num_training), ("Ts", 1000, num_test)):
        for seed in range(first, first + count):
            image, labels = make_volume(seed)
            case = f"phantom_{seed:04d}"
            _write(image, folder / f"images{part}" / f"{case}_0000.nii.gz")
            _write(labels, folder / f"labels{part}" / f"{case}.nii.gz")
    content = {
        "channel_names": {"0": "CT-like"},
        "labels": LABELS,
        "numTraining": num_training,
        "file_ending": ".nii.gz",
        "name": "nnunet_cil phantom",
        "reference": "generated",
        "licence": "Apache-2.0",
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _write(array: npt.NDArray[np.float32] | npt.NDArray[np.uint8], file: Path) -> None:
    import SimpleITK as sitk

    if file.is_file():
        return
    picture = sitk.GetImageFromArray(array)
    picture.SetSpacing(SPACING_MM)
    write_volume(picture, file)
