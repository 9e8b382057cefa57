"""``nnunet_cil compare``: what two models call the same voxels of the same images, as a page and as files."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_cil.content import file_sha256
from nnunet_cil.datasets.parallel import in_parallel
from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.compared_cases import ComparedCase, change_table, compare_case
from nnunet_cil.evaluation.comparison_page import comparison_page, comparison_text
from nnunet_cil.evaluation.comparison_summary import comparison_summary
from nnunet_cil.evaluation.results import without_nan
from nnunet_cil.evaluation.scores import write_csv
from nnunet_cil.files import json_sha256, read_json, shortened, write_json, write_text
from nnunet_cil.host.folders import num_processes
from nnunet_cil.host.reading.spacings import has_spacing_beside, spacing_file
from nnunet_cil.limits import COMPARED_PICTURES, MAX_PICTURES, check_device, check_whole_number, is_number
from nnunet_cil.locks import Lock
from nnunet_cil.workflows.compare.cases import (
    check_classes_labelled,
    check_files,
    check_output,
    compared_cases,
    found_images,
    found_references,
    predicted,
)
from nnunet_cil.workflows.compare.pictures import draw_cases
from nnunet_cil.workflows.compare.sides import Side, check_comparable, read_side
from nnunet_cil.workflows.versions import versions

SCHEMA_VERSION = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Says what is compared, and where the results go.

    Attributes:
        model_a: the model in use: its folder, or a folder of its predictions.
        model_b: the model that is to replace it, alike.
        output: folder that takes everything.
        images: folder of images; not needed where both are folders of predictions.
        labels: folder of reference labels; None where there are none.
        folds: that predict together, of both models; empty for all that are trained.
        fail_below: the mean Dice of the two models that no class of A may be below; None for none.
        device: for predictions.
        num_pictures: the most cases to draw.
        trusted: packages besides nnU-Net's own whose classes the models' plans may name.
    """

    model_a: Path
    model_b: Path
    output: Path
    images: Path | None = None
    labels: Path | None = None
    folds: tuple[str, ...] = ()
    fail_below: float | None = None
    device: str = "cuda"
    num_pictures: int = COMPARED_PICTURES
    trusted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses numbers out of their range.

        Raises:
            CILError: says which.
        """
        if self.fail_below is not None and not is_number(self.fail_below, 0, 1):
            raise CILError(f"--fail-below is {shortened(self.fail_below)}, but must be a Dice: a number from 0 to 1.")
        check_whole_number(self.num_pictures, "--pictures", 0, MAX_PICTURES)
        check_device(self.device)

    @property
    def command(self) -> str:
        """Returns the command as one would type it."""
        given: dict[str, Sequence[object]] = {
            "-i": [self.images] if self.images else [],
            "-l": [self.labels] if self.labels else [],
            "-o": [self.output],
            "--fail-below": [] if self.fail_below is None else [self.fail_below],
            "--pictures": [] if self.num_pictures == COMPARED_PICTURES else [self.num_pictures],
            "-device": [] if self.device == "cuda" else [self.device],
            "-f": self.folds,
            "--trust-package": self.trusted,
        }
        words = [str(word) for option, values in given.items() if values for word in (option, *values)]
        return shlex.join(["nnunet_cil", "compare", str(self.model_a), str(self.model_b), *words])


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Holds what was found.

    Attributes:
        content: of ``comparison.json``, with NaN.
        records: of the cases.
        text: what is printed.
        page: the file of the page.
    """

    content: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    text: str
    page: Path

    @property
    def is_below(self) -> bool:
        """Tells whether a class of A is below the threshold that was asked for."""
        return bool(self.content["below"])


def compare(options: CompareOptions) -> Comparison:
    """Predicts where a model is given, and compares; what is there already is not done again.

    Raises:
        CILError: something cannot be compared; all but what only predictions show before anything is predicted.
    """
    a = read_side("A", options.model_a, options.folds, options.trusted)
    b = read_side("B", options.model_b, options.folds, options.trusted)
    for note in check_comparable(a, b):
        logger.info(note)
    images = found_images(a, b, options.images)
    references = found_references(options.labels, list(images), a.file_ending)
    check_classes_labelled(a, b, references)
    check_output((a, b), options.labels, options.output)
    notes, reader = check_files(images, references, (a, b))
    for note in notes:
        logger.info(f"Note: {note}")
    with Lock(options.output / ".in_use.json", str(options.output)).held():
        files: list[dict[str, Path]] = []
        for side in (a, b):
            if side.is_model:
                logger.info(f"{side.name}: {side.path}, fold {', '.join(side.folds)}, {len(images)} cases")
            files.append(predicted(side, list(images), options.images, options.output, options.device))
        cases = compared_cases(images, files[0], files[1], references)
        return compare_cases(
            cases,
            (a, b),
            reader,
            options.output,
            command=options.command,
            fail_below=options.fail_below,
            num_pictures=options.num_pictures,
        )


