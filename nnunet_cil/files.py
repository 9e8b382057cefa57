"""Files that are there whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def moved_into_place(file: Path) -> Iterator[Path]:
    """A path beside ``file``, with its ending, that becomes ``file`` once it is written.

    What is killed or fails in the middle leaves the file as it was before.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}")
    yield temporary
    temporary.replace(file)


def write_json(file: Path, content: Any) -> None:
    """Indented as nnU-Net's."""
    with moved_into_place(file) as temporary:
        temporary.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
