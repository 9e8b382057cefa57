"""Label numbers."""

import numpy as np
import pytest
import torch

from nnunet_cil.errors import CILError
from nnunet_cil.labels import check_classes, label_map, lookup_table, model_labels, refuse_regions
from nnunet_cil.training.data import MapLabels, StepDataset, evenly_spaced, tiles

DATASET = {"background": 0, "liver": 1, "spleen": 2, "kidney": 3, "ignore": 4}


def test_model_labels_follow_the_order_of_learning():
    assert model_labels(["kidney", "liver"], ignore=False) == {"background": 0, "kidney": 1, "liver": 2}
    assert model_labels(["kidney"], ignore=True) == {"background": 0, "kidney": 1, "ignore": 2}


def test_hidden_labels_become_background_and_ignore_stays_ignore():
    labels = model_labels(["kidney", "liver"], ignore=True)
    mapping = label_map(DATASET, labels, ["liver"])
    assert mapping == {1: 2, 4: 3}
    table = lookup_table(mapping, DATASET.values())
    assert table[np.array([-1, 0, 1, 2, 3, 4]) + 1].tolist() == [-1, 0, 2, 0, 0, 3]
    mapped = MapLabels(table)(segmentation=torch.tensor([[[-1, 0, 1], [2, 3, 4]]], dtype=torch.int16))["segmentation"]
    assert mapped.tolist() == [[[-1, 0, 2], [0, 0, 3]]]
    assert mapped.dtype == torch.int16


def test_regions_are_refused():
    with pytest.raises(NotImplementedError, match=r"'tumour' of the data set is a region \[1, 2\]"):
        refuse_regions({"labels": {"background": 0, "tumour": [1, 2]}})


def test_a_class_that_the_data_set_lacks_is_answered_with_the_nearest():
    with pytest.raises(
        CILError, match=r"step 1 of s names 'rigth kidney', which is not .* \(did you mean 'right kidney'"
    ):
        check_classes([["liver"], ["rigth kidney"]], {"liver": 1, "right kidney": 2}, schedule="s", dataset="D")


class Cases:
    identifiers = ("a",)

    def __init__(self, data, seg, locations=None):
        self.case = data, seg, None, {"class_locations": locations, "spacing": 1}

    def load_case(self, _identifier):
        return self.case


def test_sampler_sees_the_locations_of_shown_labels_only():
    locations = {1: [[0, 1, 1, 1]], 2: [[0, 2, 2, 2]], 3: [], (-1, 0, 1, 2, 3): [[0, 0, 0, 0]]}
    original = dict(locations)
    dataset = StepDataset(Cases(None, None, locations), {2, 4}, (-1, 0, 1))
    properties = dataset.load_case("a")[3]
    assert properties == {"class_locations": {2: [[0, 2, 2, 2]], (-1, 0, 1): [[0, 0, 0, 0]]}, "spacing": 1}
    assert locations == original


@pytest.mark.parametrize(("shape", "patch"), [((7, 9, 5), (4, 4, 4)), ((3, 9, 5), (4, 4, 4)), ((7, 9, 5), (4, 4))])
@pytest.mark.parametrize("ignore", [None, 2])
def test_tiles_cover_every_voxel_exactly_once(shape, patch, ignore):
    rng = np.random.default_rng(0)
    image, seg = rng.normal(size=(1, *shape)).astype(np.float32), rng.integers(-1, 4, (1, *shape)).astype(np.int8)
    table = np.array([-1, 0, 1, 0, 2], dtype=np.int16)
    found = [], []
    for tile in tiles(Cases(image, seg), patch, table, ignore, 3):
        assert tile.images.shape[2:] == tuple(patch) == tile.labels.shape[1:]
        found[0].append(tile.images[:, 0][tile.valid])
        found[1].append(tile.labels[tile.valid])
        assert ignore is None or not (tile.labels == ignore).any()
    mapped = np.maximum(table[seg[0] + 1], 0)
    counted = np.ones(shape, dtype=bool) if ignore is None else mapped != ignore
    values, labels = (torch.cat(f).numpy() for f in found)
    order = np.argsort(values)
    expected = np.argsort(image[0][counted])
    assert np.array_equal(values[order], image[0][counted][expected])
    assert np.array_equal(labels[order], mapped[counted][expected])


def test_a_pass_looks_at_some_cases_of_a_large_data_set():
    cases = [f"case_{i:02}" for i in range(10)]
    assert evenly_spaced(cases, 10) == evenly_spaced(cases, 500) == cases
    assert evenly_spaced(cases, 4) == ["case_00", "case_02", "case_05", "case_07"]
