"""The files of test cases, looked at before anything is trained or predicted: what could not be scored is known in minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cil.content import FileState, file_state
from nnunet_cil.datasets.parallel import in_parallel
from nnunet_cil.errors import CILError, few_names
from nnunet_cil.files import is_cut_off, read_json
from nnunet_cil.host.case_files import case_images, image_cases
from nnunet_cil.host.dataset_json import preprocessed_or_raw, refuse_other_labelled_classes
from nnunet_cil.host.folders import nnunet_folder, num_processes
from nnunet_cil.host.plans_files import reader_of
from nnunet_cil.host.raw_dataset import label_file_names, raw_reader
from nnunet_cil.host.reading.case_grids import CaseFiles, check_grids
from nnunet_cil.host.reading.images import has_colours, read_images, read_labels, whole_numbers
from nnunet_cil.host.reading.readers import dataset_reader, named_reader
from nnunet_cil.labels import all_numbers, check_labelled_classes
from nnunet_cil.workflows.evaluate.cases import TestSet, test_set
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment

CaseOnDisk = tuple[str, tuple[Path, ...], Path | None]
"""The name of a case, the image of each channel, and the reference labels if there are any."""


def check_test_files(
    experiment: Experiment, options: EvaluationOptions, readers: Mapping[str, str] | None = None
) -> list[str]:
    """Reads the test cases of every data set, and refuses what could not be predicted or scored.

    The same files are read once in a process.

    Args:
        experiment: whose models are going to be scored.
        options: which cases.
        readers: the name of nnU-Net's reader of each data set, in the plans of its steps; None where these may not be there.

    Returns:
        Notes on what is taken as it is.

    Raises:
        CILError: an image without labels, or labels without an image; a name without a channel; a missing channel; a file that
            cannot be read; labels on another grid than their image, or with values that dataset.json does not list.
    """
    notes: dict[str, None] = {}
    for name in experiment.data_sets:
        if (test := test_set(name, options)) is not None:
            planned = _planned_reader(experiment, name) if readers is None else readers[name]
            notes |= dict.fromkeys(_check(name, test, planned))
    return list(notes)


def _check(dataset: str, test: TestSet, planned_reader: str) -> tuple[str, ...]:
    content = preprocessed_or_raw(dataset)
    reader = _reader(dataset, content, planned_reader)
    cases = tuple(_paired(test, content, has_colours=has_colours(reader)))
    _check_patterns(dataset, content, {name for name, _, _ in cases})
    return read_case_files(
        cases, reader, len(content["channel_names"]), all_numbers(test.numbers or content["labels"]) | {0}
    )


def read_case_files(
    cases: tuple[CaseOnDisk, ...], reader: Any, num_channels: int, numbers: frozenset[int]
) -> tuple[str, ...]:
    """Reads cases, in parallel, and refuses what could not be predicted or scored; the same files once in a process.

    Args:
        cases: their files.
        reader: an instance of nnU-Net's.
        num_channels: of the images.
        numbers: every value that labels may have.

    Returns:
        Notes on what is taken as it is.

    Raises:
        CILError: a file cannot be read, labels lie on another grid than their image, or have another value.
    """
    states = tuple(file_state(file) for _, images, labels in cases for file in (*images, *([labels] if labels else [])))
    return _read_all(cases, states, type(reader).__name__, num_channels, numbers)


def _check_patterns(dataset: str, content: Mapping[str, Any], tests: set[str]) -> None:
    """Refuses a ``labelled_classes`` that does not say what it means to, now that all cases are known."""
    copies = nnunet_folder("nnUNet_preprocessed") / dataset / "gt_segmentations"
    if (copies.parent / "dataset.json").is_file():
        refuse_other_labelled_classes(dataset, content)
    ending = str(content["file_ending"])
    preprocessed = {f.name.removesuffix(ending) for f in copies.glob(f"[!.]*{ending}")}
    names = label_file_names(dataset, ending, "labelsTr", "labelsTs") | set(content.get("dataset", ()))
    check_labelled_classes(content, tests | preprocessed | names, dataset=dataset)


def _planned_reader(experiment: Experiment, dataset: str) -> str:
    """Returns the name of the reader in the base plans; empty where they are not there yet."""
    file = experiment.base_plans_file(dataset)
    return reader_of(read_json(file, "")) if file.is_file() else ""


def _reader(dataset: str, content: Mapping[str, Any], planned: str) -> Any:
    """Returns an instance of nnU-Net's reader: that of the plans, else the one that nnU-Net is going to choose."""
    if planned:
        return dataset_reader(content, None, planned)
    return raw_reader(nnunet_folder("nnUNet_raw") / dataset, content)


