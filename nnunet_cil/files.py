"""Files that are there whole or not at all, and how to tell."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import shutil
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.owners import current_owner, read_token


@contextmanager
def moved_into_place(file: Path) -> Iterator[Path]:
    """Yields a path beside ``file``, with its ending, that becomes ``file`` once it is written.

    What is killed or fails in the middle leaves the file as it was before.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with temporary_file(file) as temporary:
        yield temporary
        temporary.replace(file)


@contextmanager
def temporary_file(file: Path) -> Iterator[Path]:
    """Yields a hidden path beside ``file``, with its ending, and removes what is there in the end.

    What a kill leaves is removed by the next call.
    """
    temporary = _temporary(file)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Makes a hidden folder, and removes it in the end. What a kill leaves is removed by the next call."""
    folder = _temporary(parent / name)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _temporary(file: Path) -> Path:
    """Returns a path beside ``file`` that is this process's; removes what processes of this machine left there that are gone."""
    remove_left_over(file.parent)
    return file.with_name(f".{current_owner().token}_{file.name}")


def remove_left_over(folder: Path) -> None:
    """Removes temporary files and folders of processes of this machine that are gone; looks once a process."""
    _remove_left_over(folder, os.getpid())


@cache
def _remove_left_over(folder: Path, _pid: int) -> None:
    for path in folder.glob(".*-*-*-*_*"):
        owner = read_token(path.name[1:].split("_")[0])
        if owner is not None and owner.state == "gone":
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


MAX_JSON_DEPTH = 64
"""How deep objects and lists may be nested in a JSON file; nnU-Net's own files need eight."""

_MAX_DIGITS = 300
"""The most digits of a whole number in a JSON file: no number with more fits into a floating point number."""


_CORRECT = "Correct it there, or restore the file."


def read_json(file: Path, remedy: str, damaged: str = _CORRECT) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        file: to read.
        remedy: says what to do when the file is missing or holds something else.
        damaged: says what to do when it is no JSON.

    Raises:
        CILError: the file is missing or cannot be read, is not JSON in UTF-8, names a key twice, is nested too deep, or holds
            no object.
    """
    content = _read_any_json(file, remedy, damaged)
    if not isinstance(content, dict):
        raise CILError(f"{file} holds {json_type(content)}, but must hold a JSON object in braces. {remedy}".rstrip())
    return content


def read_json_list(file: Path, remedy: str) -> list[Any]:
    """Reads a JSON list; otherwise as ``read_json``, with one remedy for all."""
    content = _read_any_json(file, remedy, remedy)
    if not isinstance(content, list):
        raise CILError(f"{file} holds {json_type(content)}, but must hold a JSON list in brackets. {remedy}".rstrip())
    return content


def _read_any_json(file: Path, remedy: str, damaged: str) -> Any:
    try:
        if stat.S_ISFIFO(mode := os.stat(file).st_mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode):
            raise CILError(f"{file} is no file, but a pipe, a socket or a device. Remove it. {remedy}".rstrip())
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CILError(f"{file} is missing. {remedy}".rstrip()) from error
    except OSError as error:
        if os.path.isdir(file):  # unlike Path.is_dir, never an error
            raise CILError(f"{file} is a folder, but must be a JSON file. Move it away. {remedy}".rstrip()) from error
        raise CILError(f"{file} cannot be read ({error.strerror}). Correct its permissions, or restore it.") from error
    try:
        return parse_json(content)
    except ValueError as error:
        raise CILError(f"{file} is not valid JSON: {error}. {damaged}") from error


def parse_json(content: str | bytes) -> Any:
    """Parses JSON in UTF-8 strictly: no key twice in an object, no nesting or number beyond all use.

    NaN and infinite numbers are read, since nnU-Net's summaries hold them.

    Raises:
        ValueError: a plain reason, as a part of a sentence.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte order mark, which nnU-Net cannot read (save it as UTF-8 without one)")
    if not text.strip():
        raise ValueError("it is empty")
    try:
        parsed = json.loads(text, object_pairs_hook=_without_duplicates, parse_int=_whole_number)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except json.JSONDecodeError as error:
        reason = error.msg[0].lower() + error.msg[1:]
        raise ValueError(f"{reason}, line {error.lineno}, column {error.colno}") from error
    _check_depth(parsed)
    if "\\u" in text:
        try:
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError("it holds half of a character (a lone surrogate, \\ud800 to \\udfff)") from error
    return parsed


_TOO_DEEP = f"objects or lists are nested more than {MAX_JSON_DEPTH} deep"


def json_type(value: object) -> str:
    """Returns what a value is in JSON's words, with an article."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names: dict[type, str] = {str: "a text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names[type(value)]


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object names {shortened(twice)} twice")
    return content


def _whole_number(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _check_depth(content: Any) -> None:
    level = [content]
    for _ in range(MAX_JSON_DEPTH + 1):
        level = [value for value in level if isinstance(value, (dict, list))]
        if not level:
            return
        level = [v for value in level for v in (value.values() if isinstance(value, dict) else value)]
    raise ValueError(_TOO_DEEP)


def shortened(value: object, most: int = 60) -> str:
    """Returns a value as messages show it: at most so many characters."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def write_json(file: Path, content: Any) -> None:
    """Writes JSON, indented as nnU-Net's, whole or not at all."""
    write_text(file, json.dumps(content, indent=4) + "\n")


def write_text(file: Path, text: str) -> None:
    """Writes text in UTF-8, whole or not at all."""
    with moved_into_place(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_sha256(content: Any) -> str:
    """Returns the SHA-256 of what JSON can hold, whatever the order of its keys, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
