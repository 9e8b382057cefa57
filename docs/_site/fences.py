"""A hook of MkDocs: comments to the tests are not for readers."""

from __future__ import annotations

import re
from typing import Any

_COMMENT = re.compile(r"^ *<!-- not run by the tests: .* -->\n", re.M)


def on_page_markdown(markdown: str, **_others: Any) -> str:
    """Removes the comments that say why a block is not run."""
    return _COMMENT.sub("", markdown)
