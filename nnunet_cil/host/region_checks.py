"""Checks of the regions that nnU-Net's dataset.json lists."""

from __future__ import annotations

from collections.abc import Mapping

from nnunet_cil.errors import CILError
from nnunet_cil.files import shortened
from nnunet_cil.labels import Label, class_names, numbers_in


def check_region_numbers(labels: Mapping[str, Label], where: str) -> None:
    """Refuses regions that hold the background or equal each other, and an ``ignore`` that nnU-Net does not take.

    Gaps between the numbers are all right: a model that has not learnt every region leaves some.
    """
    known: dict[frozenset[int], str] = {}
    for name in class_names(labels):
        own = frozenset(numbers_in(labels[name]))
        if 0 in own:
            raise CILError(f"{where}: the region {name!r} holds 0, the background. Leave it out of the region.")
        if own in known:
            raise CILError(
                f"{where} gives {known[own]!r} and {name!r} the same numbers {sorted(own)}. Give each its own, or remove one."
            )
        known[own] = name
    largest = max(number for own in known for number in own)
    if labels.get("ignore", largest + 1) != largest + 1:
        raise CILError(
            f"{where}: 'ignore' has number {labels['ignore']}, but nnU-Net needs the number after the largest of any region, "
            f"{largest + 1}. Renumber the labels, also in the label files."
        )


def check_regions_class_order(labels: Mapping[str, Label], order: object, where: str) -> None:
    """Refuses a ``regions_class_order`` without which nnU-Net cannot write a prediction, or that names the wrong regions."""
    names = class_names(labels)
    example = f'"regions_class_order": [{", ".join(str(numbers_in(labels[name])[0]) for name in names)}]'
    meaning = (
        "the number that a prediction gets in each region, in the order of 'labels'; a later one covers an earlier one"
    )
    if order is None:
        raise CILError(f"{where} has regions, but no 'regions_class_order'. Add {meaning}: {example}, for instance.")
    if not isinstance(order, (list, tuple)) or not all(type(n) is int for n in order) or len(order) != len(names):
        raise CILError(
            f"{where}: 'regions_class_order' is {shortened(order)}, but must be a list of {len(names)} numbers: {meaning}. "
            f"Correct it: {example}, for instance."
        )
    for name, number in zip(names, order, strict=True):
        if number not in numbers_in(labels[name]):
            raise CILError(
                f"{where}: 'regions_class_order' gives the region {name!r} the number {number}, which is none of its own, "
                f"{list(numbers_in(labels[name]))}. Write the numbers in the order of 'labels'."
            )
