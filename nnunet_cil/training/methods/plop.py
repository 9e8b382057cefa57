"""nnUNetTrainerPLOP: confident pseudo-labels, and multi-scale local POD on the features."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_cil.losses.prototypes import most_probable, sum_over_ranks
from nnunet_cil.losses.pseudo_labels import NUM_BINS, entropy_histogram, median_thresholds, normalised_entropy
from nnunet_cil.losses.regularization import local_pod_distance
from nnunet_cil.networks.architectures import encoder_stages
from nnunet_cil.networks.features import StageReader
from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.hyperparameters import fixed, number
from nnunet_cil.training.options import LABELS_OF_TEACHER, TAKES_LABELS
from nnunet_cil.training.step_loss import LossSetup, StepLoss, resized

POD_SCALES = (1, 2, 4)


class PLOPLoss(StepLoss):
    """L = L_seg + sqrt((K+N)/N) 1/n sum_l w_l ||Psi(x_l) - Psi(x'_l)||, over n layers.

    The layers are the encoder's stages and the decoder's end, of weight pod_weight, and the logits, of weight
    pod_logits_weight, the student's new ones added to the background's. L_seg, at every scale: nu times the cross-entropy against
    labels that the teacher fills where it is confident (u < tau_c; other unlabelled voxels do not count), nu the share of
    filled voxels of an image, + Dice of the new classes.
    Source: Douillard et al. 2021, https://arxiv.org/abs/2011.11390; the Dice is ours.
    """

    def __init__(
        self,
        setup: LossSetup,
        *,
        student: StageReader,
        teacher: StageReader,
        thresholds: Tensor,
        pod_weight: float,
        pod_logits_weight: float,
    ) -> None:
        """Takes readers of the encoders' stages; thresholds (K,) float32 on the device; weights with the root in them."""
        super().__init__(setup)
        self.readers = student, teacher
        self._student_stages, self._teacher_stages = student, teacher
        self.thresholds = thresholds
        self.pod_weight, self.pod_logits_weight = pod_weight, pod_logits_weight

    def terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the terms segmentation, dice and pod."""
        log_probs = self.log_probs(logits)
        accepted, share = self._accepted(targets[0], batch)

        def cross_entropy(own: Tensor, target: Tensor) -> Tensor:
            return self._cross_entropy(own, target, accepted, share)

        return {
            "segmentation": self.over_scales(cross_entropy, log_probs, targets),
            "dice": self.over_scales(self.new_dice, log_probs, targets),
            "pod": self._pod(logits[0], batch),
        }

    def _pod(self, logits: Tensor, batch: Batch) -> Tensor:
        student = [*self._student_stages.take(), batch.features]
        teacher = [*self._teacher_stages.take(), batch.teacher.features]
        distances = [local_pod_distance(x, y, POD_SCALES) for x, y in zip(student, teacher, strict=True)]
        background = logits[:, :1] + logits[:, self.num_old :].sum(1, keepdim=True)
        merged = torch.cat([background, logits[:, 1 : self.num_old]], 1)
        of_logits = self.pod_logits_weight * local_pod_distance(merged, batch.teacher.logits, POD_SCALES)
        return (self.pod_weight * torch.stack(distances).sum() + of_logits) / (len(distances) + 1)

    def _accepted(self, target: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the teacher's confident classes, and their share of each image's unlabelled voxels.

        Classes are (batch, 1, *spatial), -1 elsewhere; the share is (batch,), 1 where everything is labelled. With the teacher's
        volumes the classes are theirs; how sure it is, its probabilities on the patch say.
        """
        predicted = batch.teacher_classes
        confident = normalised_entropy(batch.teacher_logits.float().softmax(1)) < self.thresholds[predicted]
        unlabelled = target[:, 0] == 0
        count, total = (confident & unlabelled).flatten(1).sum(1), unlabelled.flatten(1).sum(1)
        share = torch.where(total > 0, count / total.clamp(min=1), 1.0)
        return torch.where(confident, predicted, -1)[:, None], share

    def _cross_entropy(self, log_probs: Tensor, target: Tensor, accepted: Tensor, share: Tensor) -> Tensor:
        if accepted.shape != target.shape:
            accepted = resized(accepted, target.shape[2:])
        labels, valid = self.split(torch.where(target == 0, accepted.to(target.dtype), target))
        known = labels >= 0 if valid is None else (labels >= 0) & valid
        losses = F.nll_loss(log_probs, labels.clamp(min=0), reduction="none") * known
        per_image = losses.flatten(1).sum(1) * share
        count = labels.numel() if valid is None else valid.sum().clamp(min=1)
        return per_image.sum() / count


class nnUNetTrainerPLOP(nnUNetTrainerCIL):
    """PLOP (Douillard et al. 2021, https://arxiv.org/abs/2011.11390), 2D and 3D."""

    needs_background = "fills the background with pseudo-labels of one class a voxel"
    new_class_start = "balanced"
    pod_weight_2d = number(0.01, "Weight of local POD in a 2D configuration.")
    pod_weight_3d = number(0.0005, "Weight of local POD in a 3D configuration.")
    pod_logits_weight = number(0.0005, "Weight of local POD on the logits.")
    distillation_interval = fixed(1, LABELS_OF_TEACHER)
    absent_size = fixed(0.0, TAKES_LABELS)
    entropy_floor = number(0.001, "Least threshold on the entropy of a pseudo-label.", high=1)

    def begin_step(self, inherited: dict[str, Tensor]) -> None:
        """Sets the thresholds: each old class's median entropy over the step's data."""
        self.print_to_log_file("Finding each old class's median entropy...")
        self.method_state["thresholds"] = self._median_entropies().cpu()

    @torch.no_grad()
    def _median_entropies(self) -> Tensor:
        assert self.teacher is not None
        histogram = torch.zeros(self.step_plan.num_old_channels, NUM_BINS, device=self.device)
        for tile, logits, _ in self.training_pass().outputs(self.teacher):
            probs = logits.float().softmax(1)
            mask = (tile.valid & (tile.labels == 0)).to(self.device)
            histogram += entropy_histogram(normalised_entropy(probs), most_probable(probs), mask, probs.shape[1])
        return median_thresholds(sum_over_ranks(histogram), floor=self.entropy_floor)

    def build_step_loss(self) -> StepLoss:
        """Builds the loss on pseudo-labels and local POD."""
        assert self.teacher is not None
        weight = self.pod_weight_2d if len(self.configuration_manager.patch_size) == 2 else self.pod_weight_3d
        root = math.sqrt((1 + len(self.step_plan.seen_classes)) / len(self.step_plan.new_classes))
        return PLOPLoss(
            self.loss_setup(),
            student=StageReader(encoder_stages(self.bare_network)),
            teacher=StageReader(encoder_stages(self.teacher.network)),
            thresholds=self.method_state["thresholds"].to(self.device),
            pod_weight=weight * root,
            pod_logits_weight=self.pod_logits_weight * root,
        )
