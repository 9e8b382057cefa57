"""The one place that lists the data sets that can be converted (docs/how-to/add-a-data-set.md says how to add one)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_cil.errors import CILError, did_you_mean

if TYPE_CHECKING:
    from nnunet_cil.datasets.download import Dataset

NAMES = {
    "btcv": "BTCV: RawData with Training/img and Training/label",
    "word": "WORD: WORD-V0.1.0",
    "amos22": "AMOS22: amos22",
    "flare22": "FLARE22: FLARE22Train",
    "msd": "a task of the Medical Segmentation Decathlon: Task04_Hippocampus and so on",
    "abdomenct1k": "AbdomenCT-1K: a folder with ImagePart1 to 3 and Mask",
    "totalsegmentator": "TotalSegmentator v2: the folder with meta.csv",
    "chaos": "CHAOS: Train_Sets",
    "acdc": "ACDC: the folder with training and testing",
    "openkbp": "OpenKBP: a clone of https://github.com/ababier/open-kbp",
    "generic": "any folder of images and labels, with --names FILE",
}
"""Name -> the data set and the folder to give. The function ``find`` of the module of this name finds the cases."""

ACCEPTABLE = ("modality", "duplicate", "intensities")
"""Kinds of blocking problems that a user may accept, because the data are meant to be so."""


def find(name: str, source: Path, options: Mapping[str, Any]) -> Dataset:
    """Finds the cases of a download.

    Args:
        name: one of ``NAMES``.
        source: folder of the download.
        options: options that were given; they become keyword arguments of the data set's ``find``.

    Raises:
        CILError: an unknown name, an option that the data set does not take, one that it needs and lacks, or an
            unexpected folder.
    """
    import inspect  # slow to import, and the command line needs only the names

    if name not in NAMES:
        raise CILError(f"There is no converter {name!r}{did_you_mean(name, NAMES)}.")
    function = importlib.import_module(f"nnunet_cil.datasets.{name}").find
    taken = {k: p for k, p in inspect.signature(function).parameters.items() if k != "source"}
    for option in options:
        if option not in taken:
            raise CILError(f"{name} takes no {_flag(option)}{did_you_mean(_flag(option), map(_flag, taken))}.")
    for option, parameter in taken.items():
        if parameter.default is parameter.empty and option not in options:
            raise CILError(f"{name} needs {_flag(option)}.")
    dataset: Dataset = function(source, **options)
    return dataset


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")
