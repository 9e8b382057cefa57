"""The global prototypes of a model's classes, as they travel from step to step in its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class PrototypeBank:
    """Global prototypes P_c of background and classes, in channel order.

    Attributes:
        prototypes: (classes, channels) float32.
        counts: (classes,) float64, how many voxels each is the mean of; 0 where a class has none.
    """

    def __init__(self, prototypes: Tensor, counts: Tensor) -> None:
        """Takes over the tensors."""
        self.prototypes = prototypes
        self.counts = counts

    @classmethod
    def from_sums(cls, sums: Tensor, counts: Tensor) -> PrototypeBank:
        """From float64 feature sums (classes, channels) and voxel counts (classes,)."""
        return cls((sums / counts[:, None].clamp(min=1)).float(), counts.double())

    @classmethod
    def unknown(cls, num_classes: int, num_features: int) -> PrototypeBank:
        """Of classes that have no prototype yet."""
        return cls(torch.zeros(num_classes, num_features), torch.zeros(num_classes, dtype=torch.float64))

    @property
    def known(self) -> Tensor:
        """(classes,) bool: which classes have a prototype."""
        return self.counts > 0

    def to(self, device: torch.device) -> PrototypeBank:
        """The bank on another device (counts as float32 where a device lacks float64)."""
        counts = self.counts.float() if device.type == "mps" else self.counts
        return PrototypeBank(self.prototypes.to(device), counts.to(device))

    def blended(self, fresh: PrototypeBank, share: float, min_voxels: int) -> PrototypeBank:
        """P_c <- (1 - share) P_c + share P'_c where ``fresh`` has more than ``min_voxels``; all of P'_c where P_c is unknown."""
        weight = torch.where(self.known, share, 1.0) * (fresh.counts > min_voxels)
        weight = weight[:, None].to(self.prototypes.dtype)
        prototypes = (1 - weight) * self.prototypes + weight * fresh.prototypes
        return PrototypeBank(
            prototypes, torch.where(self.known, self.counts, fresh.counts * (fresh.counts > min_voxels))
        )

    def joined(self, new: PrototypeBank) -> PrototypeBank:
        """The bank after a step: the background re-estimated, old classes carried forward, new ones appended.

        Args:
            new: background (the old one stays where this one is unknown), then the step's new classes.
        """
        background = new if new.counts[0] > 0 else self
        prototypes = torch.cat([background.prototypes[:1], self.prototypes[1:], new.prototypes[1:]])
        return PrototypeBank(prototypes, torch.cat([background.counts[:1], self.counts[1:], new.counts[1:]]))

    def update_background(self, mean: Tensor, count: Tensor, momentum: float) -> None:
        """P_0 <- momentum P_0 + (1 - momentum) mean, in place. No host sync.

        Nothing where ``count`` is 0 or the mean is not finite: nnU-Net skips the step of such a batch, and so is it here.
        """
        usable = (count > 0) & mean.isfinite().all()
        moved = momentum * self.prototypes[0] + (1 - momentum) * mean.detach()
        self.prototypes[0] = torch.where(usable, moved, self.prototypes[0])

    def state_dict(self) -> dict[str, Tensor]:
        """For the checkpoint."""
        return {"prototypes": self.prototypes.cpu().clone(), "counts": self.counts.cpu().double()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> PrototypeBank:
        """The inverse of ``state_dict``."""
        return cls(state["prototypes"].clone(), state["counts"].clone())
