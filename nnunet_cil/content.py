"""Files, known by what they hold: never by their times, which a copy, ``touch`` or a clock that was set back changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

FileState = tuple[int, ...]


def file_state(file: Path) -> FileState:
    """Returns what changes whenever a file is written, replaced or copied: the key to a hash that is kept.

    A file with another state may hold the same, so it is hashed again.
    """
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns  # touch sets the third, nothing the last


def file_sha256(file: Path) -> str:
    """Returns the SHA-256 of what a file holds, in hexadecimal; the same file is read once in a process."""
    return _sha256(file, file_state(file))


@lru_cache(maxsize=1 << 16)
def _sha256(file: Path, _state: FileState) -> str:
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def files_sha256(files: Iterable[Path]) -> str:
    """Returns the SHA-256 of the names and contents of files, in hexadecimal."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + bytes.fromhex(file_sha256(file)))
    return digest.hexdigest()