def compare_cases(
    cases: Sequence[ComparedCase],
    sides: tuple[Side, Side],
    reader: Any,
    output: Path,
    *,
    command: str,
    fail_below: float | None = None,
    num_pictures: int = COMPARED_PICTURES,
) -> Comparison:
    """Compares cases that both models have predicted, and writes all files.

    Args:
        cases: their files.
        sides: A and B.
        reader: an instance of nnU-Net's, that reads all files.
        output: folder.
        command: that did this, for the page.
        fail_below: as of ``CompareOptions``.
        num_pictures: as of ``CompareOptions``.

    Raises:
        CILError: a file is missing or unreadable, or a grid or a label is not what it should be.
    """
    records = _records(cases, sides, reader, output)
    content = {
        "schema_version": SCHEMA_VERSION,
        "model_a": sides[0].to_json(),
        "model_b": sides[1].to_json(),
        **comparison_summary(records, fail_below),
        "command": command,
        "versions": versions(),
    }
    if content["distance_unit"] == "voxels":
        logger.info("Note: the files do not say how large a voxel is. Distances and volumes are in voxels.")
    _write_tables(output, content, records)
    by_name = {case.name: case for case in cases}
    changed = [c for c in content["cases"] if c["moved_voxels"]][:num_pictures]
    pictures = draw_cases(output, [(by_name[c["case"]], c) for c in changed], sides, reader)
    page = output / "comparison.html"
    write_text(page, comparison_page(content, pictures))
    return Comparison(content=content, records=records, text=comparison_text(content), page=page)


def _records(
    cases: Sequence[ComparedCase], sides: tuple[Side, Side], reader: Any, output: Path
) -> list[dict[str, Any]]:
    """Compares every case, in parallel; one that was compared before is taken from there."""
    stored = {case.name: output / "cases" / f"{case.name}.json" for case in cases}
    compared_from = {case.name: _compared_from(case, sides, reader) for case in cases}
    todo = [case for case in cases if _stored_record(stored[case.name], compared_from[case.name]) is None]
    compare_one = partial(compare_case, labels_a=sides[0].labels, labels_b=sides[1].labels, reader=reader)
    for case, record in zip(todo, in_parallel(compare_one, todo, num_processes(), "Comparing"), strict=True):
        write_json(stored[case.name], {"compared_from": compared_from[case.name], "record": record})
    records = [_stored_record(stored[case.name], compared_from[case.name]) for case in cases]
    return [record for record in records if record is not None]


def _compared_from(case: ComparedCase, sides: tuple[Side, Side], reader: Any) -> str:
    """Returns a SHA-256 of all that a case's record depends on.

    Raises:
        CILError: a file is missing.
    """
    files = [case.a, case.b, *([case.reference.file] if case.reference else [])]
    for file in files:
        if not file.is_file():
            raise CILError(f"{file} is missing. Restore it, or predict it again.")
    if has_spacing_beside(reader):
        files += [
            f for f in (spacing_file(case.image, is_image=True), spacing_file(case.a, is_image=False)) if f.is_file()
        ]
    reference = case.reference and {"labels": dict(case.reference.labels), "classes": list(case.reference.classes)}
    return json_sha256(
        {
            "schema_version": SCHEMA_VERSION,
            "files": [file_sha256(file) for file in files],
            "labels": [side.labels for side in sides],
            "reference": reference,
            "reader": type(reader).__name__,
        }
    )


def _stored_record(file: Path, compared_from: str) -> dict[str, Any] | None:
    """Returns the record of a case, if it is of these files."""
    try:
        known = read_json(file, "")
    except CILError:  # none, or a damaged one
        return None
    record: dict[str, Any] | None = known.get("record")
    return record if known.get("compared_from") == compared_from else None


def _write_tables(output: Path, content: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
    """Writes ``comparison.json``, ``per_case.csv`` and ``moved.csv``; the page of an earlier comparison goes."""
    from pandas import DataFrame

    (output / "comparison.html").unlink(missing_ok=True)
    write_csv(output / "per_case.csv", change_table(records))
    moved = [
        {"case": r["case"], "a": a, "b": b, "num_voxels": voxels, "volume_ml": voxels * r["voxel_ml"]}
        for r in records
        for a, b, voxels in r["moved"]
    ]
    write_csv(output / "moved.csv", DataFrame(moved, columns=["case", "a", "b", "num_voxels", "volume_ml"]))
    write_json(output / "comparison.json", without_nan(content))
