"""Zip and tar archives of downloads."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from nnunet_cil.errors import CILError


def is_archive(source: Path) -> bool:
    """Returns true for a file that ``unpack`` can read."""
    return source.is_file() and (zipfile.is_zipfile(source) or tarfile.is_tarfile(source))


def unpacked_bytes(source: Path) -> int:
    """Returns the size of an archive's contents; of a tar, the size of the archive itself.

    A tar's contents can only be measured by reading all of it, and its images are compressed already.
    """
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    return source.stat().st_size


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
    """Unpacks with Python's filter for data; without one, refuses links and what lies outside of the folder.

    Python before 3.10.12 and 3.11.4 has no such filter.
    """
    if hasattr(tarfile, "data_filter"):
        tarred.extractall(folder, filter="data")
        return
    for member in tarred.getmembers():
        inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
        if not inside or not (member.isfile() or member.isdir()):
            raise tarfile.ExtractError(f"{member.name!r} is a link, or not inside of the archive's folder")
    tarred.extractall(folder)
