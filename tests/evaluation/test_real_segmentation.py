"""Distances on real CT against a second library: SimpleITK's contours and signed distance maps."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cil.evaluation.segmentation import case_scores

REAL = Path(__file__).parents[3] / "shared" / "data" / "Dataset900_OpenKBP"
LABELS = {"Brainstem": 1, "SpinalCord": 2, "RightParotid": 3, "LeftParotid": 4, "Mandible": 5}

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="needs shared/data/Dataset900_OpenKBP beside the project")


def distances_mm(a, b):
    """From the contour voxels of ``a`` to the contour of ``b``; outside the volume is background."""
    a, b = (sitk.ConstantPad(mask, [1] * 3, [1] * 3) for mask in (a, b))
    contour = sitk.LabelContour(b, fullyConnected=False)
    to_b = sitk.GetArrayFromImage(
        sitk.Abs(sitk.SignedMaurerDistanceMap(contour, squaredDistance=False, useImageSpacing=True))
    )
    return to_b[sitk.GetArrayFromImage(sitk.LabelContour(a, fullyConnected=False)) > 0]


@pytest.mark.parametrize("index", [0, 9, 19])
def test_distances_are_simpleitks(index):
    """The prediction is the truth moved by some voxels in the plane and one slice, and frayed."""
    truth = sitk.ReadImage(str(sorted((REAL / "labelsTs").glob("*.nii.gz"))[index]), sitk.sitkUInt8)
    labels = sitk.GetArrayFromImage(truth)
    moved = np.roll(labels, (1, -2, 1), axis=(0, 1, 2))
    moved[np.random.default_rng(index).random(labels.shape) < 0.1] = 0
    found = sitk.GetImageFromArray(moved)
    found.CopyInformation(truth)
    spacing_mm = truth.GetSpacing()[::-1]
    scores = case_scores(moved, labels, spacing_mm, {o: (n, n) for o, n in LABELS.items()}, tolerance_mm=5.0)
    for organ, number in LABELS.items():
        there, back = distances_mm(found == number, truth == number), distances_mm(truth == number, found == number)
        both = np.concatenate([there, back])
        assert len(both) > 100
        assert scores[organ].hd95_mm == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-3)
        assert scores[organ].asd_mm == pytest.approx(both.mean(), abs=1e-3)
        assert scores[organ].nsd == pytest.approx((both <= 5.0).mean(), abs=1e-3)
