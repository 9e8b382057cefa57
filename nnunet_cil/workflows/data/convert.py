"""``nnunet_cil convert``: a public download, checked as a whole, as an nnU-Net raw data set."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_cil.datasets.archives import is_archive, unpack, unpacked_bytes
from nnunet_cil.datasets.catalogue import find
from nnunet_cil.datasets.checks import check
from nnunet_cil.datasets.convert import (
    Converted,
    Transfer,
    refuse_other,
    splits,
    write,
)
from nnunet_cil.datasets.findings import Findings
from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json_list, write_json
from nnunet_cil.host.folders import check_room, new_dataset_folder, nnunet_folder, num_processes
from nnunet_cil.host.splits import SPLITS_FILE

SHOWN = 5
"""The number of problems of one kind that a message shows; a report has them all."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """The findings of a conversion, and the data set that was written."""

    findings: Findings
    converted: Converted


def convert(
    name: str,
    source: Path,
    dataset_id: int,
    *,
    options: Mapping[str, Any] | None = None,
    copy: bool = False,
    leave_out_faulty: bool = False,
    accept: Collection[str] = (),
    report: Path | None = None,
) -> Conversion:
    """Checks every case, then writes ``nnUNet_raw/DatasetXXX_NAME``. A second call goes on where the first stopped.

    Args:
        name: the data set's, one of ``datasets.catalogue.NAMES``.
        source: the download: its folder, or the archive.
        dataset_id: the ID that it gets in nnU-Net.
        options: what the data set's ``find`` takes.
        copy: whether to copy images that could be linked.
        leave_out_faulty: whether to convert the cases without blocking problems where others have some.
        accept: kinds of problems, of ``findings.ACCEPTABLE``, that are as they should be.
        report: a file that takes all problems as text, whether or not anything is written.

    Raises:
        CILError: anything that is wrong, before the data set's folder is touched.
    """
    if report is not None and not report.parent.is_dir():
        raise CILError(f"{report.parent} is not a folder, so that --report {report.name} cannot be written there.")
    with _opened(source) as folder:
        dataset = find(name, folder, options or {})
        target = new_dataset_folder(dataset_id, dataset.name)
        refuse_other(target, dataset, dataset.cases)
        findings = check(dataset, num_processes=num_processes()).accepting(accept)
        if report is not None:
            report.write_text(findings.text() + "\n", encoding="utf-8")
        if leave_out_faulty:
            findings = findings.without_faulty()
            if not any(e.case.part == "train" for e in findings.examined):
                raise CILError(f"No training case of {dataset.name} is without problems.\n{findings.text(limit=SHOWN)}")
        if not findings.is_usable:
            raise CILError(
                f"{len(findings.faulty)} cases of {dataset.name} have problems, and nothing was written. "
                "Mend them, or leave these cases out with --leave-out-faulty.\n" + findings.text(limit=SHOWN)
            )
        _hand_over_splits(target, findings)
        transfer: Transfer = "copy" if copy else "move" if folder != source else "link"
        converted = write(findings, target, transfer=transfer, num_processes=num_processes())
    return Conversion(findings=findings, converted=converted)


@contextmanager
def _opened(source: Path) -> Iterator[Path]:
    """Gives the folder itself; an archive is unpacked beside the data sets for as long as it is read."""
    if not is_archive(source):
        yield source
        return
    raw = nnunet_folder("nnUNet_raw")
    check_room(raw, unpacked_bytes(source))
    folder = Path(tempfile.mkdtemp(prefix=".unpacked_", dir=raw))
    try:
        unpack(source, folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _hand_over_splits(target: Path, findings: Findings) -> None:
    """Puts the data set's split where nnU-Net looks for it; without nnUNet_preprocessed it stays in the raw folder."""
    folds = splits([e.case for e in findings.examined])
    earlier = target / SPLITS_FILE
    if earlier.is_file() and read_json_list(earlier, "Remove it.") != folds:
        raise CILError(
            f"{target} was converted with another split. Remove {earlier}, and the file of that name in nnUNet_preprocessed, or "
            "choose another data set ID."
        )
    if not folds or not os.environ.get("nnUNet_preprocessed"):
        return
    file = nnunet_folder("nnUNet_preprocessed") / target.name / SPLITS_FILE
    if file.is_file() and read_json_list(file, "Remove it.") != folds:
        raise CILError(f"{file} holds another split than the data set's. Remove it, or choose another data set ID.")
    file.parent.mkdir(exist_ok=True)
    write_json(file, folds)
