"""The spacing of a TIFF, which stands in a JSON file beside it: ``{"spacing": [5, 0.8, 0.8]}``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json

Spacing = tuple[float, ...]

TIFF = (".tif", ".tiff")
"""The endings of files that may have their spacing beside them."""


def has_spacing_beside(reader: Any) -> bool:
    """Tells whether a reader of nnU-Net looks for such a file."""
    return type(reader).__name__ == "Tiff3DIO"


def spacing_file(file: Path, *, is_image: bool) -> Path:
    """Returns where a TIFF's spacing is: ``case.json`` beside ``case_0000.tif`` (an image) or ``case.tif`` (labels)."""
    name = file.name.removesuffix(file.suffix)
    return file.with_name(f"{name[:-5] if is_image else name}.json")


def spacing_beside(file: Path, *, is_image: bool) -> Spacing | None:
    """Reads the spacing beside a file; None where there is none.

    Raises:
        CILError: the file does not say it.
    """
    beside = spacing_file(file, is_image=is_image)
    if not beside.is_file():
        return None
    values = read_json(beside, "").get("spacing")
    numbers = values if isinstance(values, list) and len(values) == 3 else []
    if not numbers or not all(type(n) in (int, float) and math.isfinite(n) and n > 0 for n in numbers):
        raise CILError(
            f'{beside} does not say the spacing of {file.name}. Write {{"spacing": [5, 0.8, 0.8]}}: millimetres along the '
            "array's three axes."
        )
    return tuple(float(n) for n in numbers)


def with_spacing_files(images: Mapping[str, Path]) -> dict[str, Path]:
    """Returns new name -> file for images that get other names, and for the files of spacings beside them.

    Args:
        images: new name (``case_0000.tif``) -> file.
    """
    beside = {
        spacing_file(Path(name), is_image=True).name: spacing_file(file, is_image=True)
        for name, file in images.items()
        if name.lower().endswith(TIFF)
    }
    return {**images, **{name: file for name, file in beside.items() if file.is_file()}}


def agreed_spacing(image: Path | None, labels: Path | None) -> Spacing | None:
    """Returns the spacing beside an image, or else beside its labels; None where neither has one, or is there.

    Raises:
        CILError: they have different ones.
    """
    ours = None if image is None else spacing_beside(image, is_image=True)
    theirs = None if labels is None else spacing_beside(labels, is_image=False)
    if (
        image is not None
        and labels is not None
        and ours is not None
        and theirs is not None
        and not np.allclose(ours, theirs)
    ):
        raise CILError(
            f"{spacing_file(image, is_image=True)} says {_text(ours)} mm, but {spacing_file(labels, is_image=False)} says "
            f"{_text(theirs)} mm. Correct one of them; nnU-Net goes by the image's."
        )
    return ours or theirs


def case_spacing(image: Path | None, reference: Path | None, *predictions: Path) -> Spacing | None:
    """Returns the spacing of a case that is scored; None where no file says it.

    nnU-Net writes a file beside each prediction, with ones where it has found no spacing: ones alone say nothing.

    Args:
        image: the first channel; need not be there itself.
        reference: the reference labels; None where there are none.
        predictions: the predicted labels.

    Raises:
        CILError: image and reference have different ones.
    """
    spacing = agreed_spacing(image, reference)
    if spacing is not None:
        return spacing
    found = (spacing_beside(prediction, is_image=False) for prediction in predictions)
    return next((s for s in found if s is not None and set(s) != {1.0}), None)


def _text(spacing: Spacing) -> str:
    return " x ".join(f"{s:g}" for s in spacing)
