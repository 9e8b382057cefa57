"""``nnunet_cil inspect``: what a raw data set holds, as tables and as one page with pictures."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cil.datasets.parallel import in_parallel
from nnunet_cil.datasets.statistics import (
    CaseStatistics,
    case_statistics,
    class_statistics,
    ranges,
    swapped_sides,
    twins,
)
from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.figures import comparison
from nnunet_cil.evaluation.report import Picture, page
from nnunet_cil.evaluation.summary import Section
from nnunet_cil.evaluation.tables import Table, number
from nnunet_cil.files import moved_into_place
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import num_processes, raw_dataset_folder
from nnunet_cil.host.images import read_slices
from nnunet_cil.limits import MAX_PICTURES, check_whole_number

NUM_SLICES = 3
"""The number of slices that each picture shows."""

_MOST_NAMED = 5
"""The number of cases that a line names."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The summary of an inspection as text, and the page that shows all of it."""

    summary: str
    page: Path


def inspect(dataset: str | int, *, output: Path | None = None, num_pictures: int = 4) -> Inspection:
    """Measures every label map, and writes a page.

    Args:
        dataset: ID or name of a data set in nnUNet_raw.
        output: the page; default: ``inspection.html`` in the data set's folder, which is written anew each time.
        num_pictures: cases to show, those with the most classes.

    Raises:
        CILError: no such data set, a file that cannot be read, an output that exists, or a number out of its range.
    """
    check_whole_number(num_pictures, "--pictures", 0, MAX_PICTURES)
    if output is not None and output.exists():
        raise CILError(f"{output} exists already. Give -o another name.")
    folder = raw_dataset_folder(dataset)
    content = read_dataset_json(folder / "dataset.json")
    cases = measure(folder, content)
    classes = foreground(content)
    facts = [*_facts(content, cases, classes), *_unpaired(folder, content, cases)]
    sections = _sections(cases, classes)
    file = output or folder / "inspection.html"
    with tempfile.TemporaryDirectory() as temporary:
        pictures = _pictures(folder, content, cases, num_pictures, Path(temporary))
        text = page(f"{folder.name}: {len(cases)} cases", facts, sections, pictures)
    with moved_into_place(file) as aside:
        aside.write_text(text, encoding="utf-8")
    lines = [f"{folder.name}: {len(cases)} cases", *facts, "", sections[0].table.markdown()]
    return Inspection(summary="\n".join(lines), page=file)


def foreground(content: Mapping[str, Any]) -> dict[str, int]:
    """Returns the foreground classes of a ``dataset.json``: class -> label."""
    return {name: number for name, number in content["labels"].items() if name not in ("background", "ignore")}


def measure(folder: Path, content: Mapping[str, Any]) -> list[CaseStatistics]:
    """Measures every label map in labelsTr and labelsTs.

    Args:
        folder: of the raw data set.
        content: of its dataset.json.

    Raises:
        CILError: there is none, or one cannot be read.
    """
    ending = content["file_ending"]
    files = [
        (f.name.removesuffix(ending), f, part)
        for part in ("Tr", "Ts")
        for f in sorted((folder / f"labels{part}").glob(f"[!.]*{ending}"))
    ]
    if not files:
        raise CILError(f"{folder / 'labelsTr'} holds no label file that ends with {ending}.")
    measure_one = partial(_measure, numbers=foreground(content))
    return list(in_parallel(measure_one, files, num_processes(), "Measuring"))


def _measure(case: tuple[str, Path, str], numbers: Mapping[str, int]) -> CaseStatistics:
    return case_statistics(*case, numbers)


