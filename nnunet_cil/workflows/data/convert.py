"""``nnunet_cil convert``: a public download, checked as a whole, as an nnU-Net raw data set."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_cil.datasets.archives import is_archive, unpack, unpacked_bytes
from nnunet_cil.datasets.catalogue import ACCEPTABLE, find
from nnunet_cil.datasets.checks import check
from nnunet_cil.datasets.convert import (
    Converted,
    Transfer,
    refuse_other,
    splits,
    write,
)
from nnunet_cil.datasets.download import Dataset
from nnunet_cil.datasets.findings import Findings
from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json_list, temporary_folder, write_json
from nnunet_cil.host.folders import check_room, new_dataset_folder, nnunet_folder, num_processes
from nnunet_cil.host.splits import SPLITS_FILE
from nnunet_cil.locks import Lock
from nnunet_cil.names import is_path_component

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
        accept: kinds of problems, of ``datasets.catalogue.ACCEPTABLE``, that are as they should be.
        report: a file that takes all problems as text, whether or not anything is written.

    Raises:
        CILError: anything that is wrong, before the data set's folder is touched.
    """
    if report is not None and not report.parent.is_dir():
        raise CILError(f"{report.parent} is not a folder, so that --report {report.name} cannot be written there.")
    lock = Lock(nnunet_folder("nnUNet_raw") / f".Dataset{dataset_id:03d}.in_use.json", f"Data set {dataset_id:03d}")
    with lock.held(), _opened(source) as folder:
        _refuse_special_files(folder)
        dataset = find(name, folder, options or {})
        _refuse_elsewhere(dataset, folder, unpacked=folder != source)
        target = new_dataset_folder(dataset_id, dataset.name)
        refuse_other(target, dataset, dataset.cases)
        findings = check(dataset, num_processes=num_processes()).accepting(accept)
        if report is not None:
            report.write_text(findings.text() + "\n", encoding="utf-8")
        if not findings.has_training_cases:
            raise CILError(_nothing_left(findings))
        if leave_out_faulty:
            findings = findings.without_faulty()
        if not findings.is_usable:
            raise CILError(
                f"{len(findings.faulty)} cases of {dataset.name} have problems, and nothing was written. "
                "Mend them, or leave these cases out with --leave-out-faulty.\n" + findings.text(limit=SHOWN)
            )
        _hand_over_splits(target, findings)
        transfer: Transfer = "copy" if copy or _has_links(folder, source) else "move" if folder != source else "link"
        converted = write(findings, target, transfer=transfer, num_processes=num_processes())
    return Conversion(findings=findings, converted=converted)


def _nothing_left(findings: Findings) -> str:
    """Says why no training case can be converted, with all that was found."""
    name = findings.dataset.name
    if any(case.part == "train" for case in findings.dataset.cases):
        kinds = sorted({p.kind for p in findings.problems if p.blocking})
        remedy = "Mend them."
        if set(kinds) <= set(ACCEPTABLE):
            remedy = f"Mend them, or if the data are meant to be so, say so with '--accept {' '.join(kinds)}'."
        said = f"No training case of {name} is without problems, and nothing was written. {remedy}"
    else:
        said = f"The download holds no training case of {name} with labels, and nothing was written."
    if not findings.problems:
        return f"{said} None of its files is called as those of {name}: compare them with the data set's page."
    return f"{said}\n{findings.text(limit=SHOWN)}"


def _refuse_special_files(folder: Path) -> None:
    """Refuses pipes, sockets and devices in a download, which it would wait for, or read without an end.

    Raises:
        CILError: names the first one.
    """
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            mode = os.lstat(os.path.join(at, name)).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
                raise CILError(
                    f"{os.path.join(at, name)} is no file, but a pipe, a socket or a device. Remove it, or give the "
                    "download's own folder."
                )


def _refuse_elsewhere(dataset: Dataset, folder: Path, *, unpacked: bool) -> None:
    """Refuses cases whose files are not in the download, as its own lists can say, and names that would be a path.

    Args:
        dataset: as it was found.
        folder: of the download.
        unpacked: whether it comes from an archive, where links lead nowhere else either.

    Raises:
        CILError: names the case and the file.
    """
    inside = Path(os.path.abspath(folder))
    for case in dataset.cases:
        if not is_path_component(case.name):
            raise CILError(
                f"{dataset.name} calls a case {case.name!r}, which is no name of a file. Correct the download."
            )
        for file in (f for source in (*case.images, case.labels) for f in source.files):
            is_inside = Path(os.path.abspath(file)).is_relative_to(inside)
            if not is_inside or (unpacked and not file.resolve().is_relative_to(inside.resolve())):
                raise CILError(
                    f"Case {case.name!r} of {dataset.name} names {file}, which is not in the download. Correct the list of cases "
                    "there, or remove the case."
                )


def _has_links(folder: Path, source: Path) -> bool:
    """Returns whether files of an archive have several names: none of them may be moved away then."""
    return folder != source and any(
        p.is_symlink() or (p.is_file() and p.stat().st_nlink > 1) for p in folder.rglob("*")
    )


@contextmanager
def _opened(source: Path) -> Iterator[Path]:
    """Gives the folder itself; an archive is unpacked beside the data sets for as long as it is read."""
    if not is_archive(source):
        yield source
        return
    raw = nnunet_folder("nnUNet_raw")
    check_room(raw, unpacked_bytes(source))
    with temporary_folder(raw, "unpacked") as folder:
        unpack(source, folder)
        yield folder


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
