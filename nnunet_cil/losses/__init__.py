"""Loss terms: functions of tensors, in log space, 2D and 3D alike."""

from nnunet_cil.losses.distillation import pgcd_loss
from nnunet_cil.losses.prototypes import class_masks, cosine_alignment, masked_means, prototype_similarity
from nnunet_cil.losses.segmentation import (
    masked_cross_entropy,
    merge_new_into_background,
    merge_old_into_background,
    soft_dice_loss,
)

__all__ = [
    "class_masks",
    "cosine_alignment",
    "masked_cross_entropy",
    "masked_means",
    "merge_new_into_background",
    "merge_old_into_background",
    "pgcd_loss",
    "prototype_similarity",
    "soft_dice_loss",
]
