"""Measures how far nnU-Net's resampling lets hidden labels move the border of a shown organ.

    python benchmarks/resampling_leak.py 900 -o benchmarks/results/resampling_leak.json

DATASET is one of nnUNet_raw. Preprocessing resamples all labels of a case together, and a voxel goes to the label with the
largest share of it. Where an organ, a neighbour and the background meet, the organ may win a voxel that it would lose if the
neighbour were hidden, which would then be background. Every label map is resampled to the median spacing of its data set, as
nnU-Net plans it: once with all labels, and once with each organ alone. The share is the number of the organ's voxels that differ,
over that of its border voxels (which have a face outside of it).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape, resample_data_or_seg_to_shape
from scipy.ndimage import binary_erosion

from nnunet_cil.files import write_json
from nnunet_cil.host.folders import raw_dataset_folder

Labels = npt.NDArray[np.int16]


def resampled(labels: Labels, spacing: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> Labels:
    """Resamples as nnU-Net's default plans say."""
    shape = compute_new_shape(labels.shape, spacing, target)
    kwargs: dict[str, Any] = {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None}
    found: Labels = resample_data_or_seg_to_shape(labels[None], shape, spacing, target, **kwargs)[0].astype(np.int16)
    return found


def moved_shares(image: sitk.Image, target: npt.NDArray[np.float64], numbers: Sequence[int]) -> list[float]:
    """Returns, for each label, the share of its border voxels that the other labels move; NaN for one that is not there."""
    labels, spacing = sitk.GetArrayFromImage(image).astype(np.int16), np.array(image.GetSpacing()[::-1])
    together = resampled(labels, spacing, target)
    shares = []
    for number in numbers:
        alone = resampled(np.where(labels == number, labels, 0), spacing, target) == number
        border = alone & ~binary_erosion(alone)
        moved = (together == number) != alone
        shares.append(float(moved.sum() / border.sum()) if border.any() else np.nan)
    return shares


def table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Returns Markdown: a row for each class, mean and largest share over the cases."""
    lines = ["| data set | class | cases | mean | most |", "|---|---|---|---|---|"]
    for dataset, classes in found.items():
        for name, row in classes.items():
            lines.append(f"| {dataset} | {name} | {row['cases']} | {row['mean']:.2%} | {row['most']:.2%} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", metavar="DATASET")
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    args = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    for dataset in args.datasets:
        folder = raw_dataset_folder(dataset)
        labels = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["labels"]
        organs = {name: number for name, number in labels.items() if name not in ("background", "ignore")}
        images = [sitk.ReadImage(str(file)) for file in sorted((folder / "labelsTr").glob("*"))]
        target = np.median([image.GetSpacing()[::-1] for image in images], axis=0)
        shares = np.array([moved_shares(image, target, list(organs.values())) for image in images])
        found[folder.name] = {
            name: {"cases": int((~np.isnan(own)).sum()), "mean": float(np.nanmean(own)), "most": float(np.nanmax(own))}
            for name, own in zip(organs, shares.T, strict=True)
        }
    write_json(args.output, found)
    print(table(found))


if __name__ == "__main__":
    main()
