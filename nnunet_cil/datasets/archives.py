"""Zip and tar archives of downloads."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import IO, Literal

from nnunet_cil.errors import CILError

MAX_ENTRIES = 1_000_000
"""The most files of an archive; the largest public download has some ten thousand."""

MAX_RATIO = 100
"""How many times its own size an archive may unpack to, beyond ``FREE_BYTES``. Images are compressed to a half or less."""

FREE_BYTES = 10 * 1024**3
"""So much any archive may unpack to."""

MAX_DEPTH = 32
"""The most folders inside each other; downloads have four."""

_LONGEST_PATH = 4096
"""In bytes."""

_LONGEST_HEADER = 1024**2
"""The most bytes that a tar may say of one entry; they are read into memory."""

_MOST_PADDING = 64
"""In megabytes: so much of what follows the last entry of a tar is read."""

_LONGEST_CHAIN = 40
"""The most links that lead to each other; Linux follows no more."""

_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
    *(OSError, EOFError, RuntimeError, NotImplementedError, ValueError, OverflowError),
)
"""Raised on archives that are damaged, encrypted, or made to lead elsewhere."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A file, folder or link in an archive.

    Attributes:
        name: its path in the archive.
        size: in bytes.
        kind: what it is.
        target: of a link, from its folder on; of a tar's hard link, from the archive's root on. Empty for what is no link.
        open: opens the content of a file.
    """

    name: str
    size: int
    kind: Literal["file", "folder", "link", "hard link"]
    target: str
    open: Callable[[], IO[bytes] | None]


def is_archive(source: Path) -> bool:
    """Returns true for a file that ``unpack`` reads, or says what is wrong with it."""
    if not source.is_file():
        return False
    if zipfile.is_zipfile(source):
        return True
    try:
        _open_tar(source).close()
    except tarfile.TarError:
        return False
    except _DAMAGED:
        pass
    return True


def unpacked_bytes(source: Path) -> int:
    """Returns the size of an archive's contents; of a tar, the size of the archive itself.

    A tar's contents can only be measured by reading all of it, and its images are compressed already.

    Raises:
        CILError: the archive is damaged.
    """
    if not zipfile.is_zipfile(source):
        return source.stat().st_size
    try:
        with zipfile.ZipFile(source) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except _DAMAGED as error:
        raise _refusal(source, error) from error


def unpack(source: Path, folder: Path) -> None:
    """Unpacks a zip or tar archive into an empty folder; nothing is written outside of it.

    Files are written first, and none over another one. Links are made once nothing else is written, so that none is followed.

    Raises:
        CILError: the archive is damaged, holds what leads outside, or unpacks to more than the disk or reason allows.
    """
    links: dict[Path, _Entry] = {}
    try:
        entries = _zip_entries(source) if zipfile.is_zipfile(source) else _tar_entries(source)
        for entry in _limited(entries, source, folder):
            path = folder / inner_path(entry.name)
            if entry.kind in ("file", "folder"):
                _write(entry, path)
            elif links.setdefault(path, entry) is not entry:
                raise ValueError(f"it holds {entry.name!r} twice")
        _make_links(links, folder.resolve())
    except _DAMAGED as error:
        raise _refusal(source, error) from error


def inner_path(name: str, kind: Callable[[str], PurePath] = PurePath) -> PurePath:
    """Returns an entry's path below the folder that takes the archive.

    Args:
        name: the entry's.
        kind: of paths, those of this system.

    Raises:
        ValueError: it leads outside, or deeper than reason allows.
    """
    path = kind(name)
    if path.anchor or ".." in path.parts or "\0" in name:
        raise ValueError(f"the entry {name!r} leads outside of it")
    if len(path.parts) > MAX_DEPTH:
        raise ValueError(f"the entry {name[:60]!r}... is in more than {MAX_DEPTH} folders")
    return path


def _refusal(source: Path, error: Exception) -> CILError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return CILError(
        f"{source} cannot be unpacked: {reason}. Download it again, or unpack it by hand and give the folder."
    )


def _limited(entries: Iterable[_Entry], source: Path, folder: Path) -> Iterator[_Entry]:
    """Yields the entries of an archive while what they unpack to stays within the limits.

    Raises:
        CILError: a limit is passed.
    """
    room, most = shutil.disk_usage(folder).free, max(FREE_BYTES, MAX_RATIO * source.stat().st_size)
    total = 0
    for count, entry in enumerate(entries, start=1):
        total += entry.size
        if total > room:
            raise CILError(
                f"{source} unpacks to more than the {room / 1e9:.1f} GB that are free in {folder.parent}. Make room."
            )
        if count > MAX_ENTRIES or total > most:
            raise CILError(
                f"{source} unpacks to far more than a download of its size: {count} files, {total / 1e9:.1f} GB so far. If it is "
                "what it should be, unpack it by hand and give the folder."
            )
        yield entry


def _zip_entries(source: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(source) as archive:
        for entry in archive.infolist():
            kind: Literal["file", "folder", "link"] = "folder" if entry.is_dir() else "file"
            target = ""
            if stat.S_ISLNK(entry.external_attr >> 16):
                if entry.file_size > _LONGEST_PATH:
                    raise ValueError(f"the link {entry.filename!r} has no path in it")
                kind, target = "link", archive.read(entry).decode(errors="replace")
            yield _Entry(
                name=entry.filename,
                size=entry.file_size,
                kind=kind,
                target=target,
                open=partial(archive.open, entry),
            )


def _tar_entries(source: Path) -> Iterator[_Entry]:
    with _open_tar(source) as archive:
        for entry in archive:
            kinds: dict[bytes, Literal["link", "hard link"]] = {tarfile.SYMTYPE: "link", tarfile.LNKTYPE: "hard link"}
            if not (entry.isfile() or entry.isdir() or entry.type in kinds):
                raise ValueError(f"the entry {entry.name!r} is a device")
            if entry.size < 0:
                raise ValueError(f"the entry {entry.name!r} has a negative size")
            yield _Entry(
                name=entry.name,
                size=entry.size,
                kind=kinds.get(entry.type, "folder" if entry.isdir() else "file"),
                target=entry.linkname,
                open=partial(archive.extractfile, entry),
            )
        for _ in range(_MOST_PADDING):  # the checksum of what is compressed stands at its end, after the padding
            if archive.fileobj is None or not archive.fileobj.read(1024**2):
                break


class _Header(tarfile.TarInfo):
    """The header of an entry in a tar. Long names are entries of their own, which are read into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        """Reads a header; refuses one that announces a name beyond all use."""
        header = super().frombuf(buf, encoding, errors)
        if header.size > _LONGEST_HEADER and not (header.isfile() or header.isdir()):
            raise ValueError("the header of an entry is too large")
        return header


