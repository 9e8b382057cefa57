"""The settings that are tried for PGCD, MiB, LwF and pseudo-labels on validation cases, nine each with lead_trainers.py.

    export nnUNet_extTrainer="$(nnunet_cil trainers):$PWD/benchmarks/trainers"
    python benchmarks/study.py 901 acdc_1-1-1_disjoint_cpu --methods MiB MiB_volumes --cases validation -o mine.csv

``TRIED`` names them all; what differs from the published method is the class's own. PGCDPaper_apart was PGCD's default until
2026-11-29.
"""

from collections.abc import Mapping
from typing import Any

from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.methods.lwf import nnUNetTrainerLwF
from nnunet_cil.training.methods.mib import nnUNetTrainerMiB
from nnunet_cil.training.methods.pgcd_paper import nnUNetTrainerPGCDPaper
from nnunet_cil.training.methods.pseudo_label import nnUNetTrainerPseudoLabel

VOLUMES = {"teacher_volumes": True, "old_dice_weight": 0.25, "new_class_start": "balanced"}

IMPRINTED = {**VOLUMES, "new_class_start": "imprinted"}


def settings(
    weight: str, value: float, further: Mapping[str, dict[str, Any]] | None = None, **own: Any
) -> dict[str, dict[str, Any]]:
    """Returns the settings of a method whose distillation has a weight, by name.

    Args:
        weight: the name of that hyper-parameter.
        value: its published value.
        further: settings of this method alone, by name.
        own: what every setting but the published one has besides.
    """
    tried = {
        "volumes": VOLUMES,
        "imprinted": IMPRINTED,
        "sampled": {**IMPRINTED, "old_class_sampling": True},
        "strong": {**IMPRINTED, weight: 3 * value},
        "dice1": {**IMPRINTED, "old_dice_weight": 1.0},
        "apart": {**VOLUMES, "new_class_start": "apart", "old_class_sampling": True, weight: 3 * value},
        **(further or {}),
    }
    return {name: {**own, **values} for name, values in tried.items()}


def further(weight: str, value: float) -> dict[str, dict[str, Any]]:
    """Returns two settings more, as many as PGCD has in lead_trainers.py."""
    return {"weak": {**IMPRINTED, weight: value / 3}, "start": {"new_class_start": "imprinted"}}


METHODS: dict[type[nnUNetTrainerCIL], dict[str, dict[str, Any]]] = {
    nnUNetTrainerPGCDPaper: settings(
        "pgcd_weight", 10.0, further("pgcd_weight", 10.0), dapd_weight=0.1, prototype_refresh=0.5
    ),
    nnUNetTrainerMiB: settings("mib_weight", 10.0, further("mib_weight", 10.0)),
    nnUNetTrainerLwF: settings("lwf_weight", 100.0, further("lwf_weight", 100.0)),
    nnUNetTrainerPseudoLabel: {
        "balanced": {"new_class_start": "balanced"},
        "imprinted": {"new_class_start": "imprinted", "drop_strays": True},
        "sampled": {"new_class_start": "imprinted", "old_class_sampling": True, "drop_strays": True},
        "patchwise": {"new_class_start": "imprinted", "teacher_volumes": False},
        "apart": {"new_class_start": "apart", "old_class_sampling": True, "drop_strays": True},
        "fresh": {"old_class_sampling": True},
        "even": {"new_class_start": "balanced", "old_class_sampling": True},
        "local": {"new_class_start": "imprinted", "old_class_sampling": True, "teacher_volumes": False},
    },
}

TRIED = {
    f"{method.__name__}_{name}": type(f"{method.__name__}_{name}", (method,), {"__module__": __name__, **values})
    for method, tried in METHODS.items()
    for name, values in tried.items()
}
globals().update(TRIED)


class nnUNetTrainerPGCDPaper_dapd0(TRIED["nnUNetTrainerPGCDPaper_imprinted"]):
    """Without DAPD, in the second step after the first alone."""

    dapd_weight = 0.0
    from_step = 2


class nnUNetTrainerPGCDPaper_beta0(TRIED["nnUNetTrainerPGCDPaper_imprinted"]):
    """Without the prototypes' weights, in the second step after the first alone."""

    pgcd_beta = 0.0
    from_step = 2


class nnUNetTrainerPGCDPaper_w3from2(TRIED["nnUNetTrainerPGCDPaper_imprinted"]):
    """A smaller weight, in the second step after the first alone."""

    pgcd_weight = 3.0
    from_step = 2


class nnUNetTrainerMiB_w30from2(TRIED["nnUNetTrainerMiB_imprinted"]):
    """A larger weight, in the second step after the first alone."""

    mib_weight = 30.0
    from_step = 2


class nnUNetTrainerPGCDPaper_again(TRIED["nnUNetTrainerPGCDPaper_imprinted"]):
    """The second step after the first once more, for the spread; the weight names it in the table."""

    pgcd_weight = 10.001
    from_step = 2


class nnUNetTrainerMiB_again(TRIED["nnUNetTrainerMiB_imprinted"]):
    """The second step after the first once more, for the spread; the weight names it in the table."""

    mib_weight = 10.001
    from_step = 2
