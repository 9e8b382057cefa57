"""Whether a data set suits the plans of another one: what is compared, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json
from nnunet_cil.host.folders import raw_dataset_folder
from nnunet_cil.host.plans_files import reader_of
from nnunet_cil.host.raw_dataset import read_raw
from nnunet_cil.workflows.plan.compatibility import Remark


def orientations_of(plans: Mapping[str, Any]) -> tuple[str, ...]:
    """Of the data that the plans were made for, where they are in nnUNet_raw."""
    try:
        raw = raw_dataset_folder(str(plans["dataset_name"]))
        return read_raw(raw, read_json(raw / "dataset.json", ""), reader_of(plans)).sample.orientations
    except CILError:
        return ()


def refuse_danger(remarks: Sequence[Remark], *, force: bool, misfit: str, doubt: str, option: str) -> None:
    """Refuses what cannot be trained, and what is dangerous and not forced.

    Args:
        remarks: what ``fit`` says.
        force: the user has seen it.
        misfit: the sentence's beginning where the number of channels differs.
        doubt: its beginning where it is only dangerous.
        option: with which the user forces it.
    """
    dangers = [r.text for r in remarks if r.is_dangerous]
    if any(text.startswith("channels: the model takes") for text in dangers):
        raise CILError(f"{misfit}: {dangers[0]}.")
    if dangers and not force:
        raise CILError(f"{doubt}: {'; '.join(dangers)}. If it is all right, say so with {option}.")
