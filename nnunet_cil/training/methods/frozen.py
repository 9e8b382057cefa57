"""nnUNetTrainerFrozen: the previous network as it is, with a head for the new classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnunet_cil.networks.architectures import is_head
from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.hyperparameters import choice, fixed
from nnunet_cil.training.options import NOT_ASKED
from nnunet_cil.training.region_terms import RegionTerms
from nnunet_cil.training.step_loss import StepLoss


class FrozenLoss(StepLoss):
    """L = L_seg: unbiased cross-entropy + Dice of the new classes, without a gradient for the old logits.

    Source of the cross-entropy: Cermelli et al. 2020, https://arxiv.org/abs/2002.00718.
    """

    def terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the term segmentation."""
        logits = [torch.cat([x[:, : self.num_old].detach(), x[:, self.num_old :]], dim=1) for x in logits]
        log_probs = self.log_probs(logits)
        return {"segmentation": self.over_scales(self.unbiased_segmentation, log_probs, targets, batch)}


class RegionFrozenLoss(FrozenLoss, RegionTerms):
    """The same of regions: L_seg of the new ones."""


class nnUNetTrainerFrozen(nnUNetTrainerCIL):
    """Freezes the previous network, and learns the new channels of its segmentation layers alone."""

    asks_teacher = False
    distillation_interval = fixed(1, NOT_ASKED)
    new_class_start = choice(
        "fresh",
        ("fresh", "imprinted"),
        "As in other trainers, but for the starts that would change the background's bias.",
    )
    old_dice_weight = fixed(0.0, "its old channels do not learn")

    def configure_optimizers(self) -> tuple[Any, Any]:
        """Configures as the base; after step 0 with all but the segmentation layers frozen, before DDP asks what learns."""
        if self.step_plan.previous is not None:
            for name, parameter in self.bare_network.named_parameters():
                parameter.requires_grad_(is_head(name))
        return super().configure_optimizers()

    def build_step_loss(self) -> StepLoss:
        """Builds the segmentation term."""
        return RegionFrozenLoss(self.loss_setup()) if self.step_plan.has_regions else FrozenLoss(self.loss_setup())

    def on_train_epoch_start(self) -> None:
        """Starts an epoch as nnU-Net; after step 0 the running statistics of a batch normalisation stay as they are."""
        super().on_train_epoch_start()
        if self.step_plan.previous is not None:
            for module in self.bare_network.modules():
                if getattr(module, "running_mean", None) is not None:
                    module.eval()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Trains on a batch as the base; old channels, which have no gradient, are spared the weight decay, too."""
        if self.step_plan.previous is None:
            return super().train_step(batch)
        rows = list(self.step_plan.old_channels)
        heads = [p.detach() for name, p in self.bare_network.named_parameters() if is_head(name)]
        before = [head[rows] for head in heads]
        outputs = super().train_step(batch)
        for head, values in zip(heads, before, strict=True):
            head[rows] = values
        return outputs
