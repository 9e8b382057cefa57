"""Passes over the training cases: the network gets several tiles at a time, and each tile its own results."""

from dataclasses import dataclass

import pytest
import torch

from nnunet_cil.training.data import Tile
from nnunet_cil.training.passes import Ranks, TrainingPass


@dataclass(frozen=True, kw_only=True)
class Tiles(TrainingPass):
    """Tiles of ``images_of`` images each, all of value 0, 1, 2, ..."""

    images_of: tuple[int, ...]

    def tiles(self, batch_size=None):
        for value, number in enumerate(self.images_of):
            images = torch.full((number, 1, 2, 2, 2), float(value))
            yield Tile(images, images[:, 0].long(), images[:, 0] > 0, f"case {value}", (value, 0, 0))


@pytest.mark.parametrize(
    ("images_of", "batch_size", "expected"),
    [
        ((1, 1, 1, 1, 1), 2, [2, 2, 1]),  # 3D
        ((1, 1, 1), 1, [1, 1, 1]),
        ((3, 3, 1, 3, 2), 3, [3, 3, 4, 2]),  # slices of two cases: the last tile of a case is small
        ((), 4, []),
    ],
)
def test_the_network_runs_on_as_many_images_as_a_training_batch_has(images_of, batch_size, expected):
    asked = []

    def forward(images):
        assert not torch.is_grad_enabled()
        asked.append(len(images))
        return images + 10, images.expand(-1, 5, -1, -1, -1) + 20

    some = Tiles(
        cases=[],
        ranks=Ranks(),
        open_cases=None,
        label_table=None,
        patch_size=(2, 2, 2),
        ignore_label=None,
        previous_labels=(),
        batch_size=batch_size,
        device=torch.device("cpu"),
        num_features=5,
        images_of=images_of,
    )
    found = list(some.outputs(forward))
    assert asked == expected
    assert [tile.case for tile, *_ in found] == [f"case {value}" for value in range(len(images_of))]
    for value, (tile, logits, features) in enumerate(found):
        assert torch.equal(logits, tile.images + 10)
        assert features.shape == (images_of[value], 5, 2, 2, 2)
        assert (features == value + 20).all()
