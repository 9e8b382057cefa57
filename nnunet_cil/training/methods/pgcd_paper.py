"""nnUNetTrainerPGCDPaper: the terms of PGCD's publication alone, in our reading."""

from __future__ import annotations

from nnunet_cil.training.methods.pgcd_base import nnUNetTrainerPGCDBase


class nnUNetTrainerPGCDPaper(nnUNetTrainerPGCDBase):
    """The publication's terms alone, for a reproduction; every option of ours is off unless it is set.

    Our reading of Zhu et al. 2025, https://arxiv.org/abs/2511.07749: unbiased cross-entropy and Dice of the new classes, balanced
    start, PGCD, DAPD. Prototypes are carried forward as they are; only the background's moves.
    """
