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
    unit_of,
)
from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.figures import comparison
from nnunet_cil.evaluation.report import Picture, page
from nnunet_cil.evaluation.summary import Section
from nnunet_cil.evaluation.tables import Table, number
from nnunet_cil.files import write_text
from nnunet_cil.host.case_files import labelled_cases
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import num_processes, raw_dataset_folder
from nnunet_cil.host.raw_dataset import raw_reader
from nnunet_cil.host.reading.images import as_seen, read_images, read_labels
from nnunet_cil.labels import NO_CLASSES, Label, all_numbers, numbers_in
from nnunet_cil.limits import INSPECTED_PICTURES, MAX_PICTURES, check_whole_number

NUM_SLICES = 3
"""The number of slices that each picture shows."""

_MOST_NAMED = 5
"""The number of cases that a line names."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The summary of an inspection as text, and the page that shows all of it."""

    summary: str
    page: Path


def inspect(dataset: str | int, *, output: Path | None = None, num_pictures: int = INSPECTED_PICTURES) -> Inspection:
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
    reader = raw_reader(folder, content)
    cases = measure(folder, content, reader)
    classes = foreground(content)
    facts = [*_facts(content, cases, classes), *_unpaired(folder, content, cases)]
    sections = _sections(cases, classes)
    file = output or folder / "inspection.html"
    with tempfile.TemporaryDirectory() as temporary:
        pictures = _pictures(folder, content, cases, reader, num_pictures, Path(temporary))
        text = page(f"{folder.name}: {len(cases)} cases", facts, sections, pictures)
    write_text(file, text)
    lines = [f"{folder.name}: {len(cases)} cases", *facts, "", sections[0].table.markdown()]
    return Inspection(summary="\n".join(lines), page=file)


def foreground(content: Mapping[str, Any]) -> dict[str, Label]:
    """Returns the foreground classes of a ``dataset.json``: class -> label, or region."""
    return {name: number for name, number in content["labels"].items() if name not in NO_CLASSES}


def measure(folder: Path, content: Mapping[str, Any], reader: Any) -> list[CaseStatistics]:
    """Measures every label map of the training and test cases.

    Args:
        folder: of the raw data set.
        content: of its dataset.json.
        reader: an instance of nnU-Net's, that reads it.

    Raises:
        CILError: there is none, or one cannot be read.
    """
    files = [(case.name, case.labels, case.part) for case in labelled_cases(folder, content)]
    if not files:
        raise CILError(f"{folder / 'labelsTr'} holds no label file that ends with {content['file_ending']}.")
    measure_one = partial(_measure, numbers=foreground(content), reader=reader, ignore=content["labels"].get("ignore"))
    return list(in_parallel(measure_one, files, num_processes(), "Measuring"))


def _measure(
    case: tuple[str, Path, str], numbers: Mapping[str, Label], reader: Any, ignore: int | None
) -> CaseStatistics:
    return case_statistics(*case, numbers, reader, ignore)


def _facts(content: Mapping[str, Any], cases: Sequence[CaseStatistics], classes: Mapping[str, Label]) -> list[str]:
    """Tells of the whole data set: how many cases, which channels and axes, which sizes, and whether sides look swapped."""
    size, spacing = ranges(cases)
    parts = {part: sum(c.part == part for c in cases) for part in ("Tr", "Ts")}
    axes = sorted({c.axes for c in cases if c.axes})
    unknown = sum(not c.spacing_mm for c in cases)
    where = f" (not known of {unknown} cases)" if spacing and unknown else ""
    return [
        f"Training cases: {parts['Tr']}; test cases with labels: {parts['Ts']}.",
        f"Channels: {', '.join(content['channel_names'].values())}. Axes: {', '.join(axes) or 'not known'}.",
        f"Size in voxels: {size}. Spacing in mm: {spacing or 'not known'}{where}.",
        *_unlisted(cases),
        *_sides(cases, list(classes)),
    ]


def _unlisted(cases: Sequence[CaseStatistics]) -> list[str]:
    """Tells which label files hold numbers that dataset.json does not list: nothing can be trained with them."""
    found = [f"{case.name} ({', '.join(map(str, case.unlisted[:_MOST_NAMED]))})" for case in cases if case.unlisted]
    if not found:
        return []
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return [
        f"Labels that dataset.json does not list: in {', '.join(found[:_MOST_NAMED])}{more}. Correct these label files."
    ]


