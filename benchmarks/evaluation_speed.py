"""Measures how fast cases are scored, against just reading their files.

    python benchmarks/evaluation_speed.py TRUTH PREDICTIONS [--enlarge 4] [--cases 8] [--rounds 5] [-o FILE]

TRUTH and PREDICTIONS are folders of label maps with the same names. --enlarge repeats every voxel along each axis, for volumes
of clinical size. One process; prints cases and voxels a second and the ratio of the times: CPU time, which other
processes disturb little, the best of --rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_cil.evaluation.files import score_files
from nnunet_cil.host.reading.readers import named_reader


def enlarged(source: Path, target: Path, factor: int) -> Path:
    """Writes the label map with every voxel repeated, as NIfTI."""
    picture = sitk.ReadImage(str(source), sitk.sitkUInt8)
    array = sitk.GetArrayFromImage(picture)
    for axis in range(3):
        array = np.repeat(array, factor, axis=axis)
    large = sitk.GetImageFromArray(array)
    large.SetSpacing([s / factor for s in picture.GetSpacing()])
    target.parent.mkdir(exist_ok=True)
    sitk.WriteImage(large, str(target))
    return target


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--enlarge", type=int, default=1)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", type=Path, help="JSON file of the result")
    args = parser.parse_args()
    names = sorted(f.name for f in args.predictions.glob("*.nii.gz"))[: args.cases]
    with tempfile.TemporaryDirectory() as folder:
        pairs = [
            tuple(enlarged(d / n, Path(folder) / d.name / n, args.enlarge) for d in (args.predictions, args.truth))
            for n in names
        ]
        labels = sorted(
            {
                int(v)
                for p, t in pairs
                for f in (p, t)
                for v in np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(f))))
            }
        )
        options = {
            "reader": named_reader("SimpleITKIO"),
            "classes": {str(v): (v, v) for v in labels if v},
            "prediction_labels": frozenset(labels),
            "reference_labels": frozenset(labels),
            "ignore_label": None,
            "tolerance_mm": 2.0,
        }
        score_files(*pairs[0], **options)  # imports
        voxels = sum(sitk.ReadImage(str(t)).GetNumberOfPixels() for _, t in pairs)
        reading = scoring = math.inf
        for _ in range(args.rounds):
            start = time.process_time()
            for pair in pairs:
                for file in pair:
                    sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
            middle = time.process_time()
            for pair in pairs:
                score_files(*pair, **options)
            reading, scoring = min(reading, middle - start), min(scoring, time.process_time() - middle)
    result = {
        "cases": len(pairs),
        "classes": len(labels) - 1,
        "megavoxels_per_case": round(voxels / len(pairs) / 1e6, 2),
        "cases_per_second": round(len(pairs) / scoring, 2),
        "megavoxels_per_second": round(voxels / scoring / 1e6, 1),
        "ratio_to_reading": round(scoring / reading, 2),
    }
    print(json.dumps(result, indent=1))
    if args.o:
        args.o.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
