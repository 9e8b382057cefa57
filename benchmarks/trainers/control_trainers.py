"""The controls of PGCD's weights, each a trainer for benchmarks/study.py, as those of study_trainers.py are.

Do the prototypes earn their place? What stands in place of them is in docs/explanation/pgcd.md.
"""

from nnunet_cil.training.methods.pgcd import nnUNetTrainerPGCD


class nnUNetTrainerPGCD_teacher(nnUNetTrainerPGCD):
    """The teacher's own probability."""

    pgcd_weighting = "teacher"


class nnUNetTrainerPGCD_permuted(nnUNetTrainerPGCD):
    """Another class's prototype."""

    pgcd_weighting = "permuted"


class nnUNetTrainerPGCD_uniform(nnUNetTrainerPGCD):
    """The same weight everywhere, for each class as large as its prototype's on the voxels that the teacher calls so."""

    pgcd_weighting = "uniform"
