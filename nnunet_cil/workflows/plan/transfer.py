"""Plans of one data set or model for another data set: what is compared, and what is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import raw_dataset_folder
from nnunet_cil.host.plans_files import configuration_settings, reader_of
from nnunet_cil.host.raw_dataset import RawData, read_raw
from nnunet_cil.workflows.plan.compatibility import Note, Severity, compare, compare_readers


def compare_with_plans(
    raw: RawData, plans: Mapping[str, Any], configurations: Iterable[str], model_channels: Mapping[str, str]
) -> list[Note]:
    """Compares a raw data set with the plans that are going to be used on it.

    Args:
        raw: the data set.
        plans: the plans, as they are on their own data set.
        configurations: that are going to be trained; what is the same for all of them is noted once.
        model_channels: ``channel_names`` of the plans' own dataset.json.
    """
    orientations = _original_orientations(plans)
    channels = raw.dataset_json["channel_names"]
    notes: dict[Note, None] = {}
    for name in configurations:
        settings = configuration_settings(plans, name)
        notes |= dict.fromkeys(compare(plans, settings, model_channels, channels, raw.sample, orientations))
    return [*notes, compare_readers(raw)]


def _original_orientations(plans: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the orientations of the data that the plans were made for; none where these are not in nnUNet_raw."""
    try:
        folder = raw_dataset_folder(str(plans["dataset_name"]))
        return read_raw(folder, read_dataset_json(folder / "dataset.json"), reader_of(plans)).sample.orientations
    except (CILError, NotImplementedError):
        return ()


def refuse_blocking(notes: Sequence[Note], *, force: bool, untrainable: str, doubt: str, option: str) -> None:
    """Refuses what cannot be trained, and what is blocking and not forced.

    Args:
        notes: of the comparison.
        force: the user has seen them.
        untrainable: the message's beginning where the model cannot take the data.
        doubt: its beginning where the data only look wrong.
        option: with which the user forces it.

    Raises:
        CILError: with the texts of these notes.
    """
    for note in notes:
        if note.severity is Severity.UNTRAINABLE:
            raise CILError(f"{untrainable}: {note.text}.")
    blocking = [note.text for note in notes if note.is_blocking]
    if blocking and not force:
        raise CILError(f"{doubt}: {'; '.join(blocking)}. If it is all right, say so with {option}.")
