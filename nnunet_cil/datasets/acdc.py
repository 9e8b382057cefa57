"""ACDC: cine MR of the heart, both ventricles and the myocardium at end of diastole and of systole.

Source: Bernard et al. 2018, https://doi.org/10.1109/TMI.2018.2837502, https://www.creatis.insa-lyon.fr/Challenge/acdc.
"""

from __future__ import annotations

import re
from pathlib import Path

from nnunet_cil.datasets.download import Case, Dataset, Part, Problem, find_files, incomplete, root_with
from nnunet_cil.datasets.volumes import ImageFile, OneOfSeries, Source

CLASSES = ("right ventricle", "myocardium", "left ventricle")
"""In the order of their numbers, 1 to 3; the ventricles are their cavities."""

PARTS: dict[str, tuple[Part, int]] = {"training": ("train", 200), "testing": ("test", 100)}
"""Folder -> part of the data set, and how many labelled frames the official one has: two a patient."""


def find(source: Path) -> Dataset:
    """Finds ``training/patient001/patient001_frame01.nii.gz`` with ``..._frame01_gt.nii.gz``, two frames a patient.

    A frame whose own file is missing is taken from ``patient001_4d.nii.gz``. Cases of a patient stay in one fold.

    Args:
        source: ``database`` (or ``ACDC``), which holds ``training``, and ``testing`` where its labels are there.

    Raises:
        CILError: no such folders.
    """
    root = root_with(source, "training", expected="training/patient001/patient001_frame01_gt.nii.gz")
    cases: list[Case] = []
    problems: list[Problem] = []
    for name, (part, num_official) in PARTS.items():
        frames: list[Case] = []
        missing: list[Problem] = []
        for folder in sorted((root / name).glob("patient*")):
            labels = find_files(folder, r"(patient\d+_frame\d+)_gt\.nii(?:\.gz)?")
            frames += [
                Case(name=c, images=(_image(folder, c),), labels=ImageFile(f), part=part, patient=folder.name)
                for c, f in labels.items()
            ]
            missing += _missing_frames(folder, set(labels))
        if frames or part == "train":  # the testing folder of older releases has no labels
            cases += frames
            problems += [*missing, *incomplete(len(frames), num_official, name)]
    return Dataset(
        name="ACDC",
        cases=tuple(cases),
        numbers={name: i for i, name in enumerate(CLASSES, start=1)},
        reference="https://www.creatis.insa-lyon.fr/Challenge/acdc/databases.html",
        licence="CC BY-NC-SA 4.0",
        citation="Bernard et al. 2018, Deep Learning Techniques for Automatic MRI Cardiac Multi-Structures Segmentation and "
        "Diagnosis: Is the Problem Solved?, https://doi.org/10.1109/TMI.2018.2837502",
        channels=("MRI",),
        problems=tuple(problems),
    )


def _image(folder: Path, case: str) -> Source:
    """Returns the frame's own file, or else its volume of the whole sequence; frames are counted from 1."""
    files = find_files(folder, rf"({case})\.nii(?:\.gz)?") or find_files(folder, r"(patient\d+)_4d\.nii(?:\.gz)?")
    file = next(iter(files.values()), folder / f"{case}.nii.gz")
    return OneOfSeries(file, int(case.rpartition("frame")[2]) - 1) if "_4d" in file.name else ImageFile(file)


def _missing_frames(folder: Path, labelled: set[str]) -> list[Problem]:
    """Returns a problem for each frame that ``Info.cfg`` names as ED or ES and that has no labels."""
    info = folder / "Info.cfg"
    text = info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""
    frames = {phase: f"{folder.name}_frame{int(n):02d}" for phase, n in re.findall(r"(?m)^(ED|ES):\s*(\d+)", text)}
    return [
        Problem(case=case, kind="missing file", text=f"Info.cfg names it as {phase}, but there is no {case}_gt.nii.gz")
        for phase, case in frames.items()
        if case not in labelled
    ]
