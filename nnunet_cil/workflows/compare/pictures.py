"""The pictures of a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cil.evaluation.change_pictures import change_picture
from nnunet_cil.evaluation.compared_cases import ComparedCase
from nnunet_cil.evaluation.naming import named_alike
from nnunet_cil.evaluation.report import Picture, picture_address
from nnunet_cil.host.reading.images import as_seen, read_grid, read_images, read_labels
from nnunet_cil.workflows.compare.sides import Side


def draw_cases(
    output: Path,
    cases: Sequence[tuple[ComparedCase, Mapping[str, Any]]],
    sides: tuple[Side, Side],
    reader: Any,
) -> list[Picture]:
    """Draws cases into ``figures``; those of an earlier comparison go.

    Args:
        output: folder.
        cases: files of each, and what ``comparison.json`` says of it.
        sides: A and B.
        reader: an instance of nnU-Net's, that reads all files.
    """
    from tqdm import tqdm

    folder = output / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("case_*.png"):
        old.unlink()
    shared = set(sides[0].labels) & set(sides[1].labels)
    pictures = []
    for index, (case, found) in enumerate(tqdm(cases, desc="Drawing", unit="case", leave=False), start=1):
        text = f"{case.name}: mean Dice of A and B {found['dice']:.3f}" if not math.isnan(found["dice"]) else case.name
        if found["lowest_class"]:
            text += f"; least in {found['lowest_class']}, {found['lowest_dice']:.3f}"
        arrays = [as_seen(read_labels(file, reader))[0] for file in (case.a, case.b)]
        (a, b), names = named_alike(arrays, [side.labels for side in sides])
        image, aspect = _image(case, reader, a.shape)
        is_oriented = bool(read_grid(case.a, reader, is_image=False).orientation)
        draw = partial(change_picture, image, a, b, names, shared, aspect=aspect, sides=is_oriented)
        file, narrow = folder / f"case_{index}.png", BytesIO()
        draw(title=text).savefig(file, dpi=110)
        draw(num_slices=1, is_narrow=True).savefig(narrow, format="png", dpi=110)
        pictures.append(Picture(file, text, picture_address(narrow.getvalue(), ".png")))
    return pictures


def _image(case: ComparedCase, reader: Any, shape: tuple[int, ...]) -> tuple[Any, float]:
    """Returns the image and the height of a pixel through its width; black where there is no image."""
    if case.image.is_file():
        return as_seen(read_images([case.image], reader))
    return np.zeros(shape), as_seen(read_labels(case.a, reader))[1]
