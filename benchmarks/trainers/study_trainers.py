"""The settings of the studies in the notebook, each a trainer.

    export nnUNet_extTrainer="$(nnunet_cil trainers):$PWD/benchmarks/trainers"
    python benchmarks/study.py 900 openkbp_2-2-1_cpu --methods PGCD_then PGCD_noise0_weight10 -o mine.csv

A class sets what differs from its parent. ``from_step = 2`` is for the study alone: the steps before are the parent's.
"""

from nnunet_cil.training.hyperparameters import fixed
from nnunet_cil.training.methods.ewc import nnUNetTrainerEWC
from nnunet_cil.training.methods.lwf import nnUNetTrainerLwF
from nnunet_cil.training.methods.mib import nnUNetTrainerMiB
from nnunet_cil.training.methods.pgcd import nnUNetTrainerDAPDOnly, nnUNetTrainerPGCD, nnUNetTrainerPGCDOnly
from nnunet_cil.training.methods.pseudo_label import nnUNetTrainerPseudoLabel


class Balanced:
    """How every method started new classes in the studies of this file. No setting in a table's name."""

    new_class_start = "balanced"


class Apart:
    """The start that has ``new_class_noise``, in a trainer that sets it. No setting in a table's name."""

    new_class_start = "apart"


class Then:
    """PGCD's defaults in the studies of this file. No setting in a table's name."""

    new_class_start = "apart"
    pgcd_weight = 30.0
    pgcd_weighting = "prototypes"
    pgcd_merge = fixed(True, "it was the default then")


class nnUNetTrainerPGCD_then(Then, nnUNetTrainerPGCD):
    """The defaults until 2026-11-29, PGCD in the tables of these studies."""


class nnUNetTrainerPGCD_weight10(Then, nnUNetTrainerPGCD):
    """Today's start of new classes beside the earlier weight."""

    pgcd_weight = 10.0


class nnUNetTrainerPGCD_neither(Then, nnUNetTrainerPGCD):
    """Without PGCD and DAPD."""

    pgcd_weight = 0.0
    dapd_weight = 0.0


class nnUNetTrainerPGCD_noise0_strays(Then, nnUNetTrainerPGCD):
    """New classes as copies of the background, beside today's weight, with the teacher's stray regions."""

    new_class_noise = 0.0
    drop_strays = False


class nnUNetTrainerPGCD_noise0_neither(Then, nnUNetTrainerPGCD):
    """Without PGCD and DAPD, new classes as copies of the background."""

    new_class_noise = 0.0
    pgcd_weight = 0.0
    dapd_weight = 0.0


class nnUNetTrainerPGCD_noise0_weight100_strays(Then, nnUNetTrainerPGCD):
    """New classes as copies of the background, beside a larger weight, with the teacher's stray regions."""

    new_class_noise = 0.0
    pgcd_weight = 100.0
    drop_strays = False


class nnUNetTrainerPGCD_noise0_weight10(Then, nnUNetTrainerPGCD):
    """The defaults until new classes started apart from the background."""

    new_class_noise = 0.0
    pgcd_weight = 10.0


class nnUNetTrainerPGCD_noise0_weight10_noise1from2(nnUNetTrainerPGCD_noise0_weight10):
    """Today's start of new classes in the second step after the first alone."""

    new_class_noise = 1.0
    from_step = 2


class nnUNetTrainerPGCD_noise0_weight10_strays(nnUNetTrainerPGCD_noise0_weight10):
    """With the teacher's stray regions."""

    drop_strays = False


class nnUNetTrainerPGCD_noise0_weight10_patches(nnUNetTrainerPGCD_noise0_weight10):
    """The teacher sees patches alone."""

    teacher_volumes = False


class nnUNetTrainerPGCD_noise0_weight10_uniform(nnUNetTrainerPGCD_noise0_weight10):
    """Every voxel with the same weight."""

    pgcd_beta = 0.0


class nnUNetTrainerPGCD_noise0_weight10_dice1from2(nnUNetTrainerPGCD_noise0_weight10):
    """A larger Dice over old classes."""

    old_dice_weight = 1.0
    from_step = 2


