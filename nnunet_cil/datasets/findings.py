"""The result of checking a download: its cases as read, and all problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace

from nnunet_cil.datasets.download import Case, Dataset, Problem


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A case that was read.

    Attributes:
        case: the case.
        problems: those that the case alone shows, without a look at the others.
        size: voxels (x, y, z); empty when the case could not be read.
        spacing_mm: (x, y, z).
        digest: SHA-256 of the first channel's voxels.
        values: label values.
        bright: 99th percentile of each channel.
        image_as_is: for each channel, whether nnU-Net can read its file as it is.
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


@dataclass(frozen=True, kw_only=True)
class Findings:
    """A data set, its cases as read, and all problems."""

    dataset: Dataset
    examined: tuple[Examined, ...]
    problems: tuple[Problem, ...]

    @property
    def faulty(self) -> frozenset[str]:
        """Returns the names of the cases that have a blocking problem."""
        return frozenset(p.case for p in self.problems if p.blocking and p.case)

    @property
    def is_usable(self) -> bool:
        """Returns true where no problem is blocking."""
        return not any(p.blocking for p in self.problems)

    @property
    def has_training_cases(self) -> bool:
        """Returns true where a training case is left that has no blocking problem."""
        return any(e.case.part == "train" and e.case.name not in self.faulty for e in self.examined)

    def without_faulty(self) -> Findings:
        """Leaves out the cases that have blocking problems, and adds a note for each."""
        notes = tuple(replace(p, blocking=p.blocking and not p.case) for p in self.problems)
        left_out = tuple(
            Problem(case=name, kind="left out", text="has one of the problems listed", blocking=False)
            for name in sorted(self.faulty)
        )
        return replace(
            self,
            examined=tuple(e for e in self.examined if e.case.name not in self.faulty),
            problems=notes + left_out,
        )

    def accepting(self, kinds: Collection[str]) -> Findings:
        """Turns all problems of these kinds into notes."""
        problems = tuple(replace(p, blocking=p.blocking and p.kind not in kinds) for p in self.problems)
        return replace(self, problems=problems)

    def text(self, *, limit: int | None = None) -> str:
        """Lists all problems by kind, blocking ones first.

        Args:
            limit: cases to list of each kind; None: all.
        """
        lines = [f"{self.dataset.name}: {len(self.examined)} cases checked, {len(self.problems)} notes."]
        for blocking, title in ((True, "Must be mended"), (False, "Worth knowing")):
            by_kind = Counter(p.kind for p in self.problems if p.blocking == blocking)
            lines += [f"{title}:"] if by_kind else []
            for kind, count in by_kind.items():
                lines.append(f"  {kind} ({count})")
                own = [p for p in self.problems if p.blocking == blocking and p.kind == kind]
                lines += [f"    {p.case + ': ' if p.case else ''}{p.text}" for p in own[:limit]]
                if limit is not None and count > limit:
                    lines.append(f"    and {count - limit} more; --report FILE lists them all")
        return "\n".join(lines)
