"""Files that are there whole or not at all, and how to tell."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError


@contextmanager
def moved_into_place(file: Path) -> Iterator[Path]:
    """Yields a path beside ``file``, with its ending, that becomes ``file`` once it is written.

    What is killed or fails in the middle leaves the file as it was before.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}")
    yield temporary
    temporary.replace(file)


def read_json(file: Path, remedy: str) -> dict[str, Any]:
    """Reads a JSON object; ``remedy`` says what to do when the file is missing.

    Raises:
        CILError: the file is missing, or is not JSON in UTF-8.
    """
    if not file.is_file():
        raise CILError(f"{file} is missing. {remedy}")
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # also of bytes that are not UTF-8
        raise CILError(f"{file} is not valid JSON in UTF-8: {error}.") from error
    return content


def write_json(file: Path, content: Any) -> None:
    """Writes JSON, indented as nnU-Net's, whole or not at all."""
    with moved_into_place(file) as temporary:
        temporary.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def is_cut_off(file: Path) -> bool:
    """Returns whether a NIfTI file ends before its last voxel, or a packed one cannot be unpacked.

    SimpleITK reads what is there of such a file, and says nothing; other formats it refuses by itself.
    """
    if file.suffix not in (".gz", ".nii"):
        return False
    size = _nifti_size(file)
    if file.suffix == ".nii":
        return file.stat().st_size < size
    return _unpacked_size(file) != size % _GZIP_MODULUS and not _unpacks(file)


_GZIP_MODULUS = 1 << 32
"""gzip ends with the unpacked size in four bytes."""


def _nifti_size(file: Path) -> float:
    """Returns the unpacked size in bytes, as the header says; infinite where there is none."""
    import nibabel

    try:
        image: Any = nibabel.load(file)
    except (nibabel.filebasedimages.ImageFileError, gzip.BadGzipFile, EOFError, zlib.error):
        return math.inf
    voxels = image.dataobj
    return float(voxels.offset + math.prod(voxels.shape) * voxels.dtype.itemsize)


def _unpacked_size(file: Path) -> int:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 4))
        return int.from_bytes(stream.read(), "little")


def _unpacks(file: Path) -> bool:
    """Returns whether a file can be unpacked: slower, but right for a file of several parts, too."""
    try:
        with gzip.open(file) as stream:
            while stream.read(1 << 20):
                pass
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return False
    return True


def files_sha256(files: Iterable[Path]) -> str:
    """Returns the SHA-256 of the names and contents of files, in hexadecimal."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
