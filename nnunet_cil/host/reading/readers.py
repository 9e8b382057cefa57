"""nnU-Net's readers of images: which one reads a data set."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.files import is_cut_off
from nnunet_cil.host.reading.spacings import TIFF, spacing_beside

OVERWRITE = "overwrite_image_reader_writer"
"""The key of dataset.json that names a reader."""


def named_reader(name: str) -> Any:
    """Returns an instance of the reader that a plans file names.

    Raises:
        CILError: nnU-Net has none of that name.
    """
    found = _find(name)
    if found is None:
        raise CILError(f"nnU-Net has no reader {name!r} (image_reader_writer in the plans). Install it there.")
    return found()


def _find(name: str) -> Any:
    """Returns nnU-Net's reader of a name; None where there is none.

    nnU-Net takes whatever its modules call so: a function that they import, too.
    """
    import inspect

    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    try:
        found = recursive_find_reader_writer_by_name(name)
    except RuntimeError:
        return None
    is_reader = isinstance(found, type) and issubclass(found, BaseReaderWriter) and not inspect.isabstract(found)
    return found if is_reader else None


def dataset_reader(dataset_json: Mapping[str, Any], example: Path | None, plans_reader: str = "") -> Any:
    """Returns an instance of nnU-Net's reader for a data set: that of the plans, since one may flip what another does not.

    Where it cannot read the files, or dataset.json names one (``overwrite_image_reader_writer``), nnU-Net chooses.

    Args:
        dataset_json: of the data set.
        example: one of its files; nnU-Net takes the first reader that can read it.
        plans_reader: the reader of the plans that are going to be used on it; empty where there are none.

    Raises:
        CILError: the file is damaged, or no reader of nnU-Net reads it.
    """
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    ending = str(dataset_json["file_ending"])
    if plans_reader and dataset_json.get(OVERWRITE, "None") == "None":
        reader = named_reader(plans_reader)
        if ending.lower() in reader.supported_file_endings:
            return reader
    content, own = dict(dataset_json), str(dataset_json.get(OVERWRITE, "None"))
    if own != "None" and _find(own) is None:
        del content[OVERWRITE]  # as nnU-Net does with a name that it does not know
    if example is not None and is_cut_off(example):
        raise CILError(f"{example} is cut off or damaged. Restore it.")
    try:
        with silent():
            chosen = determine_reader_writer_from_dataset_json(
                content, None if example is None else str(example), verbose=False
            )
    except RuntimeError as error:
        if example is not None and example.name.lower().endswith(TIFF):
            spacing_beside(
                example, is_image=re.search(r"_\d{4}$", example.stem) is not None
            )  # the reader fails on a wrong one
        what = f"files that end in {ending!r}" if example is None else str(example)
        raise CILError(
            f"No reader of nnU-Net reads {what}. Restore what is damaged, write other formats as .nii.gz, or name a reader with "
            f"{OVERWRITE!r} in dataset.json."
        ) from error
    return chosen()


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keeps back what nnU-Net's readers print; what matters of it is said in other words."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
