"""benchmarks/resampling_leak.py: how far hidden labels move a shown organ's border, by hand and as the page says."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import resampling_leak
import SimpleITK as sitk

ROOT = Path(__file__).parents[2]


def image(labels, spacing=(1.0, 1.0, 1.0)):
    picture = sitk.GetImageFromArray(labels.astype(np.uint8))
    picture.SetSpacing(spacing[::-1])
    return picture


def boxes(*, neighbour):
    """An organ (1) and a neighbour (2) that meets it along a face, on background."""
    labels = np.zeros((10, 12, 12), np.uint8)
    labels[2:8, 2:9, 2:6] = 1
    if neighbour:
        labels[2:8, 4:11, 6:10] = 2
    return labels


def test_an_organ_without_neighbours_is_not_moved():
    assert resampling_leak.moved_shares(image(boxes(neighbour=False)), np.full(3, 0.45), [1]) == [0]


def test_where_a_neighbour_and_the_background_meet_the_organ_wins_voxels():
    own, target = image(boxes(neighbour=True)), np.full(3, 0.45)
    share, _ = resampling_leak.moved_shares(own, target, [1, 2])
    assert 0 < share < 0.5
    assert resampling_leak.moved_shares(own, np.ones(3), [1, 2]) == [0, 0]  # nothing is resampled
    assert np.isnan(resampling_leak.moved_shares(own, target, [3])[0])


def test_the_page_says_what_was_measured():
    stored = json.loads((ROOT / "benchmarks" / "results" / "resampling_leak.json").read_text())["Dataset900_OpenKBP"]
    page = (ROOT / "docs" / "explanation" / "what-never-leaks.md").read_text(encoding="utf-8")
    mean, most = re.search(r"OpenKBP ([\d.]+) % .* on average, in the worst case ([\d.]+) %", page).groups()
    assert float(mean) == pytest.approx(100 * np.mean([row["mean"] for row in stored.values()]), abs=0.05)
    assert float(most) == pytest.approx(100 * max(row["most"] for row in stored.values()), abs=0.5)
