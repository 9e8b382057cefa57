"""nnUNetTrainerPGCD: Prototype-Guided Calibration Distillation + Dual-Aligned Prototype Distillation, and options of ours."""

from __future__ import annotations

from nnunet_cil.training.hyperparameters import fixed
from nnunet_cil.training.methods.pgcd_base import MERGE, REFRESH, nnUNetTrainerPGCDBase


class nnUNetTrainerPGCD(nnUNetTrainerPGCDBase):
    """PGCD + DAPD (our reading of Zhu et al. 2025, https://arxiv.org/abs/2511.07749)."""

    new_class_start = "imprinted"
    old_class_sampling = True
    teacher_volumes = True
    drop_strays = fixed(True, "nnUNetTrainerPGCDPaper may keep them")
    old_dice_weight = 0.25
    pgcd_weight = 3.0
    pgcd_weighting = "uniform"
    pgcd_merge = fixed(False, MERGE)
    dapd_weight = fixed(0.1, "nnUNetTrainerPGCDOnly has none, and nnUNetTrainerPGCDPaper may set another")
    prototype_refresh = fixed(0.5, REFRESH)


class nnUNetTrainerPGCDOnly(nnUNetTrainerPGCD):
    """Ablation: without the DAPD term."""

    dapd_weight = fixed(0.0, "it is the ablation of this term")


class nnUNetTrainerDAPDOnly(nnUNetTrainerPGCD):
    """Ablation: without the PGCD term."""

    pgcd_weight = fixed(0.0, "it is the ablation of this term")
    pgcd_weighting = fixed("uniform", "it has no term to weigh")
