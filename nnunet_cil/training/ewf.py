"""nnUNetTrainerEWF: after a step, the weights are fused with the previous step's."""

from __future__ import annotations

import math

import torch

from nnunet_cil.networks.heads import HEAD_PREFIX
from nnunet_cil.training.mib import nnUNetTrainerMiB


class nnUNetTrainerEWF(nnUNetTrainerMiB):
    """Endpoint Weight Fusion on top of MiB.

    Source: Xiao et al. 2023, Endpoints Weight Fusion for Class Incremental Semantic Segmentation, CVPR.
    """

    @torch.no_grad()
    def finish_step(self) -> None:
        """Theta <- (1 - w) theta_old + w theta, w = sqrt(N / (N + K)), for all that the old network had."""
        if self.teacher is None:
            return
        num_old, num_new = self.step_plan.num_old_channels, len(self.step_plan.new_classes)
        share = math.sqrt(num_new / (num_new + num_old))
        weights = self.bare_network.state_dict()
        old = self.teacher.network.state_dict()
        # nnU-Net's decoder holds the encoder: its tensors are there under two names, and would be fused twice
        for name, _ in self.bare_network.named_parameters():
            rows = slice(num_old if name.startswith(HEAD_PREFIX) else None)
            weights[name][rows].lerp_(old[name], 1 - share)
        self.print_to_log_file(f"Fused the weights with the previous step's: {share:.3f} new, {1 - share:.3f} old.")
