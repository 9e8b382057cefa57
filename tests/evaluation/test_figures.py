"""Pictures of segmentations show the labels that they are given."""

from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context

from nnunet_cil.datasets.phantom import LABELS, make_volume
from nnunet_cil.evaluation.figures import busiest_slices, comparison


def test_busiest_slices_show_most_classes_and_lie_apart():
    labels = np.zeros((20, 4, 4), dtype=int)
    labels[5, 0, :3] = 1, 2, 3
    labels[6, 0, :2] = 1, 2
    labels[15, 0, 0] = 1
    assert busiest_slices(labels, 2) == [5, 15]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_comparison_is_drawn(tmp_path, ending):
    image, labels = make_volume(0)
    file = tmp_path / f"c.{ending}"
    figure = comparison(image, {"reference": labels, "other": np.zeros_like(labels)}, list(LABELS)[1:], title="t")
    assert [a.get_title() for a in figure.axes[:3]] == ["image", "reference", "other"]
    figure.savefig(file)
    assert file.stat().st_size > 5000


def test_a_picture_is_cut_to_the_labels_and_a_margin():
    labels = np.zeros((4, 60, 80), dtype=int)
    labels[2, 30:40, 50:70] = 1
    figure = comparison(np.zeros(labels.shape), {"reference": labels}, ["a"], num_slices=1)
    assert figure.axes[0].images[0].get_array().shape == (10 + 2 * 4, 20 + 7 + 7)
    empty = comparison(np.zeros(labels.shape), {"reference": 0 * labels}, ["a"], num_slices=1)
    assert empty.axes[0].images[0].get_array().shape == (60, 80)


def test_names_of_classes_and_label_maps_are_drawn_as_they_are(tmp_path):
    strange = "left_ventricle $x$ 50% | a&b"
    labels = np.zeros((4, 20, 20), dtype=int)
    labels[1, 5:9, 5:9], labels[1, 10:14, 5:9] = 1, 2
    maps = {"reference": labels, "_other": labels}
    figure = comparison(np.zeros(labels.shape), maps, [strange, "_hidden"], num_slices=1, title=f"Case {strange}")
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(tmp_path / "c.svg")
    tree = ElementTree.parse(tmp_path / "c.svg")
    drawn = {(e.text or "").strip() for e in tree.iter("{http://www.w3.org/2000/svg}text")}
    assert {strange, "_hidden", "_other", f"Case {strange}"} <= drawn
