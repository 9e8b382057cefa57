"""Do a trained model and a data set fit? What differs, in numbers, before anything is preprocessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_cil.host.raw_dataset import RawData, Sample

MAX_SPACING_RATIO = 3.0
"""Between the data set's median spacing and the model's, along any axis."""

MIN_SHARE_IN_WINDOW = 0.01
"""Of the voxels of a CT, within the range of intensities that the model's organs had."""

MIN_RANGE_RATIO = 0.1
"""Between the range of a CT's intensities and that of the model's organs; a smaller one has been rescaled."""


@dataclass(frozen=True)
class Remark:
    """What was compared, and whether it is dangerous to go on."""

    text: str
    is_dangerous: bool = False

    def __str__(self) -> str:
        """A line for the user."""
        return ("!! " if self.is_dangerous else "   ") + self.text


def compare_readers(raw: RawData) -> Remark:
    """Compares the data set's reader with that of the plans.

    It is dangerous where only one of them brings every image into one orientation.
    """
    ours = type(raw.reader).__name__
    differs = f", the model's {raw.plans_reader}" if raw.plans_reader not in ("", ours) else ""
    return Remark(f"reader: {ours}{differs}", ("Reorient" in ours) != ("Reorient" in raw.plans_reader))


def compare(
    plans: Mapping[str, Any],
    configuration: Mapping[str, Any],
    model_channels: Mapping[str, str],
    channels: Mapping[str, str],
    sample: Sample,
    model_orientations: Sequence[str] = (),
) -> list[Remark]:
    """Everything that can be compared.

    Args:
        plans: the model's.
        configuration: of the plans, the model's.
        model_channels: ``channel_names`` of the model's dataset.json.
        channels: those of the data set.
        sample: of the data set.
        model_orientations: of the model's own data, where that is at hand.
    """
    remarks = [compare_channels(model_channels, channels)]
    if remarks[0].is_dangerous and len(model_channels) != len(channels):
        return remarks
    remarks += [_dimensions(configuration, sample), _spacing(plans, configuration, sample)]
    remarks += _intensities(plans, configuration, sample)
    remarks.append(_orientations(sample, model_orientations))
    return remarks


def compare_channels(model: Mapping[str, str], data: Mapping[str, str]) -> Remark:
    """By number and name, from two dataset.json."""
    ours, theirs = ([names[k] for k in sorted(names, key=int)] for names in (data, model))
    if len(ours) != len(theirs):
        takes, has = (f"{len(names)} ({', '.join(names)})" for names in (theirs, ours))
        return Remark(f"channels: the model takes {takes}, the data set has {has}", True)
    same = [a.lower() for a in ours] == [b.lower() for b in theirs]
    differs = "" if same else f", but the model knows {', '.join(theirs)}"
    return Remark(f"channels: {', '.join(ours)}{differs}", not same)


def _dimensions(configuration: Mapping[str, Any], sample: Sample) -> Remark:
    size = " x ".join(f"{v:.0f}" for v in np.median(sample.shapes, axis=0))
    flat = len(configuration["patch_size"]) == 3 and bool((sample.shapes[:, 0] == 1).all())
    return Remark(f"size: median {size} voxels{', but the model is a 3D one' if flat else ''}", flat)


def _spacing(plans: Mapping[str, Any], configuration: Mapping[str, Any], sample: Sample) -> Remark:
    """nnU-Net resamples to the model's spacing; what is far from it the model has never seen."""
    ours = sample.spacings_mm[:, plans["transpose_forward"]]
    wanted = np.array(configuration["spacing"], dtype=np.float64)
    ours = ours[:, -len(wanted) :]
    median = np.median(ours, axis=0)
    ratio = float(np.maximum(median / wanted, wanted / median).max())
    ranges = " x ".join(
        f"{a:.3g} to {b:.3g}" if a != b else f"{a:.3g}" for a, b in zip(ours.min(0), ours.max(0), strict=True)
    )
    text = f"spacing: {ranges} mm, the model's {' x '.join(f'{w:.3g}' for w in wanted)} mm"
    return Remark(f"{text} (median differs {ratio:.1f} times)" if ratio > 1.05 else text, ratio > MAX_SPACING_RATIO)


def _intensities(plans: Mapping[str, Any], configuration: Mapping[str, Any], sample: Sample) -> list[Remark]:
    """CT is normalised by the model's own statistics; every other image by its own."""
    remarks = []
    for channel, scheme in enumerate(configuration["normalization_schemes"]):
        voxels = np.concatenate([image[channel] for image in sample.images])
        a, b = np.percentile(voxels, [0.5, 99.5])
        text = f"intensities of channel {channel}: {a:.4g} to {b:.4g} ({scheme})"
        if scheme != "CTNormalization":
            remarks.append(Remark(text))
            continue
        known = plans["foreground_intensity_properties_per_channel"][str(channel)]
        low, high = known["percentile_00_5"], known["percentile_99_5"]
        share = float(((voxels >= low) & (voxels <= high)).mean())
        text += f"; the model's organs had {low:.4g} to {high:.4g}, where {share:.1%} of the voxels are"
        if b - a < MIN_RANGE_RATIO * (high - low):
            remarks.append(Remark(f"{text}: they look rescaled", True))
        elif low < 0 <= voxels.min():
            remarks.append(Remark(f"{text}, but none is below 0: these are no Hounsfield units", True))
        else:
            remarks.append(Remark(text, share < MIN_SHARE_IN_WINDOW))
    return remarks


def _orientations(sample: Sample, model: Sequence[str]) -> Remark:
    """nnU-Net takes the axes as they are stored."""
    ours = sorted(set(sample.orientations))
    if not ours:
        return Remark("orientation: the files have none")
    if not model:
        several = "; several: left and right may be mixed up" if len(ours) > 1 else ""
        return Remark(f"orientation: {', '.join(ours)}{several} (the model's is not known: its data are not here)")
    differs = not set(ours) <= set(model)
    return Remark(f"orientation: {', '.join(ours)}, the model's {', '.join(sorted(set(model)))}", differs)
