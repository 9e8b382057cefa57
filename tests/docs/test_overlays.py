"""The colours in every committed picture of segmentations are those of its legend."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from nnunet_cil.evaluation.figures import COLOURS

IMAGES = Path(__file__).parents[2] / "docs" / "images"
NUM_CLASSES = {"demo.png": 5, "openkbp.png": 5}
OPACITY = 0.75
"""Opacity of a class over the grey image, as ``figures.comparison`` draws it."""


def test_every_picture_is_compared():
    assert {file.name for file in IMAGES.glob("*.png")} <= set(NUM_CLASSES)


@pytest.mark.parametrize("name", NUM_CLASSES)
def test_each_class_has_its_own_colour_in_the_legend_and_over_the_image(name):
    pixels = imread(IMAGES / name)[..., :3].reshape(-1, 3)
    is_coloured = np.ptp(pixels, axis=1) > 0.1
    explained = np.zeros(len(pixels), dtype=bool)
    for colour in map(np.array, map(to_rgb, COLOURS[: NUM_CLASSES[name]])):
        in_legend = np.abs(pixels - colour).max(1) < 0.004
        assert in_legend.sum() > 100, f"{colour} is not in the legend"
        grey = ((pixels - OPACITY * colour) / (1 - OPACITY)).mean(1)
        blend = OPACITY * colour + (1 - OPACITY) * grey[:, None]
        over_image = (np.abs(pixels - blend).max(1) < 0.008) & (grey > -0.02) & (grey < 1.02) & ~in_legend
        assert over_image.sum() > 100, f"{colour} is not over the image"
        explained |= over_image | in_legend
    assert explained[is_coloured].mean() > 0.95