def _open_tar(source: Path) -> tarfile.TarFile:
    return tarfile.open(source, tarinfo=_Header)


def _write(entry: _Entry, path: Path) -> None:
    """Writes a file or folder. There are no links yet that it could go through."""
    try:
        if entry.kind == "folder":
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        content = entry.open()
        assert content is not None, "only a tar's folders and links have none"
        with content, path.open("xb") as file:
            shutil.copyfileobj(content, file)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"it holds {entry.name!r} twice, or a file that is also a folder") from error


def _make_links(links: Mapping[Path, _Entry], folder: Path) -> None:
    """Makes an archive's links, each straight to a file or folder that is there.

    Args:
        links: path -> link.
        folder: all of the archive, resolved.

    Raises:
        ValueError: one leads outside, or to nothing.
    """
    for path in links:
        path.parent.mkdir(parents=True, exist_ok=True)
    waiting = dict(links)
    for _ in range(_LONGEST_CHAIN):
        waiting = {path: link for path, link in waiting.items() if not _make_link(path, link, folder)}
        if not waiting:
            return
    raise ValueError(f"the link {next(iter(waiting.values())).name!r} leads to nothing that is in it")


def _make_link(path: Path, link: _Entry, folder: Path) -> bool:
    """Makes a link, unless what it leads to is not there (yet)."""
    parent = path.parent.resolve(strict=True)
    target = (folder if link.kind == "hard link" else parent) / link.target
    leads_outside = ValueError(f"the link {link.name!r} leads outside of it")
    if not Path(os.path.normpath(target)).is_relative_to(folder):
        raise leads_outside
    try:
        resolved = target.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not resolved.is_relative_to(folder):
        raise leads_outside
    if parent.is_relative_to(resolved):
        raise ValueError(f"the link {link.name!r} leads to a folder that it is in")
    try:
        path.symlink_to(os.path.relpath(resolved, parent), target_is_directory=resolved.is_dir())
    except FileExistsError as error:
        raise ValueError(f"it holds {link.name!r} twice") from error
    return True
