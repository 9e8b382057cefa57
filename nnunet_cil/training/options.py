"""The options of a step, which every trainer has: declared here, and refused where a method gives them no meaning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nnunet_cil.errors import CILError
from nnunet_cil.training.hyperparameters import choice, fixed, number, settable, switch, whole_number

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL

NEW_CLASS_START = choice(
    "fresh",
    ("fresh", "balanced", "apart", "imprinted"),
    "How new channels start: as nnU-Net's fresh layer, as copies of the background's, apart from it by noise, or from the "
    "teacher's features of the class.",
)
NEW_CLASS_NOISE = fixed(1.0, "new_class_start is 'apart' with noise, 'balanced' without")
"""How far weights start from a copy of the background's, under the start 'apart'."""
OLD_CLASS_SAMPLING = switch(False, "Centre patches on old classes, too, where the teacher sees them.")
TEACHER_VOLUMES = switch(False, "The teacher first segments whole training volumes.")
DROP_STRAYS = switch(True, "Leave stray regions of classes whose labels hardly had any out of these volumes.")
OLD_DICE_WEIGHT = number(0.0, "Weight of the Dice of old classes against the teacher's segmentation.")
DISTILLATION_INTERVAL = whole_number(
    1, "k: terms that ask the teacher are computed in every k-th iteration, k times as large.", low=1
)

OWN_TRAINER = "a trainer of your own may set another"
"""The reason of a constant that no schedule sets."""

NOT_ASKED = "its loss does not ask the teacher"
"""The reason of a trainer that fixes ``distillation_interval`` at 1."""

UNDECLARED = "a trainer may declare DISTILLATION_INTERVAL if its loss uses 'distilled'"
"""The reason of one that says nothing of it, as of a user's own."""

LABELS_OF_TEACHER = "its labels need the teacher in every iteration"
"""The reason of one whose teacher fills the labels."""

TAKES_LABELS = "the teacher's labels are taken as they are, as published"
"""The reason why no old class counts as absent from a case."""

OWN_OLD_DICE = "its loss has a Dice of the old classes already"
"""The reason of a trainer that fixes ``old_dice_weight`` at 0."""


def check_options(trainer: type[nnUNetTrainerCIL], values: Mapping[str, Any], where: str) -> None:
    """Refuses options that mean nothing together, or with the trainer's loss.

    Args:
        trainer: a trainer class.
        values: hyper-parameters by name, as in a schedule; they have been checked one by one.
        where: the file or schedule that sets them, for the message.

    Raises:
        CILError: with the changes that help.
    """
    faults = _faults(trainer, values)
    if not faults:
        return
    text, changes = faults[0]
    known, ways = settable(trainer), []
    for name, value in changes.items():
        is_off = name == next(iter(changes))
        changed = {**values, name: value}
        if name in known and (is_off or len(_faults(trainer, changed)) < len(faults)):
            is_default = is_off and value == getattr(trainer, name)
            ways.append(f"remove {name}" if is_default else f"set {name} to {json.dumps(value)}")
    remedy = ", or ".join(ways) or "use another trainer"
    raise CILError(f"{where}: {text}. {remedy[0].upper()}{remedy[1:]}.")


def _faults(trainer: type[nnUNetTrainerCIL], values: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Returns what is wrong with the options, each with the values that may mend it, that which turns it off first."""

    def value(name: str) -> Any:
        return values.get(name, getattr(trainer, name))

    weights = [f"{name} 0" for name in trainer.teacher_weights if not value(name)]
    asks = trainer.asks_teacher and (not trainer.teacher_weights or len(weights) < len(trainer.teacher_weights))
    why = f", with {' and '.join(weights)}" if trainer.asks_teacher and not asks else ""
    does_not_ask = f"changes nothing in {trainer.__name__}, whose loss does not ask the teacher{why}"
    interval = value("distillation_interval")
    faults: list[tuple[str, dict[str, Any]]] = []
    if value("teacher_volumes") and not (asks or value("old_dice_weight") or value("old_class_sampling")):
        faults.append((f"teacher_volumes {does_not_ask}", {"teacher_volumes": False, "old_class_sampling": True}))
    if "drop_strays" in values and not value("teacher_volumes"):
        mended = {"drop_strays": trainer.drop_strays, "teacher_volumes": True}
        faults.append(("drop_strays changes nothing without the teacher's volumes", mended))
    if interval > 1 and not (asks or value("old_dice_weight")):
        faults.append((f"distillation_interval {interval} {does_not_ask}", {"distillation_interval": 1}))
    if interval > 1 and value("old_dice_weight") and not value("teacher_volumes"):
        text = (
            f"distillation_interval {interval} saves nothing without teacher_volumes, since the Dice of old classes then asks "
            "the teacher in every iteration"
        )
        faults.append((text, {"distillation_interval": 1, "teacher_volumes": True, "old_dice_weight": 0}))
    return faults
