"""Reading and checking nnU-Net's dataset.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json
from nnunet_cil.host.folders import nnunet_folder, raw_dataset_folder


def read_dataset_json(file: Path, remedy: str = "Every data set of nnU-Net has one.") -> dict[str, Any]:
    """Reads a ``dataset.json`` of nnU-Net v2; ``channel_names`` may be called ``modality`` there, as in nnU-Net.

    Raises:
        CILError: the file is missing, or lacks what nnU-Net needs.
    """
    content = read_json(file, remedy)
    if "modality" in content:
        content.setdefault("channel_names", content["modality"])
    for key in ("channel_names", "labels", "file_ending"):
        if key not in content:
            raise CILError(f"{file} lacks {key!r}, which every data set of nnU-Net v2 has. Add it.")
    for name, number in content["labels"].items():
        if not isinstance(number, (int, list, tuple)):
            raise CILError(
                f"{file} has labels as nnU-Net v1 wanted them ({name!r}: {number!r}). Write the name first: "
                f"{number!r}: {name}."
            )
    return content


def preprocessed_or_raw(dataset: str) -> dict[str, Any]:
    """Reads a data set's dataset.json: the preprocessed one, which training reads, or else the raw one.

    Args:
        dataset: nnU-Net's name.

    Raises:
        CILError: neither is there, or it lacks what nnU-Net needs.
    """
    file = nnunet_folder("nnUNet_preprocessed") / dataset / "dataset.json"
    if not file.is_file():
        file = raw_dataset_folder(dataset) / "dataset.json"
    return read_dataset_json(file)
