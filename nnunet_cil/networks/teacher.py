"""The teacher: the frozen network of the previous step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nnunet_cil.networks.features import FeatureReader


class TeacherOutput(NamedTuple):
    """The teacher's logits (batch, K, *spatial) and features (batch, channels, *spatial), float, half on CUDA."""

    logits: Tensor
    features: Tensor


class Teacher:
    """Runs the previous step's network.

    Not an ``nn.Module``, so that it can't become part of the student, its optimizer or its checkpoint.
    """

    def __init__(self, network: nn.Module, device: torch.device, *, compiled: bool = False) -> None:
        """Freezes a network and moves it to a device.

        Args:
            network: the previous step's, with K output channels and deep supervision off.
            device: the student's.
            compiled: run training batches through ``torch.compile``, as nnU-Net does with the student.
        """
        self.device = device
        self.network = network.to(device).eval().requires_grad_(False)
        self._reader = FeatureReader(self.network)
        self._forward = torch.compile(self.network) if compiled else self.network

    def on_batch(self, images: Tensor) -> TeacherOutput:
        """Runs on a training batch, (batch, channels, *patch size) float."""
        return self._run(self._forward, images)

    def __call__(self, images: Tensor) -> TeacherOutput:
        """Runs on other images, (batch, channels, *spatial) float; never compiled, since their number and size may vary."""
        return self._run(self.network, images)

    @torch.no_grad()
    def _run(self, network: Callable[[Tensor], Tensor], images: Tensor) -> TeacherOutput:
        """Runs under the same autocast as nnU-Net's training."""
        with self._reader.reading(), autocast(self.device):
            logits = network(images)
            return TeacherOutput(logits, self._reader.take())


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Returns the autocast of nnU-Net's training: mixed precision on CUDA, nothing elsewhere."""
    if device.type == "cuda":
        context: AbstractContextManager[None] = torch.autocast("cuda")
        return context
    return nullcontext()
