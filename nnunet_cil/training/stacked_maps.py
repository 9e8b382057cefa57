"""The segmentation of a cascade's previous stage, as a network sees it and as patches carry it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot


def network_input(images: Any, previous: Any, labels: Sequence[int]) -> npt.NDArray[np.float32]:
    """Returns what a network sees of a preprocessed case, (channels, *spatial).

    Args:
        images: (channels, *spatial), as nnU-Net's data set returns it.
        previous: (*spatial), the segmentation of the previous stage; None where the configuration is no cascade.
        labels: that get a channel each, 1 where ``previous`` has the label.
    """
    channels = np.array(images[:], dtype=np.float32)
    if previous is None:
        return channels
    one_hot = convert_labelmap_to_one_hot(np.asarray(previous[:]), list(labels), output_dtype=channels.dtype)
    return np.vstack((channels, one_hot))


class StackedMaps:
    """The labels of a case, with a further label map as their second channel, (2, *spatial) int16.

    It is read as far as it is asked for: nnU-Net's loader asks for a patch.
    """

    def __init__(self, labels: Any, further: Any) -> None:
        """Takes labels, (1, *spatial), and a label map, (*spatial)."""
        self._labels, self._further = labels, further
        self.shape = (2, *further.shape)

    def __getitem__(self, index: Any) -> npt.NDArray[np.int16]:
        """Returns the part of the maps that an index of slices or numbers names, as of an array."""
        maps, *box = index if isinstance(index, tuple) else (index,)
        channels: tuple[Any, ...] = (slice(None), *box)
        labels = np.asarray(self._labels[channels], dtype=np.int16)
        further = np.asarray(self._further[tuple(box) or slice(None)], dtype=np.int16)
        part: npt.NDArray[np.int16] = np.concatenate([labels, further[None]])[maps]
        return part
