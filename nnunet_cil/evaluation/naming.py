"""Names what several models call a voxel: none of their classes, one of them, or several regions that overlap there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nnunet_cil.evaluation.segmentation import Labels
from nnunet_cil.labels import Label, numbers_in

Names: TypeAlias = tuple[str, ...]
"""The classes that a voxel belongs to; none of the background."""


def named_alike(
    arrays: Sequence[Labels], labels: Sequence[Mapping[str, Label]]
) -> tuple[tuple[npt.NDArray[np.int64], ...], list[Names]]:
    """Numbers several models' label maps alike, by the names of their classes.

    Args:
        arrays: a label map of each model.
        labels: what its numbers mean, without the background; a region has several, and a number may be in several regions.

    Returns:
        The label maps, and the names of their numbers 0, 1, ...: 0 is the background; plain classes of all models come in the
        order in which they are named.
    """
    order = list(dict.fromkeys(name for own in labels for name in own))
    places: dict[Names, int] = {(): 0}
    tables = [_names_of_numbers(own, order) for own in labels]
    for table in tables:
        for names in table.values():
            places.setdefault(names, len(places))
    found = tuple(_looked_up(array, table, places) for array, table in zip(arrays, tables, strict=True))
    return found, list(places)


def _names_of_numbers(labels: Mapping[str, Label], order: Sequence[str]) -> dict[int, Names]:
    numbers = {name: numbers_in(label) for name, label in labels.items()}
    own = dict.fromkeys(number for in_class in numbers.values() for number in in_class)
    return {number: tuple(name for name in order if number in numbers.get(name, ())) for number in own}


def _looked_up(array: Labels, table: Mapping[int, Names], places: Mapping[Names, int]) -> Any:
    """Returns a label map by the places of the names; what has no name is background."""
    lookup = np.zeros(max([int(array.max(initial=0)), *table]) + 1, dtype=np.int64)
    for number, names in table.items():
        lookup[number] = places[names]
    return lookup[array.astype(np.int64, copy=False)]
