"""Measures how much of each class a model finds far from every organ: in other parts of the image.

    python benchmarks/far_voxels.py MODEL_FOLDER ... -f 0 -o benchmarks/results/far_voxels_fold0.json
    python benchmarks/far_voxels.py --table benchmarks/results/far_voxels_fold0.json

MODEL_FOLDER is TRAINER__PLANS__CONFIGURATION, trained and validated (benchmarks/study.py); its predictions lie in
fold_X/validation, the labels in nnUNet_raw. Far is outside the box, in the plane, around all labelled voxels, made larger by 12
voxels on each side. The number is the class's voxels there, divided by its labelled voxels, both summed over the cases.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

MARGIN = 12


def near(labels: np.ndarray[Any, Any], margin: int) -> np.ndarray[Any, Any]:
    """Returns where the box around all labelled voxels is, all slices together.

    Args:
        labels: label map, (z, y, x).
        margin: voxels that are added to it on each side, in the plane.

    Returns:
        (y, x), bool.
    """
    plane = (labels > 0).any(axis=0)
    found = np.zeros_like(plane)
    if plane.any():
        rows, columns = (np.flatnonzero(plane.any(axis=axis)) for axis in (1, 0))
        found[
            max(rows[0] - margin, 0) : rows[-1] + margin + 1, max(columns[0] - margin, 0) : columns[-1] + margin + 1
        ] = True
    return found


def far_shares(model: Path, fold: int) -> dict[str, float]:
    """Returns class -> its voxels far from every organ, as a share of its labelled ones."""
    import SimpleITK as sitk

    channels = json.loads((model / "dataset.json").read_text())["labels"]
    raw = Path(os.environ["nnUNet_raw"]) / model.resolve().parent.name
    labels = json.loads((raw / "dataset.json").read_text())["labels"]
    names = [name for name in channels if name not in ("background", "ignore")]
    far, true = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    files = sorted((model / f"fold_{fold}" / "validation").glob("*.nii.gz"))
    if not files:
        raise SystemExit(
            f"{model}/fold_{fold}/validation has no predictions: train the model with benchmarks/study.py."
        )
    for file in files:
        found, organs = (sitk.GetArrayFromImage(sitk.ReadImage(str(f))) for f in (file, raw / "labelsTr" / file.name))
        elsewhere = ~near(organs, MARGIN)
        for name in names:
            far[name] += int(((found == channels[name]) & elsewhere).sum())
            true[name] += int((organs == labels[name]).sum())
    return {name: far[name] / max(true[name], 1) for name in names}


def table(file: Path) -> str:
    """Returns Markdown: a row for each model."""
    models = json.loads(file.read_text())
    names = list(dict.fromkeys(name for shares in models.values() for name in shares))
    lines = [f"| model | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for model, shares in models.items():
        trainer, plans, _ = model.split("__")
        cells = [f"{shares[name]:.2f}" if name in shares else "" for name in names]
        lines.append(f"| {trainer.removeprefix('nnUNetTrainer')}_{plans.rpartition('_')[2]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="MODEL_FOLDER")
    parser.add_argument("-f", type=int, default=0, help="fold (default: %(default)s)")
    parser.add_argument("-o", type=Path, help="file of the result")
    parser.add_argument("--table", type=Path, help="only print the table of this file")
    args = parser.parse_args()
    if args.table:
        print(table(args.table))
        return
    if not args.models or not args.o:
        parser.error("give MODEL_FOLDER and -o, or --table")
    shares = {model.name: far_shares(model, args.f) for model in args.models}
    args.o.write_text(json.dumps(shares, indent=4) + "\n")
    print(table(args.o))


if __name__ == "__main__":
    main()
