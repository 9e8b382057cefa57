"""An extension of Griffe: equations in docstrings are plain text, whose ``_`` and ``*`` Markdown must leave alone.

Addresses become links.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

_CODE = re.compile(r"(`+.*?`+|https?://[^\s,;)]+[^\s,;).])", re.S)
_SPECIAL = re.compile(r"(?<!\w)_|_(?!\w)|\*(?!\w+:)|(?<=\w)_(?=\{)", re.M)


class PlainDocstrings(Extension):
    """Escapes what is neither code nor an address. Names of parameters stay as they are: inside a word Markdown ignores ``_``."""

    def on_object(self, *, obj: Any, **_others: Any) -> None:
        """Changes the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            parts = _CODE.split(obj.docstring.value)
            parts[::2] = [_SPECIAL.sub(r"\\\g<0>", text) for text in parts[::2]]
            parts[1::2] = [part if part.startswith("`") else f"<{part}>" for part in parts[1::2]]
            obj.docstring.value = "".join(parts)
