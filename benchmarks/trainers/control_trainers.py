"""Other weights for PGCD than its uniform ones, each a trainer for benchmarks/study.py, as those of study_trainers.py are.

Do the prototypes earn their place? What each one is stands in docs/explanation/pgcd.md.
"""

from nnunet_cil.training.methods.pgcd import nnUNetTrainerPGCD


class nnUNetTrainerPGCD_teacher(nnUNetTrainerPGCD):
    """The teacher's own probability."""

    pgcd_weighting = "teacher"


class nnUNetTrainerPGCD_permuted(nnUNetTrainerPGCD):
    """Another class's prototype."""

    pgcd_weighting = "permuted"


class nnUNetTrainerPGCD_prototypes(nnUNetTrainerPGCD):
    """The class's own prototype, voxel by voxel: the paper's idea, and the default of 2026-11-29."""

    pgcd_weighting = "prototypes"
