"""Loss terms: functions of tensors, in log space, 2D and 3D alike."""

from nnunet_cil.losses.chunks import sum_over_chunks
from nnunet_cil.losses.distillation import distillation_loss, pgcd_loss
from nnunet_cil.losses.prototypes import class_means, cosine_alignment, labels_within, prototype_similarity
from nnunet_cil.losses.pseudo_labels import corrected_probs, entropy_histogram, median_thresholds, normalised_entropy
from nnunet_cil.losses.regularization import importance_penalty, local_pod_distance
from nnunet_cil.losses.segmentation import (
    labelled_dice_loss,
    masked_cross_entropy,
    merge_new_into_background,
    merge_old_into_background,
    merge_unlabelled,
    soft_dice_loss,
)

__all__ = [
    "class_means",
    "corrected_probs",
    "cosine_alignment",
    "distillation_loss",
    "entropy_histogram",
    "importance_penalty",
    "labelled_dice_loss",
    "labels_within",
    "local_pod_distance",
    "masked_cross_entropy",
    "median_thresholds",
    "merge_new_into_background",
    "merge_old_into_background",
    "merge_unlabelled",
    "normalised_entropy",
    "pgcd_loss",
    "prototype_similarity",
    "soft_dice_loss",
    "sum_over_chunks",
]