def _paired(test: TestSet, content: Mapping[str, Any], *, has_colours: bool) -> list[CaseOnDisk]:
    """Returns the cases of a test set.

    Args:
        test: folders of images and labels.
        content: of the data set's dataset.json.
        has_colours: whether one file may hold all channels.

    Raises:
        CILError: an image, a channel or labels are missing.
    """
    ending = str(content["file_ending"])
    names = image_cases(test.images, ending)
    if not names:
        raise CILError(f"{test.images} holds no images that end in {ending}. nnU-Net takes CASE_0000{ending}.")
    references = {f.name.removesuffix(ending) for f in test.labels.glob(f"[!.]*{ending}") if f.is_file()}
    _refuse_unpaired(test, ending, names, references)
    images = case_images(test.images, content, has_colours=has_colours)
    return [(case, files, test.labels / f"{case}{ending}") for case, files in images.items()]


def _refuse_unpaired(test: TestSet, ending: str, names: Sequence[str], references: set[str]) -> None:
    """Refuses images without labels, and labels without an image."""
    if without := [name for name in names if name not in references]:
        raise CILError(
            f"Case {without[0]!r} has no reference labels: {test.labels / f'{without[0]}{ending}'} is missing"
            f"{_and_others(without)}. Add it, or move images that have none out of {test.images}."
        )
    if without := sorted(references - set(names)):
        raise CILError(
            f"{test.labels / f'{without[0]}{ending}'} has no image: {test.images / f'{without[0]}_0000{ending}'} is missing"
            f"{_and_others(without)}. Add it, or move such label files out of {test.labels}."
        )


def _and_others(names: Sequence[str]) -> str:
    """Names the cases that have the same fault as the first of them."""
    return f" (so are those of {few_names(names[1:])})" if names[1:] else ""


@lru_cache(maxsize=8)
def _read_all(
    cases: tuple[CaseOnDisk, ...],
    _states: tuple[FileState, ...],  # whether the files are those of the last time
    reader_name: str,
    num_channels: int,
    numbers: frozenset[int],
) -> tuple[str, ...]:
    """Reads all cases, in parallel; returns notes."""
    reader = named_reader(reader_name)
    check_one = partial(_check_case, reader=reader, numbers=numbers)
    for _ in in_parallel(check_one, cases, num_processes(), "Looking at test cases"):
        pass
    grids = {name: CaseFiles(images=images, labels=[labels] if labels else []) for name, images, labels in cases}
    return tuple(check_grids(grids, reader, num_channels, for_training=False))


def _check_case(case: CaseOnDisk, *, reader: Any, numbers: frozenset[int]) -> None:
    """Reads a case, of NIfTI images only what tells whether they are whole; called in another process.

    Raises:
        CILError: a file cannot be read, or the labels have a value that is none of ``numbers``.
    """
    _, images, file = case
    for image in images:
        if not image.name.endswith((".nii", ".nii.gz")):
            read_images([image], reader)
        elif is_cut_off(image):
            raise CILError(f"{image} is cut off or damaged. Restore it.")
    if file is None:
        return
    values = np.unique(whole_numbers(read_labels(file, reader).array, file)).tolist()
    if strange := sorted(set(values) - numbers):
        raise CILError(
            f"{file} holds the label {strange[0]}, which is none of {sorted(numbers)} in dataset.json. Correct the label file."
        )
