"""The data of a step: targets and locations of its own labels only, and whole cases cut into tiles."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from batchgeneratorsv2.transforms.base.basic_transform import SegOnlyTransform
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from torch import Tensor

from nnunet_cil.labels import Label, numbers_in
from nnunet_cil.training.stacked_maps import network_input

if TYPE_CHECKING:
    from nnunet_cil.training.volumes.teacher_volumes import TeacherVolumes

OLD_CLASSES = "old classes"
"""The key of all old classes' locations, which nnU-Net's loader takes for one more class."""


class MapLabels(SegOnlyTransform):
    """Maps data set labels to the step's channels, or to bits of its regions, ahead of all other transforms.

    Further channels are a cascade's previous stage and the teacher's segmentation, and stay as they are.
    """

    def __init__(self, table: npt.NDArray[np.int16]) -> None:
        """Takes the table from ``labels.lookup_table``."""
        super().__init__()
        self.table = torch.from_numpy(table)

    def _apply_to_segmentation(self, segmentation: Tensor, **_params: Any) -> Tensor:
        labels = self.table[segmentation[:1].long() + 1].to(segmentation.dtype)
        return torch.cat([labels, segmentation[1:]])


class StepDataset:
    """A preprocessed data set with the foreground locations of the step's labels, and those of a teacher for old classes.

    nnU-Net's loader picks a location of a class to centre a patch on. Preprocessing stored the locations of hidden classes,
    too; these would tell the training where hidden classes are.
    """

    def __init__(
        self, dataset: nnUNetBaseDataset, target_labels: Collection[Label], annotated_key: tuple[int, ...]
    ) -> None:
        """Wraps a data set.

        Args:
            dataset: nnU-Net's data set.
            target_labels: the data set's labels (or regions) that training may see.
            annotated_key: the key under which nnU-Net's loader looks for all annotated voxels (ignore label only).
        """
        self._dataset = dataset
        self._target_labels = label_sets(target_labels)
        self._annotated_key = annotated_key
        self.identifiers: list[str] = dataset.identifiers
        self.old_locations: Mapping[str, npt.NDArray[np.int32]] = {}
        """Case -> rows (class, *position), see ``training.locations``."""
        self.volumes: TeacherVolumes | None = None
        """The teacher's segmentations of whole cases; patches carry them as the last channel of the targets."""

    def target_labels_in(self, _identifier: str) -> Collection[frozenset[int]]:
        """Returns the data set's labels that training may see in a case; of a region all of its numbers."""
        return self._target_labels

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Loads a case as nnU-Net: data, segmentation, previous segmentation, properties; see ``TeacherVolumes.load_case``."""
        load = self._dataset.load_case if self.volumes is None else partial(self.volumes.load_case, self._dataset)
        data, segmentation, previous, properties = load(identifier)
        labelled = self.target_labels_in(identifier)
        locations: dict[Any, Any] = {}
        for key, voxels in properties["class_locations"].items():
            numbers = frozenset(numbers_in(key))
            if -1 in numbers:
                locations[self._annotated_key] = voxels
            elif numbers in labelled:
                locations[key] = voxels
        if identifier in self.old_locations:
            locations[OLD_CLASSES] = self.old_locations[identifier]
        return data, segmentation, previous, {**properties, "class_locations": locations}


def label_sets(labels: Iterable[Label]) -> frozenset[frozenset[int]]:
    """Returns the numbers of each label or region, whatever their order."""
    return frozenset(frozenset(numbers_in(label)) for label in labels)


class Tile(NamedTuple):
    """images (batch, channels, *spatial) float32; labels (batch, *spatial) int64; valid (batch, *spatial) bool.

    Labels are channels; of regions they are bits (``StepPlan.target_labels``).

    ``corner`` is the tile's first voxel in the preprocessed ``case``, negative in its padding; a batch of slices is one tile.
    """

    images: Tensor
    labels: Tensor
    valid: Tensor
    case: str
    corner: tuple[int, ...]


def evenly_spaced(keys: Sequence[str], most: int) -> list[str]:
    """Returns all keys, or ``most`` of them at even distances."""
    return list(keys) if len(keys) <= most else [keys[i * len(keys) // most] for i in range(most)]


def tiles(
    dataset: nnUNetBaseDataset,
    patch_size: Sequence[int],
    table: npt.NDArray[np.int16],
    ignore_label: int | None,
    batch_size: int,
    previous_labels: Sequence[int] = (),
) -> Iterator[Tile]:
    """Cuts whole cases into patches that cover every voxel; each voxel is valid in one tile only.

    Args:
        dataset: preprocessed cases.
        patch_size: of the configuration, 2D or 3D.
        table: from ``labels.lookup_table``.
        ignore_label: the model's ignore label; such voxels are not valid.
        batch_size: the number of slices in a tile of a 2D configuration.
        previous_labels: of a cascade's previous stage, which is among the images, a channel each.
    """
    is_2d = len(patch_size) == 2
    for identifier in dataset.identifiers:
        data, segmentation, previous, _ = dataset.load_case(identifier)
        labels = table[np.asarray(segmentation[0]).astype(np.int64) + 1]
        annotated = np.ones(labels.shape, dtype=bool) if ignore_label is None else labels != ignore_label
        image = network_input(data, previous, previous_labels)
        minimum = (image.shape[1], *patch_size) if is_2d else tuple(patch_size)
        image, inner = pad_nd_image(image, minimum, return_slicer=True)
        labels = pad_nd_image(labels.clip(min=0) * annotated, minimum)
        unseen = pad_nd_image(annotated, minimum)
        window = minimum if is_2d else tuple(patch_size)
        for corner in _corners(image.shape[1:], window):
            box = tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))
            parts = (
                image[:, box[0], box[1], box[2]][None],
                labels[box][None].astype(np.int64),
                unseen[box][None].copy(),
            )
            unseen[box] = False
            images, own, valid = (torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
            begin = tuple(c - i.start for c, i in zip(corner, inner[1:], strict=True))
            tile = Tile(images, own, valid, identifier, begin)
            yield from _slices(tile, batch_size) if is_2d else (tile,)


def _corners(shape: Sequence[int], window: Sequence[int]) -> Iterator[tuple[int, ...]]:
    steps = compute_steps_for_sliding_window(tuple(shape), tuple(window), 1.0)
    for index in np.ndindex(*(len(s) for s in steps)):
        yield tuple(int(s[i]) for s, i in zip(steps, index, strict=True))


def _slices(tile: Tile, batch_size: int) -> Iterator[Tile]:
    """Cuts a volume (1, channels, slices, *plane) into batches of slices (batch, channels, *plane)."""
    images = tile.images[0].transpose(0, 1)
    for i in range(0, images.shape[0], batch_size):
        part = slice(i, i + batch_size)
        corner = (tile.corner[0] + i, *tile.corner[1:])
        yield Tile(images[part], tile.labels[0, part], tile.valid[0, part], tile.case, corner)
