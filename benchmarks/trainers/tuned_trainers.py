"""The settings that are tried for MiB, LwF and pseudo-labels on validation cases, nine each with the published one.

    export nnUNet_extTrainer="$(nnunet_cil trainers):$PWD/benchmarks/trainers"
    python benchmarks/study.py 901 acdc_1-1-1_disjoint_cpu --methods MiB MiB_volumes --cases validation -o mine.csv

``TRIED`` names them all; what differs from the published method is the class's own.
"""

from typing import Any

from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.methods.lwf import nnUNetTrainerLwF
from nnunet_cil.training.methods.mib import nnUNetTrainerMiB
from nnunet_cil.training.methods.pseudo_label import nnUNetTrainerPseudoLabel

VOLUMES = {"teacher_volumes": True, "old_dice_weight": 0.25, "new_class_start": "balanced"}

IMPRINTED = {**VOLUMES, "new_class_start": "imprinted"}


def settings(weight: str, value: float) -> dict[str, dict[str, Any]]:
    """Returns the settings of a method whose distillation has a weight, by name.

    Args:
        weight: the name of that hyper-parameter.
        value: its published value.
    """
    return {
        "volumes": VOLUMES,
        "imprinted": IMPRINTED,
        "sampled": {**IMPRINTED, "old_class_sampling": True},
        "strong": {**IMPRINTED, weight: 3 * value},
        "weak": {**IMPRINTED, weight: value / 3},
        "dice1": {**IMPRINTED, "old_dice_weight": 1.0},
        "apart": {**VOLUMES, "new_class_start": "apart", "old_class_sampling": True, weight: 3 * value},
        "start": {"new_class_start": "imprinted"},
    }


METHODS: dict[type[nnUNetTrainerCIL], dict[str, dict[str, Any]]] = {
    nnUNetTrainerMiB: settings("mib_weight", 10.0),
    nnUNetTrainerLwF: settings("lwf_weight", 100.0),
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
