"""Voxels that prototypes are averaged over, where labels do not show every region."""

import torch

from nnunet_cil.training.class_choices import regions_by_label
from nnunet_cil.training.data import Tile


def test_a_region_that_a_case_does_not_label_has_neither_inside_nor_outside_there():
    labels = torch.tensor([[[0b010, 0b100, 0b110, 0]]])
    valid = torch.tensor([[[True, True, True, False]]])
    choose = regions_by_label((1, 2), {"both": (1, 2), "one": (2,), "none": ()}.get)

    def chosen(case):
        return choose(torch.empty(0), Tile(torch.empty(0), labels, valid, case, (0, 0, 0)))[0, :, 0].int().tolist()

    of_one, of_two, nothing = [[1, 0, 1, 0], [0, 1, 0, 0]], [[0, 1, 1, 0], [1, 0, 0, 0]], [[0] * 4] * 2
    assert chosen("both") == [*of_one, *of_two]
    assert chosen("one") == [*nothing, *of_two]
    assert chosen("none") == [*nothing, *nothing]