class nnUNetTrainerPGCD_noise0_weight10_trust1from2(nnUNetTrainerPGCD_noise0_weight10):
    """The teacher's segmentation of the whole volume replaces its view of the patch."""

    volume_trust = 1.0
    from_step = 2


class nnUNetTrainerPGCD_noise0_weight10_sampling0from2(nnUNetTrainerPGCD_noise0_weight10):
    """No patches centred on old classes."""

    old_class_sampling = False
    from_step = 2


class nnUNetTrainerPGCD_noise0_weight10_temperature003from2(nnUNetTrainerPGCD_noise0_weight10):
    """A lower temperature of the similarities."""

    similarity_temperature = 0.03
    from_step = 2


class nnUNetTrainerPGCD_noise0_weight10_temperature03from2(nnUNetTrainerPGCD_noise0_weight10):
    """A higher temperature of the similarities."""

    similarity_temperature = 0.3
    from_step = 2


class nnUNetTrainerPGCD_first(nnUNetTrainerPGCD_noise0_weight10):
    """The defaults of the first study: patches alone, none centred on old classes."""

    old_class_sampling = False
    teacher_volumes = False


class nnUNetTrainerPGCD_first_dapd1(nnUNetTrainerPGCD_noise0_weight10):
    """The first study with DAPD's earlier weight."""

    dapd_weight = 1.0
    old_class_sampling = False
    teacher_volumes = False


class nnUNetTrainerPGCD_first_dice0_dapd1(nnUNetTrainerPGCD_noise0_weight10):
    """The first study with DAPD's earlier weight, and no Dice over old classes."""

    old_dice_weight = 0.0
    dapd_weight = 1.0
    old_class_sampling = False
    teacher_volumes = False


class nnUNetTrainerPGCD_first_dice01_dapd1(nnUNetTrainerPGCD_first_dice0_dapd1):
    """The first study with DAPD's earlier weight, and a smaller Dice over old classes."""

    old_dice_weight = 0.1


class nnUNetTrainerPGCD_first_dice1_dapd1(nnUNetTrainerPGCD_first_dice0_dapd1):
    """The first study with the earlier weights of DAPD and of the Dice over old classes."""

    old_dice_weight = 1.0


class nnUNetTrainerPGCDOnly_noise0_weight10(Then, nnUNetTrainerPGCDOnly):
    """The ablation with PGCD's earlier defaults."""

    new_class_noise = 0.0
    pgcd_weight = 10.0


class nnUNetTrainerDAPDOnly_noise0(Apart, nnUNetTrainerDAPDOnly):
    """The ablation with PGCD's earlier defaults."""

    new_class_noise = 0.0


class nnUNetTrainerMiB_noise1(Apart, nnUNetTrainerMiB):
    """New classes start apart from the background."""

    new_class_noise = 1.0


class nnUNetTrainerMiB_weight30(nnUNetTrainerMiB):
    """A larger weight."""

    mib_weight = 30.0


class nnUNetTrainerMiB_weight100(nnUNetTrainerMiB):
    """A still larger weight."""

    mib_weight = 100.0


class nnUNetTrainerMiB_weight30from2(nnUNetTrainerMiB):
    """A larger weight after the first of the later steps."""

    mib_weight = 30.0
    from_step = 2


class nnUNetTrainerMiB_weight100from2(nnUNetTrainerMiB):
    """A still larger weight after the first of the later steps."""

    mib_weight = 100.0
    from_step = 2


class nnUNetTrainerLwF_noise1(Apart, nnUNetTrainerLwF):
    """New classes start apart from the background."""

    new_class_noise = 1.0


class nnUNetTrainerPseudoLabel_noise1(Apart, nnUNetTrainerPseudoLabel):
    """New classes start apart from the background."""

    new_class_noise = 1.0


class nnUNetTrainerPseudoLabel_patches(Balanced, nnUNetTrainerPseudoLabel):
    """The teacher sees patches alone."""

    teacher_volumes = False


class nnUNetTrainerEWC_weight1e6(Balanced, nnUNetTrainerEWC):
    """A larger weight."""

    ewc_weight = 1e6


class nnUNetTrainerEWC_weight1e8(Balanced, nnUNetTrainerEWC):
    """A still larger weight."""

    ewc_weight = 1e8
