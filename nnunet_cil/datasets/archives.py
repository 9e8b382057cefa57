"""Zip and tar archives of downloads."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from nnunet_cil.errors import CILError

MAX_ENTRIES = 1_000_000
"""The most files of an archive; the largest public download has some ten thousand."""

MAX_RATIO = 100
"""How many times its own size an archive may unpack to, beyond ``FREE_BYTES``. Images are compressed to a half or less."""

FREE_BYTES = 10 * 1024**3
"""So much any archive may unpack to."""

_LONGEST_PATH = 4096
"""In bytes."""


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
        CILError: the archive is damaged, holds what leads outside, or unpacks to more than the disk or reason allows.
    """
    try:
        sizes = _unpack_zip(source, folder) if zipfile.is_zipfile(source) else _unpack_tar(source, folder)
        _limit(sizes, source, folder)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, RuntimeError, NotImplementedError) as error:
        raise CILError(f"{source} cannot be unpacked: {error}. Download it again, or unpack it by hand.") from error


def _limit(sizes: Iterator[int], source: Path, folder: Path) -> None:
    """Lets an archive be unpacked, entry by entry, while what is unpacked stays within the limits.

    Args:
        sizes: yields the size of each entry, in bytes, before it is unpacked.
        source: the archive.
        folder: takes its contents.

    Raises:
        CILError: a limit is passed.
    """
    room, most = shutil.disk_usage(folder).free, max(FREE_BYTES, MAX_RATIO * source.stat().st_size)
    total = 0
    for count, size in enumerate(sizes, start=1):
        total += size
        if total > room:
            raise CILError(
                f"{source} unpacks to more than the {room / 1e9:.1f} GB that are free in {folder.parent}. Make room."
            )
        if count > MAX_ENTRIES or total > most:
            raise CILError(
                f"{source} unpacks to far more than a download of its size: {count} files, {total / 1e9:.1f} GB so far. If it is "
                "what it should be, unpack it by hand and give the folder."
            )


def _unpack_zip(source: Path, folder: Path) -> Iterator[int]:
    """Yields the size of each entry, then unpacks it. A link becomes a link where it stays inside."""
    with zipfile.ZipFile(source) as archive:
        for entry in archive.infolist():
            yield entry.file_size
            if not stat.S_ISLNK(entry.external_attr >> 16):
                archive.extract(entry, folder)
                continue
            if entry.file_size > _LONGEST_PATH:
                raise zipfile.BadZipFile(f"the link {entry.filename!r} has no path in it")
            target, link = archive.read(entry).decode(errors="replace"), folder / entry.filename
            for path in (link, link.parent / target):
                if not _is_inside(path, folder):
                    raise zipfile.BadZipFile(f"the link {entry.filename!r} leads outside of it")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)


def _unpack_tar(source: Path, folder: Path) -> Iterator[int]:
    """Yields the size of each entry, then unpacks it with Python's filter for data.

    Python before 3.10.12 and 3.11.4 has no such filter; links and what lies outside of the folder are refused there.
    """
    with tarfile.open(source) as archive:
        for entry in archive:
            yield entry.size
            if hasattr(tarfile, "data_filter"):
                archive.extract(entry, folder, filter="data")
            elif _is_inside(folder / entry.name, folder) and (entry.isfile() or entry.isdir()):
                archive.extract(entry, folder)
            else:
                raise tarfile.ExtractError(f"{entry.name!r} is a link, or not inside of the archive's folder")


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
