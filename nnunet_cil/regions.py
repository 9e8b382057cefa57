"""Regions: classes that overlap. A model has one sigmoid channel for each, in the order in which nnU-Net paints them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from nnunet_cil.errors import CILError
from nnunet_cil.labels import Label, class_names, numbers_in

MOST_REGIONS = 14
"""A voxel's regions are bits of nnU-Net's int16 labels; one more bit is the ignore label's."""


@dataclass(frozen=True, kw_only=True)
class RegionLabels:
    """The regions of a model, or of a data set, as dataset.json tells them.

    Attributes:
        numbers: region -> the numbers that it consists of, in the order in which nnU-Net paints, which is that of the channels.
        painted: region -> the number that a prediction gets there (``regions_class_order``).
    """

    numbers: dict[str, tuple[int, ...]]
    painted: dict[str, int]

    @classmethod
    def of(cls, labels: Mapping[str, Label], regions_class_order: Sequence[int] = ()) -> RegionLabels:
        """Reads them from dataset.json; plain labels are regions of one number each."""
        numbers = {name: numbers_in(labels[name]) for name in class_names(labels)}
        order = regions_class_order or [n for own in numbers.values() for n in own[:1]]
        return cls(numbers=numbers, painted=dict(zip(numbers, order, strict=True)))

    def to_labels(self, *, ignore: bool) -> dict[str, Label]:
        """Returns ``labels`` for dataset.json.

        A region of one number has it twice, so that nnU-Net takes it for a region, also in a model that knows no other. nnU-Net
        demands that an ignore label follows the largest number.
        """
        labels: dict[str, Label] = {"background": 0}
        labels |= {name: own if len(own) > 1 else own * 2 for name, own in self.numbers.items()}
        if ignore:
            labels["ignore"] = 1 + self.largest
        return labels

    @property
    def largest(self) -> int:
        """The largest number of any region; 0 without regions."""
        return max((n for own in self.numbers.values() for n in own), default=0)

    def offset_of(self, dataset: RegionLabels) -> int:
        """Returns what is added to a data set's numbers to get this model's; 0 where they mean the same.

        They do where the data set has every region of the model, of the same numbers. Otherwise the model keeps its own, and the
        data set's come after them.
        """
        same = all(
            set(dataset.numbers.get(name, ())) == set(own) and dataset.painted[name] == self.painted[name]
            for name, own in self.numbers.items()
        )
        return 0 if same else self.largest

    def joined(self, dataset: RegionLabels, new: Collection[str]) -> RegionLabels:
        """Returns the regions of a model that learns ``new`` ones of a data set.

        A new region is painted before those that the data set paints after it, so that it does not cover them; where these are
        parts of it, their numbers are its own, too. One that the data set knows nothing of is painted first.
        """
        offset, order = self.offset_of(dataset), list(self.numbers)
        in_data_set = list(dataset.numbers)
        for name in reversed([n for n in in_data_set if n in new]):
            later = [order.index(n) for n in in_data_set[in_data_set.index(name) + 1 :] if n in order]
            order.insert(min(later, default=len(order)), name)
        numbers = {}
        for place, name in enumerate(order):
            moved = [offset + n for n in dataset.numbers.get(name, ())]
            own, of_parts = self.numbers.get(name, ()), []
            if name in new:
                over = (other for other in order[place + 1 :] if other in self.numbers and other in dataset.painted)
                of_parts = [self.painted[o] for o in over if dataset.painted[o] in dataset.numbers[name]]
            numbers[name] = tuple(dict.fromkeys((*own, *moved, *of_parts)))
        painted = {n: self.painted[n] if n in self.painted else offset + dataset.painted[n] for n in order}
        return RegionLabels(numbers=numbers, painted=painted)


def check_number_of_regions(names: Sequence[str]) -> None:
    """Refuses a model of more regions than a voxel's labels can hold.

    Raises:
        CILError: says which one is too many.
    """
    if len(names) > MOST_REGIONS:
        raise CILError(
            f"nnunet_cil trains at most {MOST_REGIONS} regions, but with this step the model has {len(names)}: "
            f"{', '.join(names)}. Leave some out of the schedule."
        )
