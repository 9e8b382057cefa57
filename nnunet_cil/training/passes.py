"""Passes over the step's training cases, shared out to the ranks, and the prototypes that they collect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from torch import Tensor, distributed, nn

from nnunet_cil.losses.prototypes import class_sums, sum_over_ranks
from nnunet_cil.losses.regions import mask_sums
from nnunet_cil.networks.features import FeatureReader
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.networks.teacher import autocast
from nnunet_cil.training.class_choices import Classes, ConfidenceSums, classes_by_label, regions_by_label
from nnunet_cil.training.data import Tile, tiles

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL

Found = TypeVar("Found")

_BARRIER_EVERY = 20
"""Number of cases, as in nnU-Net's validation: a rank that waits too long at a barrier ends with a timeout."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes of a distributed training.

    Attributes:
        rank: this process's number.
        size: the number of processes.
    """

    rank: int = 0
    size: int = 1

    def share(self, names: Sequence[str]) -> list[str]:
        """Returns this rank's part of the names; all where there is one rank."""
        return list(names[self.rank :: self.size])

    def barrier(self) -> None:
        """Waits for all ranks."""
        if self.size > 1:
            distributed.barrier()

    def barrier_after(self, number: int, num_cases: int) -> None:
        """Waits for all ranks after every 20th case of a pass, as long as every rank still has cases.

        Args:
            number: of this rank's case, from 1.
            num_cases: of all ranks.
        """
        if number % _BARRIER_EVERY == 0 and number <= num_cases // self.size:
            self.barrier()


def of_all_ranks(own: dict[str, Found]) -> dict[str, Found]:
    """Returns what all ranks have found, each in cases of its own."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return own
    of_ranks: list[dict[str, Found]] = [{}] * distributed.get_world_size()
    distributed.all_gather_object(of_ranks, own)
    return {case: found for of_rank in of_ranks for case, found in of_rank.items()}


Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""images (batch, channels, *spatial) -> logits (batch, classes, *spatial), features (batch, features, *spatial)."""

TileOutput = tuple[Tile, Tensor, Tensor]
"""A tile with its logits and features, as of ``Forward``."""


@torch.no_grad()
def feature_sums(
    outputs: Iterable[TileOutput],
    classes: Classes,
    *,
    num_classes: int,
    num_features: int,
) -> tuple[Tensor, Tensor]:
    """Sums the features of each class's voxels, and counts the voxels. The class ``num_classes`` stands for none.

    Args:
        outputs: tiles and what the network makes of them.
        classes: chooses the class of each voxel.
        num_classes: the number of classes.
        num_features: the number of channels of the features.

    Returns:
        (num_classes, num_features) and (num_classes,), float64, on the CPU; 0 for a class without voxels.
    """
    sums = torch.zeros(num_classes, num_features, dtype=torch.float64)
    counts = torch.zeros(num_classes, dtype=torch.float64)
    for tile, logits, features in outputs:
        here = tile._replace(labels=tile.labels.to(logits.device), valid=tile.valid.to(logits.device))
        own = classes(logits, here)
        of_masks = own.ndim == features.ndim
        found = mask_sums(features, own) if of_masks else class_sums(features, own, num_classes)
        for total, of_tile in zip((sums, counts), found, strict=True):
            total += of_tile.cpu()
    return sums, counts


