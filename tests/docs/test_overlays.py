"""The colours in every committed picture of segmentations are those of its legend."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from nnunet_cil.evaluation.error_maps import ERRORS
from nnunet_cil.evaluation.error_maps import OPACITY as ERROR_OPACITY
from nnunet_cil.evaluation.figures import COLOURS

IMAGES = Path(__file__).parents[2] / "docs" / "images"
CLASSES = {"demo.png": COLOURS[:5]}
ERROR_MAPS = ("openkbp.png",)
OPACITY = 0.75
"""Opacity of a class over the grey image, as ``figures.comparison`` draws it."""


def test_every_picture_is_compared():
    assert {file.name for file in IMAGES.glob("*.png")} <= {*CLASSES, *ERROR_MAPS}


def pixels_of(name):
    return imread(IMAGES / name)[..., :3].reshape(-1, 3)


def blended(pixels, colour, opacity):
    """Where a colour lies over any grey."""
    grey = ((pixels - opacity * colour) / (1 - opacity)).mean(1)
    blend = opacity * colour + (1 - opacity) * grey[:, None]
    return (np.abs(pixels - blend).max(1) < 0.008) & (grey > -0.02) & (grey < 1.02)


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_has_its_own_colour_in_the_legend_and_over_the_image(name):
    pixels = pixels_of(name)
    is_coloured = np.ptp(pixels, axis=1) > 0.1
    explained = np.zeros(len(pixels), dtype=bool)
    for colour in map(np.array, map(to_rgb, CLASSES[name])):
        in_legend = np.abs(pixels - colour).max(1) < 0.004
        assert in_legend.sum() > 100, f"{colour} is not in the legend"
        over_image = blended(pixels, colour, OPACITY) & ~in_legend
        assert over_image.sum() > 100, f"{colour} is not over the image"
        explained |= over_image | in_legend
    assert explained[is_coloured].mean() > 0.95


@pytest.mark.parametrize("name", ERROR_MAPS)
def test_each_kind_of_error_has_its_colour_in_the_legend_and_over_the_image(name):
    pixels = pixels_of(name)
    for kind, text in ERRORS.items():
        colour = np.array(to_rgb(text))
        in_legend = np.abs(pixels - colour).max(1) < 0.004
        assert in_legend.sum() > 100, f"{kind} is not in the legend"
        if kind != "another class":  # of which this case has none
            assert (blended(pixels, colour, ERROR_OPACITY) & ~in_legend).sum() > 100, f"{kind} is not over the image"
