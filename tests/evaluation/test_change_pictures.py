"""Pictures of a case that two models segment: which slices they show, and what is marked as a difference."""

import numpy as np
import pytest

from nnunet_cil.evaluation.change_pictures import change_picture

NAMES = [(), ("liver",), ("tumour", "liver"), ("cyst",)]


@pytest.fixture
def maps():
    """Two models of the liver; the second one has learnt the cyst, which is large and in other slices."""
    a = np.zeros((20, 12, 12), dtype=np.int64)
    a[2:10, 3:8, 3:8] = 1
    b = a.copy()
    b[12:18, 1:11, 1:11] = 3
    return a, b


def drawn(figure):
    """The slices that a picture shows, and where it marks a difference in each."""
    rows = [figure.axes[i : i + 3] for i in range(0, len(figure.axes), 3)]
    return {row[0].get_ylabel(): np.asarray(row[2].images[1].get_array())[..., 3] > 0 for row in rows}


def test_a_picture_shows_where_an_old_class_changed_not_where_the_new_one_is(maps):
    a, b = maps
    b[4, 3:5, 3] = 0
    b[5, 3, 3] = 3  # the new class took a voxel of an old one
    found = drawn(change_picture(np.zeros(a.shape), a, b, NAMES, {"liver"}, num_slices=1))
    assert {name: marked.sum() for name, marked in found.items()} == {"slice 4": 2}
    a[4], b[4] = 0, 0
    found = drawn(change_picture(np.zeros(a.shape), a, b, NAMES, {"liver"}, num_slices=1))
    assert {name: marked.sum() for name, marked in found.items()} == {"slice 5": 1}


def test_of_regions_only_those_of_both_models_count(maps):
    a, b = maps
    b[6, 4:7, 4:7] = 2  # liver still, to a model that knows no tumour
    b[7, 3, 3:5] = 0
    found = drawn(change_picture(np.zeros(a.shape), a, b, NAMES, {"liver"}, num_slices=1))
    assert {name: marked.sum() for name, marked in found.items()} == {"slice 7": 2}


def test_where_no_class_of_both_has_changed_the_slices_show_the_new_one_and_mark_nothing(maps):
    a, b = maps
    found = drawn(change_picture(np.zeros(a.shape), a, b, NAMES, {"liver"}, num_slices=1))
    ((name, marked),) = found.items()
    assert int(name.split()[1]) in range(12, 18)
    assert not marked.any()