@dataclass(frozen=True, kw_only=True)
class TrainingPass:
    """A pass over whole training cases, shared out to the ranks.

    Attributes:
        cases: their names, of all ranks.
        ranks: the processes of the training.
        open_cases: names -> nnU-Net's data set of these preprocessed cases.
        previous_labels: of a cascade's previous stage that the network sees, in the order of its channels.
        label_table: from ``labels.lookup_table``, for the labels that training may see.
        patch_size: of the configuration, 2D or 3D.
        ignore_label: the model's, or None.
        batch_size: of training; as many slices are in a tile of a 2D configuration.
        device: of the training.
        num_features: channels of the features that ``prototypes`` averages.
    """

    cases: Sequence[str]
    ranks: Ranks
    open_cases: Callable[[list[str]], nnUNetBaseDataset]
    previous_labels: Sequence[int]
    label_table: npt.NDArray[np.int16]
    patch_size: Sequence[int]
    ignore_label: int | None
    batch_size: int
    device: torch.device
    num_features: int

    def dataset(self) -> nnUNetBaseDataset:
        """Returns this rank's share of the cases, as nnU-Net preprocessed them."""
        return self.open_cases(self.ranks.share(self.cases))

    def tiles(self, batch_size: int | None = None) -> Iterator[Tile]:
        """Yields tiles that cover every voxel of this rank's cases once.

        Args:
            batch_size: the number of slices in a tile of a 2D configuration; default: as in training.
        """
        size = batch_size or self.batch_size
        return tiles(self.dataset(), self.patch_size, self.label_table, self.ignore_label, size, self.previous_labels)

    @torch.no_grad()
    def outputs(self, forward: Forward) -> Iterator[TileOutput]:
        """Yields the tiles with what a network makes of them, several at a time: as many images as a training batch has.

        On a CPU a patch alone costs as much as two together, since PyTorch's fast 3D convolutions start with a batch of two.
        """
        for group in self.batches():
            logits, features = forward(torch.cat([tile.images for tile in group]).to(self.device))
            sizes = [len(tile.images) for tile in group]
            yield from zip(group, torch.split(logits, sizes), torch.split(features, sizes), strict=True)

    def batches(self) -> Iterator[list[Tile]]:
        """Yields the tiles, as many at a time as give the images of a training batch."""
        group: list[Tile] = []
        for tile in self.tiles():
            group.append(tile)
            if sum(len(t.images) for t in group) >= self.batch_size:
                yield group
                group = []
        if group:
            yield group

    def labels(self) -> Iterator[npt.NDArray[np.int16]]:
        """Yields the labels of this rank's cases, (*spatial), as channels of the model."""
        dataset = self.dataset()
        for case in dataset.identifiers:
            yield self.label_table[np.asarray(dataset.load_case(case)[1][0], np.int16) + 1]

    def prototypes(self, forward: Forward, classes: Classes, num_classes: int) -> PrototypeBank:
        """Returns the mean features of each class over all ranks' cases; for other arguments see ``feature_sums``."""
        sums = feature_sums(
            self.outputs(forward),
            classes,
            num_classes=num_classes,
            num_features=self.num_features,
        )
        if self.ranks.size > 1:
            sums = (sum_over_ranks(sums[0].to(self.device)), sum_over_ranks(sums[1].to(self.device)))
        return PrototypeBank.from_sums(*sums).to(self.device)


def student_forward(network: nn.Module, features: FeatureReader, device: torch.device) -> Forward:
    """Returns the forward pass of the network as it is now; the caller has switched deep supervision off."""

    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        with features.reading(), autocast(device):
            logits = network(images)
            return logits, features.take()

    return forward


def final_prototypes(trainer: nnUNetTrainerCIL) -> tuple[PrototypeBank, dict[str, float]]:
    """Returns prototypes of background and new classes from the labels, and the confidences of this step.

    Old prototypes are carried forward. A region has no background: its outside has a prototype, as ``PrototypeBank`` says; nor
    has it a confidence. Which cases show an old class is known of those that the teacher has segmented; without, only new
    classes have a confidence of this step.
    """
    step = trainer.step_plan
    num_old, num_new = step.num_old_channels, len(step.new_classes)
    choice: Classes = classes_by_label(num_old, num_new)
    if step.has_regions:
        bits = tuple(range(num_old, step.num_channels))
        choice = regions_by_label(bits, lambda case: (trainer.labelled_channels([case]) or [bits])[0])
    else:
        choice = confidences = ConfidenceSums(choice, step.num_channels, trainer.absent)
    forward = student_forward(trainer.bare_network.eval(), trainer.features, trainer.device)
    trainer.set_deep_supervision_enabled(False)
    fresh = trainer.training_pass().prototypes(forward, choice, 2 * num_new if step.has_regions else 1 + num_new)
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    num_inherited = 2 * num_old if step.has_regions else num_old
    inherited = trainer.prototypes or PrototypeBank.unknown(num_inherited, fresh.prototypes.shape[1])
    if step.has_regions:
        return inherited.to(trainer.device).with_regions(fresh, step.region_bits[: step.num_channels]), {}
    sums = confidences.sums
    if trainer.ranks.size > 1:
        sums = sum_over_ranks(sums.to(trainer.device))
    is_known = trainer.volumes is not None and trainer.absent_size
    names = step.model_classes if is_known else step.new_classes
    totals = {name: sums[:, step.positions[name]].tolist() for name in names}
    means = {name: total / count for name, (total, count) in totals.items() if count}
    return inherited.to(trainer.device).joined(fresh), means
