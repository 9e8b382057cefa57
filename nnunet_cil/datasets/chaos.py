"""CHAOS: liver in CT; liver, kidneys and spleen in MR. DICOM images, PNG labels.

Source: Kavur et al. 2021, https://doi.org/10.1016/j.media.2020.101950, https://doi.org/10.5281/zenodo.3431873
(CHAOS_Train_Sets.zip; the test sets have no public labels).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_cil.datasets.download import Case, Dataset, choose, incomplete, root_with
from nnunet_cil.datasets.volumes import Volume
from nnunet_cil.errors import CILError

Greys = tuple[tuple[int, int, int], ...]
"""Ranges of grey values: the lowest, the highest, and the label that they stand for."""

CT_GREYS: Greys = ((1, 255, 1),)
MR_GREYS: Greys = ((55, 70, 1), (110, 135, 2), (175, 200, 3), (240, 255, 4))

MR_CLASSES = ("liver", "right kidney", "left kidney", "spleen")
"""In the order of their grey values: about 63, 126, 189 and 252."""

SEQUENCES: dict[str, tuple[str, ...]] = {"CT": (), "T1DUAL": ("InPhase", "OutPhase"), "T2SPIR": ()}
"""Modality -> the folders in ``DICOM_anon`` that become channels; empty: ``DICOM_anon`` itself."""


@dataclass(frozen=True)
class DicomSeries:
    """A folder of DICOM slices."""

    folder: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """Returns the slices."""
        return _slices(self.folder)

    def read(self) -> Volume:
        """Reads the slices in the order of their positions."""
        import SimpleITK as sitk

        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(f) for f in _in_space(self.folder)])
        return Volume(reader.Execute())


@dataclass(frozen=True, kw_only=True)
class PngSlices:
    """Labels of a DICOM series, one PNG a slice, paired by the order of the file names.

    Attributes:
        folder: the PNG files.
        series: the DICOM slices.
        greys: labels of the grey values.
    """

    folder: Path
    series: Path
    greys: Greys

    @property
    def files(self) -> tuple[Path, ...]:
        """Returns the PNG files."""
        return tuple(sorted(self.folder.glob("[!.]*.png")))

    def read(self) -> Volume:
        """Reads the label map, on the grid of the series."""
        import SimpleITK as sitk

        dicom = _slices(self.series)
        if len(dicom) != len(self.files):
            raise CILError(f"{self.folder} holds {len(self.files)} PNG files for {len(dicom)} DICOM slices.")
        png_of = dict(zip(dicom, self.files, strict=True))
        grey = np.stack([sitk.GetArrayFromImage(sitk.ReadImage(str(png_of[f]))) for f in _in_space(self.series)])
        labels = np.zeros(grey.shape, dtype=np.uint8)
        for low, high, label in self.greys:
            labels[(grey >= low) & (grey <= high)] = label
        strange = grey[(labels == 0) & (grey > 0)]
        if strange.size:
            raise CILError(f"{self.folder} holds the grey value {strange.flat[0]}, which stands for no organ of CHAOS.")
        picture = sitk.GetImageFromArray(labels)
        picture.CopyInformation(DicomSeries(self.series).read().image)
        return Volume(picture)


def find(source: Path, *, modality: str = "CT") -> Dataset:
    """Finds ``CT/1/DICOM_anon`` with ``CT/1/Ground``, or ``MR/1/T2SPIR/DICOM_anon`` with ``MR/1/T2SPIR/Ground``.

    Args:
        source: ``Train_Sets``, or what holds it.
        modality: CT (liver), T1DUAL (four organs, two channels: in phase and out of phase) or T2SPIR (four organs).

    Raises:
        CILError: no such folders, or an unknown modality.
    """
    series = choose(modality, SEQUENCES, "--modality")
    top = "CT" if modality == "CT" else "MR"
    root = root_with(source, top, expected="Train_Sets/CT/1/DICOM_anon and Train_Sets/MR/1/T1DUAL/DICOM_anon") / top
    greys = CT_GREYS if modality == "CT" else MR_GREYS
    cases = []
    for patient in sorted((p for p in root.iterdir() if p.name.isdigit()), key=lambda p: int(p.name)):
        folder = patient if modality == "CT" else patient / modality
        images = [folder / "DICOM_anon" / name for name in series] or [folder / "DICOM_anon"]
        labels = PngSlices(folder=folder / "Ground", series=images[0], greys=greys)
        name = f"chaos_{modality.lower()}_{int(patient.name):02d}"
        cases.append(Case(name=name, images=tuple(map(DicomSeries, images)), labels=labels))
    return Dataset(
        name=f"CHAOS{modality}",
        cases=tuple(cases),
        numbers={name: i for i, name in enumerate(MR_CLASSES if top == "MR" else MR_CLASSES[:1], start=1)},
        reference="https://doi.org/10.5281/zenodo.3431873",
        licence="CC BY-NC-SA 4.0",
        citation="Kavur et al. 2021, CHAOS Challenge - combined (CT-MR) healthy abdominal organ segmentation, "
        "https://doi.org/10.1016/j.media.2020.101950",
        channels=tuple(f"T1 {name}" for name in series) or (("CT",) if top == "CT" else ("MRI",)),
        problems=incomplete(len(cases), 20),
    )


def _slices(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(f for f in folder.glob("[!.]*.dcm")))


def _in_space(folder: Path) -> list[Path]:
    """Returns the slices of a folder in the order of their positions."""
    import SimpleITK as sitk

    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        raise CILError(f"{folder} holds {len(series)} DICOM series, but must hold one.")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    if len(files) != len(_slices(folder)):
        raise CILError(f"{folder} holds {len(_slices(folder))} .dcm files, but its series has {len(files)}.")
    return [Path(f) for f in files]
