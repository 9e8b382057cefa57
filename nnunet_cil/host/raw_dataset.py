"""Raw data sets as nnU-Net finds and reads them: the files of each case, and a sample of the images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.errors import CILError
from nnunet_cil.host.case_files import check_files, first_images, training_files
from nnunet_cil.host.dataset_json import IN_COLOUR, read_dataset_json
from nnunet_cil.host.folders import nnunet_folder
from nnunet_cil.host.reading.images import has_colours, read_images
from nnunet_cil.host.reading.readers import dataset_reader

SAMPLE_SIZE = 10
"""How many cases are read for a sample."""

_SAMPLED_VOXELS = 100_000
"""About how many voxels of each case and channel are kept."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A few cases of a data set as nnU-Net reads them.

    Attributes:
        spacings_mm: (cases, 3), as nnU-Net's reader gives them.
        in_mm: whether the files say the spacing.
        shapes: (cases, 3).
        orientations: three letters a case, as SimpleITK names them, as the reader turns the images; empty for formats that have
            none.
        images: a few voxels of each case, (channels, voxels).
        num_cases: the number of cases in the whole data set.
    """

    spacings_mm: npt.NDArray[np.float64]
    in_mm: bool
    shapes: npt.NDArray[np.int64]
    orientations: tuple[str, ...]
    images: list[npt.NDArray[np.float32]]
    num_cases: int


@dataclass(frozen=True, kw_only=True)
class RawData:
    """A raw data set, with the files of its training cases.

    Attributes:
        folder: in nnUNet_raw.
        dataset_json: the content of its dataset.json.
        cases: case -> its files, under ``images`` (a list) and ``label``, as nnU-Net finds them.
        plans_reader: the reader of the plans that are going to be used on it; empty where there are none.
    """

    folder: Path
    dataset_json: Mapping[str, Any]
    cases: Mapping[str, Mapping[str, Any]]
    plans_reader: str = ""

    @cached_property
    def reader(self) -> Any:
        """An instance of nnU-Net's reader."""
        example = next(iter(self.cases.values()))["images"][0]
        return dataset_reader(self.dataset_json, Path(example), self.plans_reader)

    @cached_property
    def sample(self) -> Sample:
        """A few of its cases."""
        return read_sample([files["images"] for files in self.cases.values()], self.reader)


def read_raw(folder: Path, dataset_json: Mapping[str, Any], plans_reader: str = "") -> RawData:
    """Finds the training cases of a raw data set.

    Args:
        folder: see ``RawData``, as the other arguments.
        dataset_json: the content of its dataset.json.
        plans_reader: the reader of the plans that are going to be used on it.

    Raises:
        CILError: there are none, or one lacks a file or has one too many.
    """
    cases = training_files(folder, dataset_json)
    if not cases:
        raise CILError(f"{folder} has no training case. Images belong in imagesTr, label files in labelsTr.")
    raw = RawData(folder=folder, dataset_json=dataset_json, cases=cases, plans_reader=plans_reader)
    in_colour = str(dataset_json["file_ending"]).lower() in IN_COLOUR and has_colours(raw.reader)
    for case, files in cases.items():
        check_files(case, files["images"], files["label"], dataset_json, folder.name, has_colours=in_colour)
    return raw


def label_file_names(dataset: str, ending: str, *parts: str) -> set[str]:
    """Returns the names of the cases that have a label file in nnUNet_raw; none where the data set is not there.

    Args:
        dataset: nnU-Net's name.
        ending: of the files' names.
        parts: the folders to look into, labelsTr or labelsTs.
    """
    raw = Path(os.environ.get("nnUNet_raw", os.devnull)) / dataset
    files = (f for part in parts if (raw / part).is_dir() for f in (raw / part).iterdir())
    return {f.name.removesuffix(ending) for f in files if f.name.endswith(ending) and not f.name.startswith(".")}


def raw_reader(folder: Path, dataset_json: Mapping[str, Any]) -> Any:
    """Returns an instance of nnU-Net's reader for a raw data set, which need not be complete.

    Raises:
        CILError: no reader of nnU-Net reads the first image, or where there is none the first label file.
    """
    ending = dataset_json["file_ending"]
    files = (f for part in ("imagesTr", "labelsTr", "labelsTs") for f in sorted((folder / part).glob(f"[!.]*{ending}")))
    listed = first_images(folder, dataset_json).values()
    return dataset_reader(dataset_json, next(chain((f for f in listed if f.is_file()), files), None))


def read_raw_if_there(dataset: str) -> RawData | None:
    """Returns the raw data set of a name; None where nnUNet_raw does not hold all of it, which training does not need."""
    try:
        folder = nnunet_folder("nnUNet_raw") / dataset
        return read_raw(folder, read_dataset_json(folder / "dataset.json"))
    except (CILError, NotImplementedError):
        return None


def read_sample(cases: Sequence[Sequence[str]], reader: Any) -> Sample:
    """Reads up to ``SAMPLE_SIZE`` cases, spread over the data set.

    Args:
        cases: the image files of each case.
        reader: an instance of one of nnU-Net's readers.

    Raises:
        CILError: the reader cannot read a file.
    """
    from tqdm import tqdm

    chosen = [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, SAMPLE_SIZE).astype(int))]
    grids, images = [], []
    for files in tqdm(chosen, desc="Looking at images", leave=False):
        image = read_images([Path(file) for file in files], reader)
        grids.append(image.grid)
        flat = image.array.reshape(len(image.array), -1)
        images.append(flat[:, :: max(1, flat.shape[1] // _SAMPLED_VOXELS)].astype(np.float32))
    return Sample(
        spacings_mm=np.array([grid.spacing for grid in grids]),
        in_mm=all(grid.in_mm for grid in grids),
        shapes=np.array([grid.shape for grid in grids]),
        orientations=tuple(grid.orientation for grid in grids if grid.orientation),
        images=images,
        num_cases=len(cases),
    )
