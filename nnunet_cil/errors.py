"""Errors that the user can mend: one sentence names the culprit and the remedy."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class CILError(Exception):
    """Bad input: a schedule, plans file, data set, checkpoint or setting that cannot work."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the nearest known spelling; None where all are far."""
    lowered = {k.lower(): k for k in known}
    close = get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return lowered[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ' (did you mean 'x'?)' for the nearest known spelling, else ' (known: ...)'."""
    known = list(known)
    if (meant := nearest(name, known)) is not None:
        return f" (did you mean {meant!r}?)"
    return f" (known: {', '.join(map(repr, known))})" if known else ""


_MOST_NAMED = 3
"""The number of names that a message spells out."""


def few_names(names: Sequence[str]) -> str:
    """Returns names for a message: the first few, and how many more there are."""
    more = len(names) - _MOST_NAMED
    return ", ".join(map(repr, names[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


def counted(number: int, noun: str, plural: str = "") -> str:
    """Returns a number with its noun: ``1 case``, ``2 cases``."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"
