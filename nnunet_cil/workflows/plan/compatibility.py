"""Do a trained model and a data set fit? What differs, in numbers, before anything is preprocessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.errors import CILError

NUM_LOOKED_AT = 10
"""Cases that are read."""

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


@dataclass(frozen=True)
class Sample:
    """A few cases of a data set as nnU-Net reads them.

    Attributes:
        spacings_mm: (cases, 3), as nnU-Net's reader gives them.
        shapes: (cases, 3).
        orientations: three letters a case, as SimpleITK names them; empty for formats that have none. RAS where the reader brings
            every image there.
        images: a few voxels of each case, (channels, voxels).
        num_cases: of the whole data set.
    """

    spacings_mm: npt.NDArray[np.float64]
    shapes: npt.NDArray[np.int64]
    orientations: tuple[str, ...]
    images: list[npt.NDArray[np.float32]]
    num_cases: int


def look_at(cases: Sequence[Sequence[str]], reader: Any) -> Sample:
    """Reads up to ``NUM_LOOKED_AT`` cases, spread over the data set.

    Args:
        cases: the image files of each case.
        reader: nnU-Net's, an instance.

    Raises:
        CILError: a file that the reader cannot read.
    """
    from tqdm import tqdm

    chosen = [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, NUM_LOOKED_AT).astype(int))]
    spacings, shapes, images, orientations = [], [], [], []
    for files in tqdm(chosen, desc="Looking at images", leave=False):
        try:
            image, properties = reader.read_images(files)
        except (RuntimeError, OSError, ValueError) as error:
            raise CILError(f"{files[0]} cannot be read as an image ({_last_line(error)}). Restore it.") from error
        spacings.append([float(s) for s in properties["spacing"]])
        shapes.append(image.shape[1:])
        flat = image.reshape(len(image), -1)
        images.append(flat[:, :: max(1, flat.shape[1] // 100_000)].astype(np.float32))
        reorients = "Reorient" in type(reader).__name__
        orientations.append("RAS" if reorients else _orientation(Path(files[0])))
    return Sample(
        np.array(spacings), np.array(shapes), tuple(o for o in orientations if o is not None), images, len(cases)
    )


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _orientation(file: Path) -> str | None:
    """From the header, in three letters; None for a format without one."""
    import SimpleITK as sitk

    untyped: Any = sitk
    header = untyped.ImageFileReader()
    header.SetFileName(str(file))
    try:
        header.ReadImageInformation()
        if header.GetDimension() != 3:
            return None
        return str(untyped.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(header.GetDirection()))
    except RuntimeError:
        return None


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