def _sides(cases: Sequence[CaseStatistics], classes: Sequence[str]) -> list[str]:
    """Tells whether left and right look swapped, where files say which side is left."""
    pairs, told = twins(classes), [case for case in cases if case.axes]
    if not pairs or not told:
        return ["The files do not say which side is left, so that nothing is said of sides."] if pairs else []
    swapped = swapped_sides(told, classes)
    if swapped:
        some = "; ".join(f"{name} in {case}" for case, name in swapped[:_MOST_NAMED])
        return [f"Left and right look swapped {len(swapped)} times: {some}. See the pictures."]
    where = "" if len(told) == len(cases) else " that says which side is left"
    return [f"Left lies left of right in every case{where}, for {len(pairs)} pairs of classes."]


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


def _sections(cases: Sequence[CaseStatistics], classes: Mapping[str, Label]) -> list[Section]:
    """Makes a table with a row a class, and one with a row a case."""
    unit = unit_of(cases)
    extents = {"ml": "Volumes in ml", "mm2": "Areas in mm2"}.get(unit, "Sizes in voxels")
    per_class = [
        [
            row.name,
            ", ".join(map(str, numbers_in(classes[row.name]))),
            f"{row.num_cases} / {len(cases)}",
            *map(number, (row.smallest, row.median, row.largest)),
        ]
        for row in class_statistics(cases, list(classes))
    ]
    per_case = [
        [
            case.name,
            case.part,
            " x ".join(map(str, case.size)),
            " x ".join(f"{s:.3g}" for s in case.spacing_mm),
            ", ".join(c for c in classes if c not in case.num_voxels),
            *(number(case.extents(unit).get(c, float("nan"))) for c in classes),
        ]
        for case in cases
    ]
    return [
        Section(
            "Classes", f"{extents}.", Table(["class", "label", "cases", "smallest", "median", "largest"], per_class)
        ),
        Section(
            "Cases",
            f"Size in voxels, spacing in mm. {extents}.",
            Table(["case", "part", "size", "spacing", "missing", *classes], per_case, num_labels=2),
        ),
    ]


def _pictures(
    folder: Path,
    content: Mapping[str, Any],
    cases: Sequence[CaseStatistics],
    reader: Any,
    num_pictures: int,
    temporary: Path,
) -> list[Picture]:
    """Draws the cases with the most classes; a case whose image is not there is left out."""
    classes = foreground(content)
    table = np.zeros(max(all_numbers(classes)) + 1, dtype=np.int16)
    for index, label in enumerate(classes.values(), start=1):  # a later region covers an earlier one
        table[list(numbers_in(label))] = index
    files = {(found.part, found.name): found for found in labelled_cases(folder, content)}
    pictures: list[Picture] = []
    for case in sorted(cases, key=lambda c: -len(c.num_voxels)):
        found = files[case.part, case.name]
        if len(pictures) == num_pictures or not found.image.is_file():
            continue
        image, label_map = read_images([found.image], reader), read_labels(found.labels, reader)
        if image.grid.shape != label_map.grid.shape:
            ours, theirs = (" x ".join(map(str, g.size)) for g in (image.grid, label_map.grid))
            raise CILError(
                f"The image of case {case.name!r} is {ours} voxels, its labels are {theirs}. Correct one of them."
            )
        (slices, aspect), (labels, _) = as_seen(image), as_seen(label_map)
        inside = np.where((labels > 0) & (labels < len(table)), labels, 0).astype(int)
        figure = comparison(
            slices,
            {"labels": table[inside]},
            list(classes),
            num_slices=NUM_SLICES,
            aspect=aspect,
            title=case.name,
            sides=bool(image.grid.orientation),
        )
        file = temporary / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', case.name)}.png"
        figure.savefig(file, dpi=110)
        text = ": R is the patient's right, L the left." if image.grid.orientation else ", as it is stored."
        pictures.append(Picture(file, f"{case.name}{text}"))
    return pictures
