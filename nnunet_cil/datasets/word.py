"""WORD: abdominal CT with 16 organs, version 0.1.0.

Source: Luo et al. 2022, https://doi.org/10.1016/j.media.2022.102642, https://github.com/HiLab-git/WORD.
"""

from __future__ import annotations

from pathlib import Path

from nnunet_cil.datasets.download import (
    Case,
    Dataset,
    Part,
    Problem,
    find_files,
    incomplete,
    paired_cases,
    root_with,
    unpaired,
)

CLASSES = (
    "liver",
    "spleen",
    "left_kidney",
    "right_kidney",
    "stomach",
    "gallbladder",
    "esophagus",
    "pancreas",
    "duodenum",
    "colon",
    "intestine",
    "adrenal",
    "rectum",
    "bladder",
    "Head_of_femur_L",
    "Head_of_femur_R",
)
"""In the order of their numbers, 1 to 16; spelled as the data set does."""

PARTS: dict[str, tuple[Part, int]] = {"Tr": ("train", 100), "Val": ("val", 20), "Ts": ("test", 30)}
"""Ending of the folders -> part of the data set, and how many cases the official one has."""


def find(source: Path) -> Dataset:
    """Finds imagesTr, imagesVal, imagesTs, and the same for labels (``word_0001.nii.gz``): the official split.

    Test cases are taken where their labels are there; not every release has them.

    Raises:
        CILError: no such folders.
    """
    root = root_with(source, "imagesTr", "labelsTr", expected="WORD-V0.1.0/imagesTr and WORD-V0.1.0/labelsTr")
    cases: list[Case] = []
    problems: list[Problem] = []
    for ending, (part, num_official) in PARTS.items():
        images, labels = (find_files(root / f"{kind}{ending}", r"(word_\d+)\.nii\.gz") for kind in ("images", "labels"))
        if part == "test" and not labels:
            continue
        pairs = paired_cases(images, labels, part)
        cases += pairs
        problems += [*unpaired(images, labels), *incomplete(len(pairs), num_official, f"images{ending}")]
    return Dataset(
        name="WORD",
        cases=tuple(cases),
        numbers={name: i for i, name in enumerate(CLASSES, start=1)},
        reference="https://github.com/HiLab-git/WORD",
        licence="GPL-3.0, for academic research only",
        citation="Luo et al. 2022, WORD: A large scale dataset, benchmark and clinical applicable study for abdominal organ "
        "segmentation from CT image, https://doi.org/10.1016/j.media.2022.102642",
        problems=tuple(problems),
    )
