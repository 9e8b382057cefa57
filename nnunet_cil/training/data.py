"""What of the data a step may see: its own labels, in the targets and in the sampler."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
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

from nnunet_cil.errors import CILError

if TYPE_CHECKING:
    from nnunet_cil.training.teacher_volumes import TeacherVolumes

OLD_CLASSES = "old classes"
"""The key of all old classes' locations: to nnU-Net's loader they are one class more."""


class MapLabels(SegOnlyTransform):
    """Data set labels -> the step's channels, before anything else can look at the labels.

    A second channel is the teacher's, and stays as it is.
    """

    def __init__(self, table: npt.NDArray[np.int16]) -> None:
        """Takes the table from ``labels.lookup_table``."""
        super().__init__()
        self.table = torch.from_numpy(table)

    def _apply_to_segmentation(self, segmentation: Tensor, **_params: Any) -> Tensor:
        labels = self.table[segmentation[:1].long() + 1].to(segmentation.dtype)
        return torch.cat([labels, segmentation[1:]])


class StepDataset:
    """A preprocessed data set whose foreground locations are those of the step's labels, and what a teacher says of old classes.

    nnU-Net's loader picks a location of a class to centre a patch on; locations of hidden classes, as preprocessing found them in
    the labels, would tell where these are.
    """

    def __init__(self, dataset: nnUNetBaseDataset, shown: Collection[int], annotated_key: tuple[int, ...]) -> None:
        """Wraps ``dataset``.

        Args:
            dataset: nnU-Net's data set.
            shown: the data set's labels that the step may see.
            annotated_key: the key under which nnU-Net's loader looks for all annotated voxels (ignore label only).
        """
        self._dataset = dataset
        self._shown = frozenset(shown)
        self._annotated_key = annotated_key
        self.identifiers: list[str] = dataset.identifiers
        self.old_locations: Mapping[str, npt.NDArray[np.int32]] = {}
        """Case -> rows (class, *position), see ``training.locations``."""
        self.volumes: TeacherVolumes | None = None
        """What the teacher says of whole cases; patches carry it behind their labels."""

    def labelled_in(self, _identifier: str) -> Collection[int]:
        """The data set's labels that may be seen in a case."""
        return self._shown

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """As nnU-Net's: data, segmentation, previous segmentation, properties."""
        load = self._dataset.load_case if self.volumes is None else partial(self.volumes.load_case, self._dataset)
        data, segmentation, previous, properties = load(identifier)
        shown = self.labelled_in(identifier)
        locations: dict[Any, Any] = {}
        for key, voxels in properties["class_locations"].items():
            if isinstance(key, tuple):
                locations[self._annotated_key] = voxels
            elif key in shown:
                locations[key] = voxels
        if identifier in self.old_locations:
            locations[OLD_CLASSES] = self.old_locations[identifier]
        return data, segmentation, previous, {**properties, "class_locations": locations}


def narrowed_split(
    split: tuple[list[str], list[str]], cases: Collection[str], fold: str, step: str
) -> tuple[list[str], list[str]]:
    """Narrows training and validation cases to those of a step.

    Args:
        split: nnU-Net's, of the fold.
        cases: the step's.
        fold: its name, for the message.
        step: its name, for the message.

    Raises:
        CILError: no training or no validation case is left.
    """
    training, validation = ([key for key in keys if key in cases] for keys in split)
    for what, keys in (("training", training), ("validation", validation)):
        if not keys:
            raise CILError(
                f"{fold} has no {what} case among the {len(cases)} cases of {step}. Use another fold, fewer steps or shared "
                "cases."
            )
    return training, validation


class Tile(NamedTuple):
    """images (batch, channels, *spatial) float32; labels (batch, *spatial) int64; valid (batch, *spatial) bool.

    ``corner`` is where the tile begins in the preprocessed ``case``, below 0 in its padding; a batch of slices is one tile.
    """

    images: Tensor
    labels: Tensor
    valid: Tensor
    case: str
    corner: tuple[int, ...]


def evenly_spaced(keys: Sequence[str], most: int) -> list[str]:
    """All of them, or ``most`` of them at even distances."""
    return list(keys) if len(keys) <= most else [keys[i * len(keys) // most] for i in range(most)]


def tiles(
    dataset: nnUNetBaseDataset,
    patch_size: Sequence[int],
    table: npt.NDArray[np.int16],
    ignore_label: int | None,
    batch_size: int,
) -> Iterator[Tile]:
    """Whole cases, cut into patches that cover every voxel; each voxel is valid in one tile only.

    Args:
        dataset: preprocessed cases.
        patch_size: of the configuration, 2D or 3D.
        table: from ``labels.lookup_table``.
        ignore_label: the model's ignore label; such voxels are not valid.
        batch_size: how many slices make a batch of a 2D configuration.
    """
    is_2d = len(patch_size) == 2
    for identifier in dataset.identifiers:
        data, segmentation, _, _ = dataset.load_case(identifier)
        labels = table[np.asarray(segmentation[0]).astype(np.int64) + 1]
        annotated = np.ones(labels.shape, dtype=bool) if ignore_label is None else labels != ignore_label
        image = np.asarray(data[:], dtype=np.float32)
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
    """A volume (1, channels, slices, *plane) as batches of slices (batch, channels, *plane)."""
    images = tile.images[0].transpose(0, 1)
    for i in range(0, images.shape[0], batch_size):
        part = slice(i, i + batch_size)
        corner = (tile.corner[0] + i, *tile.corner[1:])
        yield Tile(images[part], tile.labels[0, part], tile.valid[0, part], tile.case, corner)
