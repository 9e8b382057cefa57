"""Pictures of errors show what is missed, false and taken for another class, at the slices that tell most."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from nnunet_cil.evaluation.error_maps import ERRORS, OPACITY, Case, Prediction, error_map, telling_slices


def case(number=1, **changed):
    """Two classes in slice 3, of which each prediction has missed a part; much that is false is in slice 17."""
    reference = np.zeros((20, 24, 24), dtype=int)
    reference[3, 4:8, 4:8], reference[3, 12:16, 4:8] = 1, 2
    found = reference.copy()
    found[3, 4:6, 4:8] = 0
    found[3, 12:14, 4:8] = 1
    found[17, 4:12, 10:20] = 2
    predictions = [Prediction(name=f"_m{i}", labels=found, dice=0.5) for i in range(number)]
    options = {"image": np.zeros(reference.shape), "reference": reference, "classes": ["a", "b"]} | changed
    return Case(predictions=predictions, **options)


def coloured(ax):
    """The number of pixels of each kind of error."""
    overlay = np.asarray(ax.images[1].get_array())
    return {
        kind: int((np.abs(overlay - (*to_rgb(colour), OPACITY)).max(-1) < 1e-6).sum())
        for kind, colour in ERRORS.items()
    }


def test_slices_are_those_of_most_classes_and_of_most_errors():
    assert telling_slices(case()) == {3: "most classes", 17: "most errors"}
    right = case()
    same = Case(
        image=right.image,
        reference=right.reference,
        classes=right.classes,
        predictions=[Prediction(name="m", labels=right.reference)],
    )
    assert telling_slices(same) == {3: "most classes"}


def test_each_kind_of_error_has_its_colour_and_what_is_right_has_none():
    figure = error_map(case())
    first, second = [ax for ax in figure.axes if len(ax.images) == 2]
    assert coloured(first) == {"missed": 8, "false": 0, "another class": 8}
    assert coloured(second) == {"missed": 0, "false": 80, "another class": 0}
    assert np.count_nonzero(np.asarray(first.images[1].get_array())[..., 3]) == 16


def test_the_reference_is_a_contour_and_both_legends_say_what_is_what():
    figure = error_map(case())
    reference = figure.axes[0]
    assert len(reference.images) == 1
    assert len(reference.collections) == 2
    assert [t.get_text().strip() for legend in figure.legends for t in legend.get_texts()] == ["a", "b", *ERRORS]
    assert [ax.get_title().strip() for ax in figure.axes[:2]] == ["reference", "_m0 0.500"]


@pytest.mark.parametrize("is_oriented", [True, False])
def test_sides_are_written_where_they_are_known(is_oriented):
    figure = error_map(case(is_oriented=is_oriented))
    assert [t.get_text() for t in figure.axes[0].texts] == (["R", "L", "A", "P"] if is_oriented else [])


@pytest.mark.parametrize(("number", "narrow", "columns"), [(7, False, 5), (7, True, 2), (1, False, 2)])
def test_many_methods_take_several_lines(tmp_path, number, narrow, columns):
    figure = error_map(case(number), narrow=narrow)
    width = {round(ax.get_position().x0, 2) for ax in figure.axes}
    assert len(width) == columns
    figure.savefig(tmp_path / "e.png", dpi=30)
