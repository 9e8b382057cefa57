"""How far two grids lie apart."""

import math

import numpy as np
import pytest

from nnunet_cil.host.reading.grids import Grid, distance_in_voxels, grid_of

SHAPE = (11, 21, 41)


def itk_grid(spacing=(2.0, 1.0, 4.0), origin=(0.0, 0.0, 0.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1), shape=SHAPE):
    stuff = {"spacing": spacing, "origin": origin, "direction": tuple(np.ravel(direction))}
    return grid_of(shape, {"sitk_stuff": stuff, "spacing": spacing[::-1]}, in_mm=True)


def turned(radians):
    c, s = math.cos(radians), math.sin(radians)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("other", "voxels"),
    [
        ({}, 0),
        ({"origin": (0.3, 0, 0)}, 0.15),  # 0.3 mm of 2 mm
        ({"origin": (0, 0.3, 0)}, 0.3),
        ({"origin": (0, 0, -1)}, 0.25),
        ({"spacing": (2.0, 1.01, 4.0)}, 0.2),  # 20 voxels on
        ({"spacing": (2.0, 1.0, 4.1)}, 0.25),
        ({"direction": turned(5e-4)}, 0.04),  # 80 mm away from the origin
        ({"shape": (11, 21, 40)}, math.inf),
        ({"origin": (math.nan, 0, 0)}, math.inf),
    ],
)
def test_the_distance_is_in_voxels_of_each_axis(other, voxels):
    assert distance_in_voxels(itk_grid(), itk_grid(**other)) == pytest.approx(voxels, rel=1e-3, abs=1e-9)


def test_both_libraries_mean_the_same_place():
    affine = np.diag([-2.0, -1.0, 4.0, 1.0])
    other = grid_of(SHAPE, {"nibabel_stuff": {"original_affine": affine}, "spacing": (4, 1, 2)}, in_mm=True)
    assert distance_in_voxels(itk_grid(), other) == 0
    assert other.orientation == itk_grid().orientation == "LPS"


def test_formats_without_a_place_are_compared_by_size_only():
    ours, theirs = (Grid(shape=SHAPE, spacing=s, in_mm=False) for s in ((1, 1, 1), (2, 1, 1)))
    assert distance_in_voxels(ours, theirs) == 0
    assert distance_in_voxels(ours, Grid(shape=(1, *SHAPE[1:]), spacing=(1, 1, 1), in_mm=False)) == math.inf


def test_an_affine_of_nothing_lies_nowhere():
    flat = itk_grid(spacing=(0.0, 1.0, 4.0))
    assert distance_in_voxels(flat, itk_grid()) == math.inf
    assert flat.orientation == ""


def test_planes_have_two_axes():
    plane = itk_grid(spacing=(0.5, 0.7), origin=(1.0, 2.0), direction=np.eye(2), shape=(1, 20, 30))
    assert (plane.size, plane.orientation) == ((30, 20), "")
    assert itk_grid().size_mm == (2, 1, 4)
    assert distance_in_voxels(plane, itk_grid((0.5, 0.7), (1.1, 2.0), np.eye(2), (1, 20, 30))) == pytest.approx(0.2)


def test_skew_is_the_largest_angle_from_a_right_one():
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    assert itk_grid().skew_degrees == 0
    affine[0, 1] = math.tan(math.radians(3))
    skewed = grid_of(SHAPE, {"nibabel_stuff": {"original_affine": affine}, "spacing": (1, 1, 1)}, in_mm=True)
    assert skewed.skew_degrees == pytest.approx(3)