def _facts(content: Mapping[str, Any], cases: Sequence[CaseStatistics], classes: Mapping[str, int]) -> list[str]:
    """Tells of the whole data set: how many cases, which channels and axes, which sizes, and whether sides look swapped."""
    size, spacing = ranges(cases)
    swapped = swapped_sides(cases, list(classes))
    pairs = twins(list(classes))
    parts = {part: sum(c.part == part for c in cases) for part in ("Tr", "Ts")}
    facts = [
        f"Training cases: {parts['Tr']}; test cases with labels: {parts['Ts']}.",
        f"Channels: {', '.join(content['channel_names'].values())}. Axes: {', '.join(sorted({c.axes for c in cases}))}.",
        f"Size in voxels: {size}. Spacing in mm: {spacing}.",
    ]
    if swapped:
        some = "; ".join(f"{name} in {case}" for case, name in swapped[:_MOST_NAMED])
        facts.append(f"Left and right look swapped {len(swapped)} times: {some}. See the pictures.")
    elif pairs:
        facts.append(f"Left lies left of right in every case, for {len(pairs)} pairs of classes.")
    return facts


def _unpaired(folder: Path, content: Mapping[str, Any], cases: Sequence[CaseStatistics]) -> list[str]:
    """Tells of training images without labels, and of labels without an image. Test images need no labels."""
    if "dataset" in content:  # of files anywhere
        return []
    ending = content["file_ending"]
    labelled = {(case.part, case.name) for case in cases}
    images = {
        (part, f.name.removesuffix(ending).rsplit("_", 1)[0])
        for part in ("Tr", "Ts")
        for f in (folder / f"images{part}").glob(f"[!.]*{ending}")
    }
    unlabelled = sorted(name for part, name in images - labelled if part == "Tr")
    imageless = sorted(name for _, name in labelled - images)
    return [
        f"{what}: {len(names)}, {', '.join(names[:_MOST_NAMED])}{', ...' if names[_MOST_NAMED:] else ''}."
        for what, names in (("Training images without labels", unlabelled), ("Labels without an image", imageless))
        if names
    ]


def _sections(cases: Sequence[CaseStatistics], classes: Mapping[str, int]) -> list[Section]:
    """Makes a table with a row a class, and one with a row a case."""
    per_class = [
        [
            row.name,
            str(classes[row.name]),
            f"{row.num_cases} / {len(cases)}",
            *map(number, (row.smallest_ml, row.median_ml, row.largest_ml)),
        ]
        for row in class_statistics(cases, list(classes))
    ]
    per_case = [
        [
            case.name,
            case.part,
            " x ".join(map(str, case.size)),
            " x ".join(f"{s:.3g}" for s in case.spacing_mm),
            ", ".join(c for c in classes if c not in case.volumes_ml),
            *(number(case.volumes_ml.get(c, float("nan"))) for c in classes),
        ]
        for case in cases
    ]
    return [
        Section(
            "Classes", "Volumes in ml.", Table(["class", "label", "cases", "smallest", "median", "largest"], per_class)
        ),
        Section(
            "Cases",
            "Size in voxels, spacing in mm, volumes in ml.",
            Table(["case", "part", "size", "spacing", "missing", *classes], per_case),
        ),
    ]


def _pictures(
    folder: Path, content: Mapping[str, Any], cases: Sequence[CaseStatistics], num_pictures: int, temporary: Path
) -> list[Picture]:
    """Draws the cases with the most classes; a case whose image is not there is left out."""
    classes = foreground(content)
    table = np.zeros(max(classes.values()) + 1, dtype=np.int16)
    table[list(classes.values())] = np.arange(1, len(classes) + 1)
    ending = content["file_ending"]
    pictures: list[Picture] = []
    for case in sorted(cases, key=lambda c: -len(c.volumes_ml)):
        image_file = folder / f"images{case.part}" / f"{case.name}_0000{ending}"
        if len(pictures) == num_pictures or not image_file.is_file():
            continue
        image, aspect = read_slices(image_file)
        labels, _ = read_slices(folder / f"labels{case.part}" / f"{case.name}{ending}")
        inside = np.where(labels < len(table), labels, 0).astype(int)
        figure = comparison(
            image,
            {"labels": table[inside]},
            list(classes),
            num_slices=NUM_SLICES,
            aspect=aspect,
            title=case.name,
            sides=True,
        )
        file = temporary / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', case.name)}.png"
        figure.savefig(file, dpi=110)
        pictures.append(Picture(file, f"{case.name}: R is the patient's right, L the left."))
    return pictures
