"""A hook of MkDocs: a link to a file beside docs/ leads to the repository, or names the file where its address is not known."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[(?P<text>(?:[^\[\]\n]|\n(?!\n))+)\]\((?P<target>\.\./[^)\s]+)\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_others: Any) -> str:
    """Replaces the links of a page that lead out of docs/.

    Raises:
        PluginError: no such file; this ends the build.
    """
    from mkdocs.exceptions import PluginError

    def replaced(match: re.Match[str]) -> str:
        path, _, anchor = match["target"].partition("#")
        inside = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), path))
        if inside.startswith("docs/"):
            return match[0]
        if not (Path(config["config_file_path"]).parent / inside).exists():
            raise PluginError(f"{page.file.src_uri}: there is no {inside} in the repository.")
        if not config["repo_url"]:
            before = markdown[markdown.rfind("\n\n", 0, match.start()) + 1 : match.start()]
            in_brackets = before.count("(") > before.count(")")
            return f"{match['text']}, `{inside}`" if in_brackets else f"{match['text']} (`{inside}`)"
        address = f"{config['repo_url'].rstrip('/')}/blob/HEAD/{inside}" + (f"#{anchor}" if anchor else "")
        return f"[{match['text']}]({address})"

    return _LINK.sub(replaced, markdown)
