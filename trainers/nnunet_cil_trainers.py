"""The door for nnUNet_extTrainer: nnU-Net looks here for trainers by name. No code, re-exports only."""

from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.methods.ewc import nnUNetTrainerEWC
from nnunet_cil.training.methods.ewf import nnUNetTrainerEWF
from nnunet_cil.training.methods.finetune import nnUNetTrainerFineTune
from nnunet_cil.training.methods.frozen import nnUNetTrainerFrozen
from nnunet_cil.training.methods.ilt import nnUNetTrainerILT
from nnunet_cil.training.methods.joint import nnUNetTrainerJoint
from nnunet_cil.training.methods.lwf import nnUNetTrainerLwF
from nnunet_cil.training.methods.mib import nnUNetTrainerMiB
from nnunet_cil.training.methods.pgcd import nnUNetTrainerDAPDOnly, nnUNetTrainerPGCD, nnUNetTrainerPGCDOnly
from nnunet_cil.training.methods.pgcd_paper import nnUNetTrainerPGCDPaper
from nnunet_cil.training.methods.plop import nnUNetTrainerPLOP
from nnunet_cil.training.methods.pseudo_label import nnUNetTrainerPseudoLabel
from nnunet_cil.training.methods.replay import nnUNetTrainerReplay

__all__ = [
    "nnUNetTrainerCIL",
    "nnUNetTrainerDAPDOnly",
    "nnUNetTrainerEWC",
    "nnUNetTrainerEWF",
    "nnUNetTrainerFineTune",
    "nnUNetTrainerFrozen",
    "nnUNetTrainerILT",
    "nnUNetTrainerJoint",
    "nnUNetTrainerLwF",
    "nnUNetTrainerMiB",
    "nnUNetTrainerPGCD",
    "nnUNetTrainerPGCDOnly",
    "nnUNetTrainerPGCDPaper",
    "nnUNetTrainerPLOP",
    "nnUNetTrainerPseudoLabel",
    "nnUNetTrainerReplay",
]
