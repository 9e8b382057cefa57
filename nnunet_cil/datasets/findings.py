"""A download as examined: its cases, and all problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace

from nnunet_cil.datasets.download import Case, Dataset, Problem

ACCEPTABLE = ("modality", "duplicate", "intensities")
"""Kinds of serious problems that a user may declare to be as they should."""


@dataclass(frozen=True)
class Examined:
    """A case that was read.

    Attributes:
        case: the case.
        problems: what was found in it alone.
        size: voxels (x, y, z); empty when it could not be read.
        spacing_mm: (x, y, z).
        digest: of the first channel's voxels.
        values: label values.
        bright: 99th percentile of each channel.
        image_as_is: channels whose file can stand in nnU-Net's folder as it is.
        labels_as_is: the same for the labels.
    """

    case: Case
    problems: tuple[Problem, ...]
    size: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    digest: str = ""
    values: frozenset[int] = frozenset()
    bright: tuple[float, ...] = ()
    image_as_is: tuple[bool, ...] = ()
    labels_as_is: bool = False


@dataclass(frozen=True)
class Findings:
    """A data set, its cases as examined, and all problems."""

    dataset: Dataset
    examined: tuple[Examined, ...]
    problems: tuple[Problem, ...]

    @property
    def faulty(self) -> frozenset[str]:
        """Cases with a serious problem."""
        return frozenset(p.case for p in self.problems if p.serious and p.case)

    @property
    def is_usable(self) -> bool:
        """No serious problem."""
        return not any(p.serious for p in self.problems)

    def without_faulty(self) -> Findings:
        """The same without the cases that have serious problems, which are told as left out."""
        kept = tuple(e for e in self.examined if e.case.name not in self.faulty)
        told = tuple(replace(p, serious=p.serious and not p.case) for p in self.problems)
        left_out = tuple(
            Problem(name, "left out", "has one of the problems listed", serious=False) for name in sorted(self.faulty)
        )
        return replace(self, examined=kept, problems=told + left_out)

    def accepting(self, kinds: Collection[str]) -> Findings:
        """The same with all problems of these kinds told only."""
        told = tuple(replace(p, serious=p.serious and p.what not in kinds) for p in self.problems)
        return replace(self, problems=told)

    def text(self, *, limit: int | None = None) -> str:
        """All problems by kind, serious ones first; ``limit``: cases shown of each kind."""
        lines = [f"{self.dataset.name}: {len(self.examined)} cases checked, {len(self.problems)} remarks."]
        for serious, title in ((True, "Must be mended"), (False, "Worth knowing")):
            chosen = [p for p in self.problems if p.serious == serious]
            kinds = Counter(p.what for p in chosen)
            lines += [f"{title}:"] if chosen else []
            for what, count in kinds.items():
                lines.append(f"  {what} ({count})")
                own = [p for p in chosen if p.what == what]
                lines += [f"    {p.case + ': ' if p.case else ''}{p.text}" for p in own[:limit]]
                if limit is not None and count > limit:
                    lines.append(f"    and {count - limit} more; --report FILE lists them all")
        return "\n".join(lines)
