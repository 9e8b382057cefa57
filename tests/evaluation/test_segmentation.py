"""Scores of a case by geometry, and distances as another library finds them."""

import math
import warnings

import numpy as np
import pytest
from monai.metrics.utils import get_edge_surface_distance
from scipy.ndimage import gaussian_filter

from nnunet_cil.evaluation.segmentation import _surface_distances, case_scores, class_scores, cropped


def cube(corner, size=4, shape=(16, 16, 16)):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(c, c + size) for c in corner)] = True
    return mask


def scores(a, b, spacing_mm=(1, 1, 1), tolerance_mm=1.0):
    return class_scores(a, b, spacing_mm, tolerance_mm=tolerance_mm)


def test_a_mask_equals_itself():
    found = scores(cube((3, 3, 3)), cube((3, 3, 3)))
    assert (found.dice, found.hd95_mm, found.asd_mm, found.nsd) == (1, 0, 0, 1)


def test_two_cubes_shifted_by_one_voxel_of_two_millimetres():
    found = scores(cube((3, 3, 3)), cube((4, 3, 3)), spacing_mm=(2, 1, 1))
    assert found.dice == pytest.approx(2 * 48 / 128)
    assert found.hd95_mm == pytest.approx(2)
    assert found.nsd < 1
    assert scores(cube((3, 3, 3)), cube((4, 3, 3)), spacing_mm=(2, 1, 1), tolerance_mm=2.0).nsd == 1


def test_two_far_voxels_are_as_far_as_their_spacing_says():
    a, b = cube((1, 2, 3), 1), cube((4, 6, 3), 1)
    found = scores(a, b, spacing_mm=(1, 1, 5))
    assert found.asd_mm == found.hd95_mm == pytest.approx(5)
    assert found.dice == found.nsd == 0
    assert scores(a, b, spacing_mm=(2, 2, 5)).asd_mm == pytest.approx(10)


def test_surfaces_against_a_slow_reference():
    """Every surface voxel against every other one."""
    rng = np.random.default_rng(0)
    a, b = (rng.random((7, 6, 5)) > 0.6 for _ in range(2))
    spacing = np.array([1.5, 1.0, 3.0])

    def surface(mask):
        padded = np.pad(mask, 1)
        inside = np.ones_like(mask)
        for axis in range(3):
            for shift in (0, 2):
                cut = [slice(1, -1)] * 3
                cut[axis] = slice(shift, shift + mask.shape[axis])
                inside &= padded[tuple(cut)]
        return np.argwhere(mask & ~inside) * spacing

    points = surface(a), surface(b)
    distances = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    there, back = distances.min(1), distances.min(0)
    found = scores(a, b, spacing_mm=spacing, tolerance_mm=1.2)
    both = np.concatenate([there, back])
    assert found.hd95_mm == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-5)
    assert found.asd_mm == pytest.approx(both.mean(), rel=1e-5)
    assert found.nsd == pytest.approx((both <= 1.2).mean(), rel=1e-5)


def test_an_organ_that_touches_the_images_edge_has_its_surface_there():
    found = scores(cube((0, 0, 0)), cube((0, 0, 0)))
    assert (found.dice, found.asd_mm) == (1, 0)


def blob(seed, shape=(24, 20, 17), share=0.2):
    noise = gaussian_filter(np.random.default_rng(seed).random(shape), 1.5)
    return noise > np.quantile(noise, 1 - share)


def same_as_monai(a, b, spacing_mm):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, expected, _ = get_edge_surface_distance(a, b, spacing=list(spacing_mm), symmetric=True)
    for own, other in zip(_surface_distances(a, b, spacing_mm), expected, strict=True):
        assert len(own) == len(other) > 0
        assert np.allclose(own, np.asarray(other, dtype=np.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (2.5, 0.7, 0.7), (3.3, 1.1, 5.2)])
