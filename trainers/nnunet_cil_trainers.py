"""The door for nnUNet_extTrainer: nnU-Net looks here for trainers by name. No code, re-exports only."""

from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.finetune import nnUNetTrainerFineTune
from nnunet_cil.training.pgcd import nnUNetTrainerPGCD

__all__ = ["nnUNetTrainerCIL", "nnUNetTrainerFineTune", "nnUNetTrainerPGCD"]
