"""The grids of a data set's training cases: looked at before anything is planned or trained."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_cil.host.case_files import training_files
from nnunet_cil.host.folders import nnunet_folder
from nnunet_cil.host.raw_dataset import RawData
from nnunet_cil.host.reading.case_grids import CaseFiles, check_grids

logger = logging.getLogger(__name__)


def check_training_grids(dataset: str, dataset_json: Mapping[str, Any], reader: str) -> None:
    """Refuses training cases that cannot be trained on or scored, and logs what is taken as it is.

    Args:
        dataset: nnU-Net's name; cases whose raw files are gone are not looked at.
        dataset_json: of the data set.
        reader: the name of the reader in its plans; empty where there are none.

    Raises:
        CILError: names the case, and what to correct.
    """
    if not os.environ.get("nnUNet_raw"):
        return
    folder = nnunet_folder("nnUNet_raw") / dataset
    if not (folder / "imagesTr").is_dir() and "dataset" not in dataset_json:
        return
    cases = training_files(folder, dataset_json)
    there = {case: f for case, f in cases.items() if all(Path(file).is_file() for file in (*f["images"], f["label"]))}
    if there:
        check_raw_grids(RawData(folder=folder, dataset_json=dataset_json, cases=there, plans_reader=reader))


def check_raw_grids(raw: RawData) -> None:
    """Does the same with a raw data set.

    Raises:
        CILError: as above.
    """
    copies = Path(os.environ.get("nnUNet_preprocessed", "")) / raw.folder.name / "gt_segmentations"  # which are scored
    cases = {
        case: CaseFiles(
            images=[Path(file) for file in files["images"]],
            labels=[
                f for f in (Path(files["label"]), copies / f"{case}{raw.dataset_json['file_ending']}") if f.is_file()
            ],
        )
        for case, files in raw.cases.items()
    }
    for note in check_grids(cases, raw.reader, len(raw.dataset_json["channel_names"]), for_training=True):
        logger.info(f"Note on {raw.folder.name}: {note}")