@pytest.mark.parametrize("seed", range(4))
def test_distances_of_blobs_are_monais(seed, spacing_mm):
    same_as_monai(blob(seed), blob(seed + 10, share=0.6), spacing_mm)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (cube((0, 0, 0), 1), cube((15, 15, 15), 1)),
        (cube((7, 3, 9), 1), blob(5, (16, 16, 16))),
        (cube((0, 5, 12)), cube((12, 0, 0))),
        (np.ones((5, 6, 7), dtype=bool), cube((2, 2, 2), 2, (5, 6, 7))),
        (cube((0, 0, 0), shape=(200, 12, 12)), cube((195, 5, 5), shape=(200, 12, 12))),
        (np.ones((1, 9, 9), dtype=bool), cube((0, 3, 3), 1, (1, 9, 9))),
        (blob(1)[::2, :, ::-1], blob(2)[::2, :, ::-1]),
        (blob(1).T, blob(2).T),
    ],
    ids=[
        "single voxels",
        "voxel and blob",
        "volume's edge",
        "everything",
        "far apart",
        "one slice",
        "views",
        "columns first",
    ],
)
def test_distances_at_the_limits_are_monais(a, b):
    same_as_monai(a, b, (2.5, 0.9, 1.3))


def test_distances_in_the_plane_are_monais():
    same_as_monai(blob(1, (30, 25)), blob(2, (30, 25)), (0.7, 1.9))


def test_a_distance_of_just_the_tolerance_is_within_it():
    """12 x 0.4 less 7 x 0.4 is a bit more than 2 in double precision."""
    assert scores(cube((11, 3, 3), 1), cube((6, 3, 3), 1), spacing_mm=(0.4, 1, 1), tolerance_mm=2.0).nsd == 1


def test_volumes_are_cropped_to_what_is_in_either():
    a, b = (np.zeros((6, 7, 8), dtype=np.int16) for _ in range(2))
    a[1, 2, 3], b[4, 2, 7] = 5, -1
    found = cropped(a, b)
    assert [v.shape for v in found] == [(4, 1, 5)] * 2
    assert (found[0][0, 0, 0], found[1][-1, 0, -1]) == (5, -1)
    assert [v.size for v in cropped(0 * a, 0 * b)] == [0, 0]


def test_a_case_without_any_class_is_undefined_and_no_error():
    nothing = np.zeros((0, 0, 0), dtype=np.int16)
    found = case_scores(nothing, nothing, (1, 1, 1), {"a": (1, 1)}, tolerance_mm=1)["a"]
    assert math.isnan(found.dice)
    assert found.num_voxels_reference == 0


@pytest.mark.parametrize("spacing", [0.6, 0.7, 0.8, 1.2, 2.0, 2.4])
def test_a_distance_of_the_tolerance_is_within_it(spacing):
    pair = cube((6, 3, 3), 1), cube((7, 3, 3), 1)
    assert scores(*pair, spacing_mm=(spacing, 1, 1), tolerance_mm=spacing).nsd == 1


@pytest.mark.parametrize("swap", [False, True])
def test_a_class_that_one_lacks_scores_0_and_has_no_distance(swap):
    pair = cube((2, 2, 2)), np.zeros((16, 16, 16), dtype=bool)
    found = scores(*(pair[::-1] if swap else pair))
    assert found.dice == found.nsd == 0
    assert math.isnan(found.hd95_mm)
    assert math.isnan(found.asd_mm)


def test_a_class_that_neither_has_is_undefined():
    empty = np.zeros((4, 4, 4), dtype=bool)
    assert all(math.isnan(v) for v in (scores(empty, empty).dice, scores(empty, empty).nsd))


def test_classes_are_matched_by_name_whatever_their_numbers():
    prediction, reference = cube((1, 1, 1)) * 1 + cube((8, 8, 8)) * 2, cube((1, 1, 1)) * 7 + cube((8, 8, 8)) * 3
    result = case_scores(prediction, reference, (1, 1, 1), {"x": (1, 7), "y": (2, 3)}, tolerance_mm=1)
    assert result["x"].dice == result["y"].dice == 1
    with pytest.raises(ValueError, match=r"shape \(16, 16, 16\), the reference \(2, 2, 2\)"):
        case_scores(prediction, reference[:2, :2, :2], (1, 1, 1), {"x": (1, 7)}, tolerance_mm=1)
