"""Zip and tar archives of downloads."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from nnunet_cil.errors import CILError


def is_archive(source: Path) -> bool:
    """Whether ``unpack`` can read it."""
    return source.is_file() and (zipfile.is_zipfile(source) or tarfile.is_tarfile(source))


def unpacked_bytes(source: Path) -> int:
    """How much room the contents of an archive take."""
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    return source.stat().st_size  # a tar's sizes are known only by reading all of it, and its images are packed already


def unpack(source: Path, folder: Path) -> None:
    """Unpacks a zip or tar archive into a folder; nothing is written outside of it.

    Raises:
        CILError: the archive is damaged.
    """
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as zipped:
                zipped.extractall(folder)
        else:
            with tarfile.open(source) as tarred:
                _unpack_tar(tarred, folder)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, RuntimeError) as error:
        raise CILError(f"{source} cannot be unpacked: {error}. Download it again, or unpack it by hand.") from error


def _unpack_tar(tarred: tarfile.TarFile, folder: Path) -> None:
    """With Python's filter for data; Python before 3.10.12 and 3.11.4 has none: there, files and folders inside only."""
    if hasattr(tarfile, "data_filter"):
        tarred.extractall(folder, filter="data")
        return
    for member in tarred.getmembers():
        inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
        if not inside or not (member.isfile() or member.isdir()):
            raise tarfile.ExtractError(f"{member.name!r} is a link, or not inside of the archive's folder")
    tarred.extractall(folder)
