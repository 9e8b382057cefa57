"""Images of later steps that end before the old organs."""

import numpy as np
import pytest
import SimpleITK as sitk
from cropped_dataset import box_without, cut


def volume(*, old: list[tuple[int, ...]], new: list[tuple[int, ...]]) -> np.ndarray:
    """Returns a label map of 6 x 7 x 8 voxels with 1 at old places and 2 at new ones."""
    labels = np.zeros((6, 7, 8), np.uint8)
    for number, places in ((1, old), (2, new)):
        for place in places:
            labels[place] = number
    return labels


def obvious(labels: np.ndarray) -> int:
    """Returns the most new voxels of any half-space along an axis without an old one, plane by plane."""
    most = 0
    for axis in range(3):
        moved = np.moveaxis(labels, axis, 0)
        for end in range(1, len(moved) + 1):
            for part in (moved[:end], moved[-end:]):
                if not (part == 1).any():
                    most = max(most, int((part == 2).sum()))
    return most


@pytest.mark.parametrize("seed", range(8))
def test_the_part_has_no_old_voxel_and_as_many_new_ones_as_any_plane_leaves(seed):
    rng = np.random.default_rng(seed)
    places = [tuple(map(int, rng.integers(0, labels))) for labels in [(6, 7, 8)] * 9]
    labels = volume(old=places[:2], new=places[2:])
    part = labels[box_without(labels, [1], [2])]
    assert not (part == 1).any()
    assert (part == 2).sum() == obvious(labels) > 0


def test_a_case_without_old_voxels_stays_whole_and_one_without_a_free_side_is_refused():
    whole = volume(old=[], new=[(1, 1, 1)])
    assert whole[box_without(whole, [1], [2])].shape == whole.shape
    corners = volume(old=[(0, 0, 0), (5, 6, 7)], new=[(1, 1, 1)])
    with pytest.raises(ValueError, match="no side of the old classes"):
        box_without(corners, [1], [2])


def test_a_cut_image_stays_where_it_was(tmp_path):
    image = sitk.GetImageFromArray(np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8))
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((10.0, 20.0, 30.0))
    sitk.WriteImage(image, str(tmp_path / "whole.nii.gz"))
    cut(tmp_path / "whole.nii.gz", (slice(None), slice(3, None), slice(None)), tmp_path / "part.nii.gz")
    part = sitk.ReadImage(str(tmp_path / "part.nii.gz"))
    assert part.GetSize() == (8, 4, 6)
    point = image.TransformIndexToPhysicalPoint((5, 4, 2))
    assert part[part.TransformPhysicalPointToIndex(point)] == image[5, 4, 2]
