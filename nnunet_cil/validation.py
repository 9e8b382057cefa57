"""Checks that what a JSON file holds has the types that are expected, with pydantic; its findings as one sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from nnunet_cil.errors import CILError
from nnunet_cil.files import json_type, shortened

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

_EXPECTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "none_required": "null",
    **dict.fromkeys(("list_type", "tuple_type", "set_type"), "a list"),
    **dict.fromkeys(("dict_type", "dataclass_type", "model_type", "mapping_type"), "an object"),
}
"""pydantic's kinds of errors -> what must be there."""


def validated(kind: Any, content: object, where: str, remedy: str) -> Any:
    """Returns content of JSON as a value of a type: dataclasses, tuples and the like are built from objects and lists.

    Nothing is converted from one type of JSON to another: ``"3"`` and ``true`` are no numbers.

    Args:
        kind: a dataclass, a TypedDict, or any other type that pydantic knows.
        content: as the file holds it.
        where: the message's beginning: which file.
        remedy: its last sentence.

    Raises:
        CILError: names the first value that has another type.
    """
    from pydantic import ValidationError

    try:
        text = json.dumps(content)
    except (TypeError, ValueError, RecursionError) as error:  # a checkpoint can hold what JSON cannot
        raise CILError(f"{where} holds what is no text, number, list or object. {remedy}") from error
    try:
        return _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise CILError(f"{where} {_finding(error.errors(include_url=False)[0], content)}. {remedy}") from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _finding(error: ErrorDetails, content: object) -> str:
    """Returns the rest of the sentence: 'has 3 for 'steps[0].classes', but it must be a list'."""
    kind, path = error["type"], _inside(error["loc"], content)
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    if kind == "missing":
        return f"lacks {place!r}"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"has an unknown key {place!r}"
    message = error["msg"]
    expected = _EXPECTED.get(kind) or message.removeprefix("Input should be ").removeprefix("Value error, ")
    value = error["input"]
    shown = json_type(value) if value is None or isinstance(value, bool) else shortened(value)
    if not place:
        return f"holds {shown}, but must hold {expected}"
    return f"has {shown} for {place!r}, but it must be {expected}"


def _inside(path: Sequence[int | str], content: object) -> list[int | str]:
    """Returns the parts of a path that are keys and indices of the content; pydantic adds names of its own for unions."""
    found: list[int | str] = []
    for index, part in enumerate(path):
        is_last = index == len(path) - 1
        if isinstance(content, Mapping) and (part in content or is_last):
            found.append(part)
            content = content.get(part)
        elif isinstance(content, list) and isinstance(part, int) and part < len(content):
            found.append(part)
            content = content[part]
    return found
