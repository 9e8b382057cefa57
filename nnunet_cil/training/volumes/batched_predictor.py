"""nnU-Net's predictor, with several patches of its sliding window in a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import Tensor


class BatchedPredictor(nnUNetPredictor):
    """Runs as many patches at a time as a training batch has.

    nnU-Net asks for one patch after the other. On a CPU a patch alone costs as much as two together, since PyTorch's fast 3D
    convolutions start with a batch of two; a GPU has more to do at a time. All else is nnU-Net's.
    """

    _logits: Iterator[Tensor]

    def _internal_predict_sliding_window_return_logits(
        self, data: Tensor, slicers: Sequence[Any], do_on_device: bool = True
    ) -> Any:
        self._logits = self._in_batches(data, slicers)
        return super()._internal_predict_sliding_window_return_logits(data, slicers, do_on_device)

    def _internal_maybe_mirror_and_predict(self, _patch: Tensor) -> Tensor:
        """Returns the next patch's logits: nnU-Net asks in the order of ``slicers``."""
        return next(self._logits)

    def _in_batches(self, data: Tensor, slicers: Sequence[Any]) -> Iterator[Tensor]:
        """Yields each patch's logits, (1, classes, *patch size)."""
        size = self.configuration_manager.batch_size
        for first in range(0, len(slicers), size):
            patches = torch.stack([data[box] for box in slicers[first : first + size]]).to(self.device)
            yield from super()._internal_maybe_mirror_and_predict(patches).split(1)
