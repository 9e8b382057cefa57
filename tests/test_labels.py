"""Label numbers."""

import numpy as np
import pytest
import torch

from nnunet_cil.errors import CILError
from nnunet_cil.labels import (
    check_classes,
    check_labelled_classes,
    label_map,
    labelled_classes,
    lookup_table,
    model_labels,
)
from nnunet_cil.training.data import OLD_CLASSES, MapLabels, StepDataset, Tile, evenly_spaced, tiles
from nnunet_cil.training.locations import LOCATIONS_PER_CLASS, OldClassLocations

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
    dataset.old_locations = {"a": [[3, 1, 1, 1]], "b": [[3, 0, 0, 0]]}
    assert dataset.load_case("a")[3]["class_locations"].pop(OLD_CLASSES) == [[3, 1, 1, 1]]
    assert dataset.load_case("a")[3]["class_locations"].keys() - {OLD_CLASSES} == properties["class_locations"].keys()


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


@pytest.mark.parametrize(("shape", "patch"), [((7, 9, 5), (4, 4, 8)), ((3, 9, 5), (8, 4, 4)), ((7, 9, 5), (12, 4))])
def test_locations_of_old_classes_are_where_they_were_seen(shape, patch):
    """Padded cases and slices, too; as many of each class; by the number of its voxels in each tile."""
    seg = np.zeros((1, *shape), dtype=np.int8)
    seg[0, 1:3, 2:, 1:] = 1
    seg[0, 0, 0, 0] = 2
    seg[0, :, 1, 0] = 3  # new to the step
    seg[0, -1, -1, -1] = 4  # none
    locations = OldClassLocations(3)
    for tile in tiles(Cases(np.zeros((1, *shape), dtype=np.float32), seg), patch, np.arange(-1, 5), None, 2):
        assert tile.case == "a"
        locations.add(tile, torch.where(tile.valid, tile.labels, 4))
    (rows,) = locations.per_case().values()
    assert [(rows[:, 0] == c).sum() for c in range(4)] == [0, LOCATIONS_PER_CLASS, LOCATIONS_PER_CLASS, 0]
    assert all(seg[(0, *position)] == c for c, *position in rows)
    assert len(np.unique(rows, axis=0)) > 0.7 * (seg == 1).sum()


def test_a_tile_counts_by_its_voxels():
    locations = OldClassLocations(2)
    big, small = torch.ones(1, 20, 20, 20, dtype=torch.int64), torch.zeros(1, 20, 20, 20, dtype=torch.int64)
    small[0, 0, :10, :10] = 1
    for x, classes in ((0, big), (20, small)):
        nothing = torch.zeros(0)
        locations.add(Tile(nothing, nothing, nothing, "a", (x, 0, 0)), classes)
    (rows,) = locations.per_case().values()
    assert (rows[:, 1] < 20).mean() > 0.9  # 8000 of 8100 voxels


def test_a_pass_looks_at_some_cases_of_a_large_data_set():
    cases = [f"case_{i:02}" for i in range(10)]
    assert evenly_spaced(cases, 10) == evenly_spaced(cases, 500) == cases
    assert evenly_spaced(cases, 4) == ["case_00", "case_02", "case_05", "case_07"]


@pytest.mark.parametrize("name", ["a[1]", "case[!x]", "liver*", "why?"])
def test_a_case_can_be_named_whatever_characters_it_has(name):
    content = {"labels": {"background": 0, "liver": 1, "spleen": 2}, "labelled_classes": {name: ["liver"]}}
    check_labelled_classes(content, {name, "b"}, dataset="D")
    assert labelled_classes(content, [name, "b"], ["liver", "spleen"]) == {name: ("liver",)}
