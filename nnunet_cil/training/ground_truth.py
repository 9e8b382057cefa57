"""Ground truth with the model's label numbers, for nnU-Net's final validation."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def write_in_channels(
    source: Path, target: Path, files: Iterable[str], table: npt.NDArray[np.int16], reader_writer: Any
) -> None:
    """Writes ``gt_segmentations`` with mapped labels, and the split, where nnU-Net will look for them.

    Args:
        source: nnU-Net's preprocessed folder of the data set.
        target: takes the same names.
        files: of ``gt_segmentations``.
        table: from ``labels.lookup_table``.
        reader_writer: nnU-Net's, an instance.
    """
    (target / "gt_segmentations").mkdir(parents=True, exist_ok=True)
    if (source / "splits_final.json").is_file():
        shutil.copyfile(source / "splits_final.json", target / "splits_final.json")
    for name in files:
        labels, properties = reader_writer.read_seg(str(source / "gt_segmentations" / name))
        mapped = table[labels[0].astype(np.int64) + 1]
        reader_writer.write_seg(mapped, str(target / "gt_segmentations" / name), properties)
