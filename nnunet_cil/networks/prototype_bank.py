"""The global prototypes of a model's classes, which each step's checkpoint hands to the next step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class PrototypeBank:
    """Global prototypes P_c of background and classes, in channel order.

    Of a model of regions these are, for each region, its own and that of its outside, one after the other.

    Attributes:
        prototypes: (classes, channels) float32; 0 for a class that has none.
        counts: (classes,) float64, the number of voxels that each is the mean of; 0 for a class that has none.
    """

    def __init__(self, prototypes: Tensor, counts: Tensor) -> None:
        """Takes over the tensors."""
        self.prototypes = prototypes
        self.counts = counts

    @classmethod
    def from_sums(cls, sums: Tensor, counts: Tensor) -> PrototypeBank:
        """Divides sums of features by numbers of voxels.

        Args:
            sums: (classes, channels) float64.
            counts: (classes,) float64; a class with 0 has no prototype.
        """
        return cls((sums / counts[:, None].clamp(min=1)).float(), counts.double())

    @classmethod
    def unknown(cls, num_classes: int, num_features: int) -> PrototypeBank:
        """Returns the bank of classes that have no prototype yet."""
        return cls(torch.zeros(num_classes, num_features), torch.zeros(num_classes, dtype=torch.float64))

    @property
    def known(self) -> Tensor:
        """(classes,) bool, the classes that have a prototype."""
        return self.counts > 0

    def to(self, device: torch.device) -> PrototypeBank:
        """Returns the bank on another device, with counts in float32 where a device lacks float64."""
        counts = self.counts.float() if device.type == "mps" else self.counts
        return PrototypeBank(self.prototypes.to(device), counts.to(device))

    def blended(self, fresh: PrototypeBank, share: float, min_voxels: int) -> PrototypeBank:
        """Blends the bank with another estimate, P_c <- (1 - share) P_c + share P'_c.

        A class whose P_c is unknown takes over P'_c; a class with too few voxels in ``fresh`` stays as it is.

        Args:
            fresh: P', of the same classes.
            share: in [0, 1].
            min_voxels: P'_c counts where it is the mean of more voxels.
        """
        weight = torch.where(self.known, share, 1.0) * (fresh.counts > min_voxels)
        weight = weight[:, None].to(self.prototypes.dtype)
        prototypes = (1 - weight) * self.prototypes + weight * fresh.prototypes
        return PrototypeBank(
            prototypes, torch.where(self.known, self.counts, fresh.counts * (fresh.counts > min_voxels))
        )

    def joined(self, new: PrototypeBank) -> PrototypeBank:
        """Returns the bank after a step: the background re-estimated, old classes carried forward, new ones appended.

        Args:
            new: background (the old one stays where this one is unknown), then the step's new classes.
        """
        background = new if new.counts[0] > 0 else self
        prototypes = torch.cat([background.prototypes[:1], self.prototypes[1:], new.prototypes[1:]])
        return PrototypeBank(prototypes, torch.cat([background.counts[:1], self.counts[1:], new.counts[1:]]))

    def with_regions(self, new: PrototypeBank, order: Sequence[int]) -> PrototypeBank:
        """Returns the bank of a model of regions after a step: old ones carried forward, new ones added.

        Args:
            new: of the new regions.
            order: of the regions, old ones first, which the model's channels have.
        """
        rows = [row for region in order for row in (2 * region, 2 * region + 1)]
        prototypes, counts = (
            torch.cat(own)[rows]
            for own in ((self.prototypes, new.prototypes), (self.counts.to(new.counts), new.counts))
        )
        return PrototypeBank(prototypes, counts)

    @property
    def inside(self) -> Tensor:
        """(regions, channels), the prototypes of regions."""
        return self.prototypes[0::2]

    @property
    def outside(self) -> Tensor:
        """(regions, channels), the prototypes of the regions' outsides."""
        return self.prototypes[1::2]

    @property
    def known_regions(self) -> Tensor:
        """(regions,) bool, the regions of which both prototypes are known."""
        return self.known[0::2] & self.known[1::2]

    def update_background(self, mean: Tensor, count: Tensor, momentum: float) -> None:
        """Updates the background in place, P_0 <- momentum P_0 + (1 - momentum) mean, without host synchronisation.

        Nothing changes where ``count`` is 0 or the mean is not finite: nnU-Net skips the step of such a batch, too.

        Args:
            mean: (channels,) float.
            count: () float, the number of voxels behind it.
            momentum: in [0, 1].
        """
        self._update(self.prototypes[:1], mean[None], count[None], momentum)

    def update_outside(self, means: Tensor, counts: Tensor, momentum: float) -> None:
        """Updates the regions' outsides in place, as ``update_background``.

        Args:
            means: (regions, channels) float.
            counts: (regions,) float.
            momentum: in [0, 1].
        """
        self._update(self.prototypes[1::2], means, counts, momentum)

    @staticmethod
    def _update(rows: Tensor, means: Tensor, counts: Tensor, momentum: float) -> None:
        usable = (counts > 0) & means.isfinite().all(1)
        moved = momentum * rows + (1 - momentum) * means.detach()
        rows.copy_(torch.where(usable[:, None], moved, rows))

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the tensors for the checkpoint, on the CPU."""
        return {"prototypes": self.prototypes.cpu().clone(), "counts": self.counts.cpu().double()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> PrototypeBank:
        """Reads the tensors of ``state_dict``."""
        return cls(state["prototypes"].clone(), state["counts"].clone())
