"""Names: those that become parts of folders' names, nnU-Net's of data sets, and how Markdown shows a name as it is."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from nnunet_cil.errors import CILError

_PART_OF_A_FOLDERS_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_DATASET_NAME = re.compile(r"Dataset([0-9]{3}|[1-9][0-9]{3,8})_.+")
_DATASET_ID = re.compile(r"0*[1-9][0-9]{0,8}")


def valid_name(name: object, beginning: str) -> str:
    """Returns a name that can be part of a folder's name, where nnU-Net separates parts by two underscores.

    Args:
        name: what the user gave.
        beginning: of the error's message: which name it is.

    Raises:
        CILError: it is no text, or has other characters.
    """
    if not isinstance(name, str) or not _PART_OF_A_FOLDERS_NAME.fullmatch(name) or "__" in name:
        raise CILError(f"{beginning} becomes part of a folder's name: use letters, digits, '.', '-' and single '_'.")
    return name


_SIDES = {"l": "left", "lt": "left", "r": "right", "rt": "right", "left": "left", "right": "right"}

_SIDE = re.compile("^(left|right)(?=.{3})|(?<=.{3})(left|right)$")
"""A side that is written together with the organ."""

_LETTER_OF_A_SIDE = re.compile("([lr])([bcdfgjklmnpqrstvwxz][a-z]{2,}|[aeiou][a-z]{4,})")
"""The same as a letter, where few words begin so: ``lkidney``, ``rlung``, ``ladrenal``, but not ``liver`` or ``rhomboid``."""


def spelled_alike(name: str, others: Iterable[str]) -> list[str]:
    """Returns the names that are likely to mean the same organ as a name.

    They differ in capitals, accents, in what separates the words, in their order, in short forms of left and right, in the
    plural or in British spelling: ``Liver`` and ``livers``, ``gall bladder`` and ``GallBladder``, ``kidney_r``, ``rkidney`` and
    ``rightkidney``.
    """
    own = _spellings(name)
    return [other for other in others if own & _spellings(other)]


def _spellings(name: str) -> set[str]:
    parts = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", name))  # without ligatures and Latin accents
    text = unicodedata.normalize("NFKC", parts)
    found = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+", text)
    words = [part for word in found for part in _SIDE.sub(r" \g<0> ", word.lower()).split()]
    if not words:
        return {name}
    spellings = _in_one_order(words)
    if (side := _LETTER_OF_A_SIDE.fullmatch(words[0])) is not None:
        spellings |= _in_one_order([*side.groups(), *words[1:]])
    return spellings


def _in_one_order(words: Iterable[str]) -> set[str]:
    """Returns words as one text each way: written together, and in one order."""
    words = list(words)
    sides = sorted(_SIDES.get(w, w) for w in words if _SIDES.get(w, w) in _SIDES.values())
    others = [f"#{w}" if w.isdigit() else _stem(w) for w in words if _SIDES.get(w, w) not in _SIDES.values()]
    return {" ".join([*sides, "".join(others)]), " ".join([*sides, *sorted(others)])}


def _stem(word: str) -> str:
    """Returns a word without the endings of its plural, in one of the two spellings of English."""
    word = re.sub("ies$", "y", re.sub("our(s?)$", r"or\1", word.replace("grey", "gray")))
    word = re.sub("oe|ae", "e", re.sub("ae$", "a", word))
    return re.sub("(?<=..)(es|is|(?<!s)s|e)$", "", word)


_LONGEST_COMPONENT = 200
"""In bytes; systems take 255, and nnU-Net and temporary files add to it."""

_NO_PART_OF_A_NAME = '/\\:*?"<>|' + "\u2044\u2215\u29f8\ufe68\uff0e\uff0f\uff3c"
"""Characters that separate folders or mean something to a system or a shell, and those that look like a separator."""

_OF_WINDOWS = re.compile(r"(CON|PRN|AUX|NUL|(COM|LPT)[0-9])(\..*)?", re.IGNORECASE)
"""The names that Windows keeps for devices."""


def is_path_component(name: object) -> bool:
    """Returns whether this is text that can name one file or folder, on any system, and leads nowhere else.

    It is not hidden, is no option of a command, and looks like what it is.
    """
    if not isinstance(name, str) or not name or name != name.strip() or name.endswith(".") or name[0] in ".~-":
        return False
    if _OF_WINDOWS.fullmatch(name) or len(name.encode(errors="replace")) > _LONGEST_COMPONENT:
        return False
    return not any(character in _NO_PART_OF_A_NAME or not character.isprintable() for character in name)


def is_dataset_name(text: object) -> bool:
    """Returns whether nnU-Net could call a data set so: DatasetXXX_NAME, with an ID of three digits or, from 1000 on, more."""
    return isinstance(text, str) and is_path_component(text) and _DATASET_NAME.fullmatch(text) is not None


def is_dataset_id(text: str) -> bool:
    """Returns whether this is the ID of a data set, with or without leading zeros: 1 or more."""
    return _DATASET_ID.fullmatch(text) is not None


def is_readable(name: object) -> bool:
    """Returns whether this is text that is not blank, and has no line break or other control character."""
    return (
        isinstance(name, str)
        and bool(name.strip())
        and not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name)
    )


def printable(text: str) -> str:
    """Returns text on one line, without characters that steer a terminal or turn the direction of writing."""
    return "".join(character if character.isprintable() else " " for character in text)


def markdown_text(text: str) -> str:
    """Returns text that Markdown shows as it is, also in the cell of a table: on one line, its special characters escaped.

    An underscore between letters or digits is left alone, as Markdown leaves it.
    """
    text = re.sub(r"[\\`*$<~|\[\]]", r"\\\g<0>", printable(text))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text)
