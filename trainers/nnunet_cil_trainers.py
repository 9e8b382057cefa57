"""The door for nnUNet_extTrainer: nnU-Net looks here for trainers by name. No code, re-exports only."""

from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.ewc import nnUNetTrainerEWC
from nnunet_cil.training.ewf import nnUNetTrainerEWF
from nnunet_cil.training.finetune import nnUNetTrainerFineTune
from nnunet_cil.training.ilt import nnUNetTrainerILT
from nnunet_cil.training.joint import nnUNetTrainerJoint
from nnunet_cil.training.lwf import nnUNetTrainerLwF
from nnunet_cil.training.mib import nnUNetTrainerMiB
from nnunet_cil.training.pgcd import nnUNetTrainerDAPDOnly, nnUNetTrainerPGCD, nnUNetTrainerPGCDOnly
from nnunet_cil.training.plop import nnUNetTrainerPLOP
from nnunet_cil.training.pseudo_label import nnUNetTrainerPseudoLabel
from nnunet_cil.training.replay import nnUNetTrainerReplay

__all__ = [
    "nnUNetTrainerCIL",
    "nnUNetTrainerDAPDOnly",
    "nnUNetTrainerEWC",
    "nnUNetTrainerEWF",
    "nnUNetTrainerFineTune",
    "nnUNetTrainerILT",
    "nnUNetTrainerJoint",
    "nnUNetTrainerLwF",
    "nnUNetTrainerMiB",
    "nnUNetTrainerPGCD",
    "nnUNetTrainerPGCDOnly",
    "nnUNetTrainerPLOP",
    "nnUNetTrainerPseudoLabel",
    "nnUNetTrainerReplay",
]
