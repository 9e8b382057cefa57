"""An extension of Griffe: equations in docstrings are plain text, whose ``_`` and ``*`` Markdown must leave alone."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

_CODE = re.compile(r"(`+.*?`+)", re.S)
_SPECIAL = re.compile(r"(?<!\w)_|_(?!\w)|\*(?!\w+:)|(?<=\w)_(?=\{)", re.M)


class PlainDocstrings(Extension):
    """Escapes what is not code. Names of parameters stay as they are: inside a word Markdown ignores ``_``."""

    def on_object(self, *, obj: Any, **_others: Any) -> None:
        """Changes the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            parts = _CODE.split(obj.docstring.value)
            parts[::2] = [_SPECIAL.sub(r"\\\g<0>", text) for text in parts[::2]]
            obj.docstring.value = "".join(parts)
