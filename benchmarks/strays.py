"""Measures how much of a model's error lies in stray regions: Dice without them, their share of the false positives.

    python benchmarks/strays.py MODEL_FOLDER -f 0 1 -o benchmarks/results/strays/step0.json
    python benchmarks/strays.py --table benchmarks/results/strays/*.json

MODEL_FOLDER is TRAINER__PLANS__CONFIGURATION, trained and validated (benchmarks/study.py); its predictions lie in
fold_X/validation, the labels in nnUNet_raw. A stray region here becomes background.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np


def look(model: Path, fold: int) -> dict[str, dict[str, float]]:
    """Returns class -> mean Dice over the cases, as predicted and without strays; share of the false positives, voxels summed."""
    import SimpleITK as sitk

    from nnunet_cil.training.volumes.stray_regions import stray_regions

    channels = json.loads((model / "dataset.json").read_text())["labels"]
    raw = Path(os.environ["nnUNet_raw"]) / model.resolve().parent.name
    labels = json.loads((raw / "dataset.json").read_text())["labels"]
    names = [name for name in channels if name not in ("background", "ignore")]
    dice: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    wrong = dict.fromkeys(names, 0)
    stray_and_wrong = dict.fromkeys(names, 0)
    for file in sorted((model / f"fold_{fold}" / "validation").glob("*.nii.gz")):
        found, true = (sitk.GetArrayFromImage(sitk.ReadImage(str(f))) for f in (file, raw / "labelsTr" / file.name))
        strays = stray_regions(found.astype(np.int16), [channels[name] for name in names])
        for name in names:
            own, organ = found == channels[name], true == labels[name]
            kept = own & ~strays
            dice[name].append((dice_of(own, organ), dice_of(kept, organ)))
            wrong[name] += int((own & ~organ).sum())
            stray_and_wrong[name] += int((own & strays & ~organ).sum())
    means = {name: np.nanmean(values, axis=0).tolist() for name, values in dice.items()}
    return {
        name: {"as predicted": a, "without strays": b, "share": stray_and_wrong[name] / max(wrong[name], 1)}
        for name, (a, b) in means.items()
    }


def dice_of(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Returns the Dice, NaN where both are empty."""
    total = int(a.sum() + b.sum())
    return 2 * int((a & b).sum()) / total if total else np.nan


def table(files: list[Path]) -> str:
    """Returns Markdown: a row for each model and class, mean over the folds (each fold)."""
    lines = ["| model | class | Dice | without strays | false positives in strays |", "|---|---|---|---|---|"]
    for file in files:
        folds = json.loads(file.read_text())
        for name in next(iter(folds.values())):
            cells = []
            for what in ("as predicted", "without strays", "share"):
                values = [fold[name][what] for fold in folds.values()]
                cells.append(f"{np.mean(values):.3f} ({', '.join(f'{v:.3f}' for v in values)})")
            lines.append(f"| {file.stem} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, help="MODEL_FOLDER")
    parser.add_argument("-f", type=int, nargs="+", default=[0], help="folds (default: 0)")
    parser.add_argument("-o", type=Path, help="file of the result")
    parser.add_argument("--table", nargs="+", type=Path, help="only print the table of these files")
    args = parser.parse_args()
    if not args.table:
        if not args.model or not args.o:
            parser.error("give MODEL_FOLDER and -o, or --table")
        args.o.parent.mkdir(parents=True, exist_ok=True)
        args.o.write_text(json.dumps({fold: look(args.model, fold) for fold in args.f}, indent=1) + "\n")
    print(table(args.table or [args.o]))


if __name__ == "__main__":
    main()
