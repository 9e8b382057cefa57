"""nnUNetTrainerEWC: Elastic Weight Consolidation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nnunet_cil.losses.prototypes import most_probable, sum_over_ranks
from nnunet_cil.losses.regions import region_cross_entropy, region_masks
from nnunet_cil.losses.regularization import importance_penalty
from nnunet_cil.losses.segmentation import masked_cross_entropy, merge_old_into_background
from nnunet_cil.networks.architectures import is_head
from nnunet_cil.networks.inputs import shared_part
from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.data import Tile
from nnunet_cil.training.hyperparameters import fixed, number
from nnunet_cil.training.options import NOT_ASKED
from nnunet_cil.training.region_terms import RegionTerms
from nnunet_cil.training.starts import old_weights_at_start
from nnunet_cil.training.step_loss import LossSetup, StepLoss


class EWCLoss(StepLoss):
    """L = L_seg + ewc_weight/2 sum_i I_i (theta_i - theta*_i)^2, theta* the weights at the step's start.

    L_seg: plain cross-entropy (label 0 is background) + Dice of the new classes. Source: Kirkpatrick et al. 2017,
    https://arxiv.org/abs/1612.00796.
    """

    def __init__(
        self, setup: LossSetup, *, network: nn.Module, anchors: dict[str, Tensor], importances: dict[str, Tensor]
    ) -> None:
        """Takes the student without wrappers; anchors and importances by parameter name, float, on its device."""
        super().__init__(setup)
        self._parameters_by_name = dict(network.named_parameters())
        self._anchors, self._importances = anchors, importances

    def terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the terms segmentation and ewc."""
        penalty = importance_penalty(self._parameters_by_name, self._anchors, self._importances)
        segmentation = self.over_scales(self.plain_segmentation, self.log_probs(logits), targets)
        return {"segmentation": segmentation, "ewc": self.settings.ewc_weight * penalty}


class RegionEWCLoss(EWCLoss, RegionTerms):
    """The same of regions."""


class nnUNetTrainerEWC(nnUNetTrainerCIL):
    """Elastic Weight Consolidation (Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796)."""

    asks_teacher = False
    distillation_interval = fixed(1, NOT_ASKED)
    compares_weights = True
    ewc_weight = number(1e4, "Weight of the penalty on changed parameters.")

    def begin_step(self, inherited: dict[str, dict[str, Tensor]]) -> None:
        """Takes over the importances; a model without any gets them from the teacher's predictions, in place of its labels."""
        if "importances" in inherited:
            self.method_state["importances"] = inherited["importances"]
            return
        self.print_to_log_file(
            "The previous model carries no importances; estimating them from the teacher's predictions..."
        )
        assert self.teacher is not None

        def log_likelihood(logits: Tensor, tile: Tile) -> Tensor:
            if self.step_plan.has_regions:
                return -region_cross_entropy(logits, logits > 0, valid=tile.valid.to(self.device))
            mask = (tile.valid & (tile.labels == 0)).to(self.device)
            return -masked_cross_entropy(logits.log_softmax(1), most_probable(logits), mask)

        network = self.teacher.network
        self.method_state["importances"] = self._importances(network.requires_grad_(True), log_likelihood)
        network.requires_grad_(False)

    def finish_step(self) -> None:
        """Adds the importances of this step's classes, with the final weights and the step's labels."""
        self.print_to_log_file("Estimating the weights' importances...")
        step, num_old = self.step_plan, self.step_plan.num_old_channels

        def log_likelihood(logits: Tensor, tile: Tile) -> Tensor:
            if step.has_regions:
                masks = region_masks(tile.labels, range(num_old, step.num_channels)).to(self.device)
                new = logits[:, list(step.channel_order[num_old:])]
                return -region_cross_entropy(new, masks, valid=tile.valid.to(self.device))
            log_probs = merge_old_into_background(logits.log_softmax(1), num_old)
            labels = (tile.labels - (num_old - 1)).clamp(min=0).to(self.device)
            return -masked_cross_entropy(log_probs, labels, tile.valid.to(self.device))

        self.set_deep_supervision_enabled(False)
        total = self._importances(self.bare_network.eval(), log_likelihood)
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        for name, tensor in self.method_state.get("importances", {}).items():
            self._add_old(name, total[name], tensor)
        self.method_state["importances"] = total

    def build_step_loss(self) -> StepLoss:
        """Builds L_seg + 1e4 times the penalty, by default."""
        start, old = old_weights_at_start(self), self.method_state["importances"]
        own = dict(self.bare_network.named_parameters())
        kind = RegionEWCLoss if self.step_plan.has_regions else EWCLoss
        return kind(
            self.loss_setup(),
            network=self.bare_network,
            anchors={
                name: self._placed(name, shared_part(start[name], tensor), own[name]) for name, tensor in old.items()
            },
            importances={name: self._placed(name, tensor, own[name]) for name, tensor in old.items()},
        )

    def _placed(self, name: str, tensor: Tensor, own: Tensor) -> Tensor:
        """Returns a tensor of the old network, where this one's takes it over; of regions in its shape, 0 where that is new."""
        if not self.step_plan.has_regions:
            return tensor.to(self.device)
        placed = torch.zeros_like(own, requires_grad=False)
        self._add_old(name, placed, tensor)
        return placed

    def _add_old(self, name: str, tensor: Tensor, old: Tensor) -> None:
        """Adds a tensor of the old network to the part of this one's that it has become."""
        if is_head(name):
            tensor[list(self.step_plan.old_channels)] += old.to(tensor)
        else:
            shared_part(tensor, old).add_(old.to(tensor))

    def _importances(self, network: nn.Module, log_likelihood: Callable[[Tensor, Tile], Tensor]) -> dict[str, Tensor]:
        """Computes I_i = E[(d log p(y|x) / d theta_i)^2], log p the mean over the voxels of a patch (or slice) of the step.

        A patch counts by its share of voxels that no earlier one covers: a mean over few voxels has large gradients.
        Parameters of lower scales' segmentation layers, which do not reach the full-resolution output, get 0.
        """
        parameters = dict(network.named_parameters())
        sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
        count = torch.zeros((), device=self.device)
        for tile in self.training_pass().tiles(batch_size=1):
            if not tile.valid.any():
                continue
            share = tile.valid.double().mean().item()
            value = log_likelihood(network(tile.images.to(self.device)), tile)
            gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
            for total, gradient in zip(sums.values(), gradients, strict=True):
                if gradient is not None:
                    total += share * gradient.square()
            count += share
        count = sum_over_ranks(count)
        return {name: (sum_over_ranks(total) / count).cpu() for name, total in sums.items()}
