"""The teacher: the frozen network of the previous step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nnunet_cil.networks.features import FeatureReader


class TeacherOutput(NamedTuple):
    """What the teacher says: logits (batch, K, *spatial), features (batch, channels, *spatial)."""

    logits: Tensor
    features: Tensor


class Teacher:
    """Runs the previous step's network on the batch at hand, at most once and only when asked.

    Not an ``nn.Module``, so that it can't become part of the student, its optimizer or its checkpoint.
    """

    def __init__(self, network: nn.Module, device: torch.device, *, compiled: bool = False) -> None:
        """Freezes ``network`` (K output channels, deep supervision off) and moves it to ``device``.

        Args:
            network: the previous step's.
            device: where the student is.
            compiled: run it through ``torch.compile``, as nnU-Net does with the student.
        """
        self.device = device
        self.network = network.to(device).eval().requires_grad_(False)
        self.reader = FeatureReader(self.network)
        self._forward = torch.compile(self.network) if compiled else self.network
        self._images: Tensor | None = None
        self._output: TeacherOutput | None = None

    def look_at(self, images: Tensor | None) -> None:
        """Hands over the batch, (batch, channels, *spatial) on the device; None lets go of the last one."""
        self._images, self._output = images, None

    @property
    def output(self) -> TeacherOutput:
        """The output on the images last handed over."""
        if self._output is None:
            if self._images is None:
                raise RuntimeError("The teacher was handed no images.")
            self._output = self._run(self._forward, self._images)
        return self._output

    def __call__(self, images: Tensor) -> TeacherOutput:
        """The output on any other images; never compiled, since their number and size may vary."""
        return self._run(self.network, images)

    @torch.no_grad()
    def _run(self, network: Callable[[Tensor], Tensor], images: Tensor) -> TeacherOutput:
        """Under the same autocast as nnU-Net's training."""
        with autocast(self.device):
            logits = network(images)
        return TeacherOutput(logits, self.reader.take())


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Mixed precision where nnU-Net uses it: on CUDA only."""
    if device.type == "cuda":
        context: AbstractContextManager[None] = torch.autocast("cuda")
        return context
    return nullcontext()
