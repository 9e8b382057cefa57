"""The compatibility of a trained model and a data set: what differs, in numbers, before anything is preprocessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from nnunet_cil.host.raw_dataset import RawData, Sample

MAX_SPACING_RATIO = 3.0
"""The largest ratio of the data set's median spacing and the model's, along any axis, that does not block."""

MIN_SHARE_IN_WINDOW = 0.01
"""The smallest share of a CT's voxels within the range of intensities that the model's organs had."""

MIN_RANGE_RATIO = 0.1
"""The smallest ratio of the range of a CT's intensities and that of the model's organs; below it, they were rescaled."""


class Severity(Enum):
    """The meaning of a difference for a training."""

    INFORMATION = "information"
    BLOCKING = "blocking"
    """Refused unless the user forces it."""
    UNTRAINABLE = "untrainable"
    """Refused always: the model cannot take the data."""


@dataclass(frozen=True)
class Note:
    """A comparison in numbers, and its meaning."""

    text: str
    severity: Severity = Severity.INFORMATION

    @property
    def is_blocking(self) -> bool:
        """The user must be asked, or nothing can be done at all."""
        return self.severity is not Severity.INFORMATION

    def __str__(self) -> str:
        """Returns a line for the user."""
        return ("!! " if self.is_blocking else "   ") + self.text


def _note(text: str, *, blocking: bool) -> Note:
    return Note(text, Severity.BLOCKING if blocking else Severity.INFORMATION)


def compare(
    plans: Mapping[str, Any],
    configuration: Mapping[str, Any],
    model_channels: Mapping[str, str],
    channels: Mapping[str, str],
    sample: Sample,
    model_orientations: Sequence[str] = (),
) -> list[Note]:
    """Compares everything that can be compared between a model and a data set.

    Args:
        plans: the model's.
        configuration: the settings of the model's configuration in its plans.
        model_channels: ``channel_names`` of the model's dataset.json.
        channels: those of the data set.
        sample: a few cases of the data set.
        model_orientations: the orientations of the model's own data, where these are at hand.
    """
    notes = [compare_channels(model_channels, channels)]
    if notes[0].severity is Severity.UNTRAINABLE:
        return notes
    notes += [_dimensions(configuration, sample), _spacing(plans, configuration, sample)]
    notes += _intensities(plans, configuration, sample)
    notes.append(_orientations(sample, model_orientations))
    return notes


def compare_channels(model: Mapping[str, str], data: Mapping[str, str]) -> Note:
    """Compares the ``channel_names`` of two dataset.json, by number and name."""
    ours, theirs = ([names[k] for k in sorted(names, key=int)] for names in (data, model))
    if len(ours) != len(theirs):
        takes, has = (f"{len(names)} ({', '.join(names)})" for names in (theirs, ours))
        return Note(f"channels: the model takes {takes}, the data set has {has}", Severity.UNTRAINABLE)
    same = [a.lower() for a in ours] == [b.lower() for b in theirs]
    differs = "" if same else f", but the model knows {', '.join(theirs)}"
    return _note(f"channels: {', '.join(ours)}{differs}", blocking=not same)


def compare_readers(raw: RawData) -> Note:
    """Compares a data set's reader with that of the plans.

    It is blocking where only one of them brings every image into one orientation.
    """
    ours = type(raw.reader).__name__
    differs = f", the model's {raw.plans_reader}" if raw.plans_reader not in ("", ours) else ""
    return _note(f"reader: {ours}{differs}", blocking=("Reorient" in ours) != ("Reorient" in raw.plans_reader))


def _dimensions(configuration: Mapping[str, Any], sample: Sample) -> Note:
    """Notes the size; slices are nothing for a 3D model."""
    size = " x ".join(f"{v:.0f}" for v in np.median(sample.shapes, axis=0))
    flat = len(configuration["patch_size"]) == 3 and bool((sample.shapes[:, 0] == 1).all())
    return _note(f"size: median {size} voxels{', but the model is a 3D one' if flat else ''}", blocking=flat)


def _spacing(plans: Mapping[str, Any], configuration: Mapping[str, Any], sample: Sample) -> Note:
    """Compares the spacing with the model's, to which nnU-Net resamples; what is far from it the model has never seen."""
    ours = sample.spacings_mm[:, plans["transpose_forward"]]
    model_spacing = np.array(configuration["spacing"], dtype=np.float64)
    ours = ours[:, -len(model_spacing) :]
    median = np.median(ours, axis=0)
    ratio = float(np.maximum(median / model_spacing, model_spacing / median).max())
    ranges = " x ".join(
        f"{a:.3g} to {b:.3g}" if a != b else f"{a:.3g}" for a, b in zip(ours.min(0), ours.max(0), strict=True)
    )
    ours_text = f"{ranges} mm" if sample.in_mm else f"the files do not say it, nnU-Net takes {ranges}"
    text = f"spacing: {ours_text}, the model's {' x '.join(f'{s:.3g}' for s in model_spacing)} mm"
    if ratio > 1.05:
        text += f" (median differs {ratio:.1f} times)"
    return _note(text, blocking=ratio > MAX_SPACING_RATIO)


def _intensities(plans: Mapping[str, Any], configuration: Mapping[str, Any], sample: Sample) -> list[Note]:
    """Compares a CT's intensities with the model's, by which it is normalised; every other image is by its own."""
    notes = []
    for channel, scheme in enumerate(configuration["normalization_schemes"]):
        voxels = np.concatenate([image[channel] for image in sample.images])
        a, b = np.percentile(voxels, [0.5, 99.5])
        text = f"intensities of channel {channel}: {a:.4g} to {b:.4g} ({scheme})"
        if scheme != "CTNormalization":
            notes.append(Note(text))
            continue
        properties = plans["foreground_intensity_properties_per_channel"][str(channel)]
        low, high = properties["percentile_00_5"], properties["percentile_99_5"]
        share = float(((voxels >= low) & (voxels <= high)).mean())
        text += f"; the model's organs had {low:.4g} to {high:.4g}, where {share:.1%} of the voxels are"
        if b - a < MIN_RANGE_RATIO * (high - low):
            notes.append(_note(f"{text}: they look rescaled", blocking=True))
        elif low < 0 <= voxels.min():
            notes.append(_note(f"{text}, but none is below 0: these are no Hounsfield units", blocking=True))
        else:
            notes.append(_note(text, blocking=share < MIN_SHARE_IN_WINDOW))
    return notes


def _orientations(sample: Sample, model: Sequence[str]) -> Note:
    """Compares the orientations; nnU-Net takes the axes as they are stored."""
    ours = sorted(set(sample.orientations))
    if not ours:
        return Note("orientation: the files have none")
    if not model:
        several = "; several: left and right may be mixed up" if len(ours) > 1 else ""
        return Note(f"orientation: {', '.join(ours)}{several} (the model's is not known: its data are not here)")
    differs = not set(ours) <= set(model)
    return _note(f"orientation: {', '.join(ours)}, the model's {', '.join(sorted(set(model)))}", blocking=differs)
