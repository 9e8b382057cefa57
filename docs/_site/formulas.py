"""A hook of MkDocs: LaTeX in pages becomes MathML while the site is built, so that no script draws it in the browser."""

from __future__ import annotations

import html
import re
from typing import Any

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">(?:\\\((?P<inline>.+?)\\\)|\\\[(?P<block>.+?)\\\])</(?P=tag)>', re.S
)
_UNKNOWN = re.compile(r"<mi[^>]*>(\\[A-Za-z]+)</mi>")


def on_page_content(content: str, page: Any, **_others: Any) -> str:
    """Replaces the formulas of a page.

    Raises:
        PluginError: one of them cannot be converted; this ends the build.
    """
    return _FORMULA.sub(lambda match: _mathml(match, page.file.src_uri), content)


def _mathml(match: re.Match[str], page: str) -> str:
    from latex2mathml.converter import convert
    from mkdocs.exceptions import PluginError

    latex = html.unescape(match["inline"] or match["block"]).strip()
    try:
        mathml = convert(latex, display="block" if match["block"] else "inline")
    except Exception as error:  # latex2mathml has no common class of its errors
        raise PluginError(
            f"{page}: the formula {latex!r} is not valid LaTeX ({type(error).__name__} {error})."
        ) from error
    if unknown := _UNKNOWN.search(mathml):
        raise PluginError(f"{page}: the formula {latex!r} has a command that latex2mathml does not know: {unknown[1]}.")
    return f'<{match["tag"]} class="arithmatex">{mathml}</{match["tag"]}>'
