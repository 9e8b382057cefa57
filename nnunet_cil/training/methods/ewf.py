"""nnUNetTrainerEWF: after a step, the weights are fused with the previous step's."""

from __future__ import annotations

import math
from itertools import chain

import torch
from torch import Tensor

from nnunet_cil.networks.architectures import is_head
from nnunet_cil.networks.inputs import shared_part
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.methods.mib import nnUNetTrainerMiB
from nnunet_cil.training.region_terms import RegionTerms
from nnunet_cil.training.starts import old_weights_at_start
from nnunet_cil.training.step_loss import StepLoss


class RegionEWFLoss(RegionTerms):
    """L = L_seg + mib_weight L_LwF of regions: without a background nothing is merged into it."""

    def terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the terms segmentation and distillation."""
        segmentation = self.over_scales(self.unbiased_segmentation, logits, targets, batch)
        distillation = self.distilled(lambda: self._distillation(logits, targets, batch))
        return self.joined({"segmentation": segmentation}, distillation)

    def _distillation(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        return {"distillation": self.settings.mib_weight * self.binary_distillation(logits[0], targets[0], batch)}


class nnUNetTrainerEWF(nnUNetTrainerMiB):
    """Endpoints Weight Fusion on top of MiB.

    Source: Xiao et al. 2023, Endpoints Weight Fusion for Class Incremental Semantic Segmentation, CVPR.
    """

    needs_new_classes = True  # w = 0 with N = 0
    needs_background = ""
    compares_weights = True

    def build_step_loss(self) -> StepLoss:
        """Builds MiB's loss; of regions one without a background."""
        return RegionEWFLoss(self.loss_setup()) if self.step_plan.has_regions else super().build_step_loss()

    @torch.no_grad()
    def finish_step(self) -> None:
        """Fuses the weights, theta <- (1 - w) theta_old + w theta, w = sqrt(N / (N + K)), for all that the old network had.

        Running statistics of a batch normalisation are fused, too.
        theta_old is the start of the step, the background's bias as ``new_class_start`` left it.
        """
        if self.step_plan.previous is None:
            return
        num_old, num_new = self.step_plan.num_old_channels, len(self.step_plan.new_classes)
        share = math.sqrt(num_new / (num_new + num_old))
        weights = self.bare_network.state_dict()
        old = old_weights_at_start(self)
        channels = list(self.step_plan.old_channels)
        network = self.bare_network
        # the encoder is a module of nnU-Net's decoder, too: its tensors have two names, and would be fused twice
        for name, tensor in chain(network.named_parameters(), network.named_buffers()):
            if not tensor.is_floating_point():  # how many batches a normalisation has seen
                continue
            if is_head(name):
                own = weights[name]
                own[channels] = own[channels].lerp(old[name][:num_old], 1 - share)
            else:
                shared_part(weights[name], old[name]).lerp_(old[name], 1 - share)
        self.print_to_log_file(f"Fused the weights with the previous step's: {share:.3f} new, {1 - share:.3f} old.")
