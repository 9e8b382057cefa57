"""FLARE22: the 50 labelled abdominal CTs of the MICCAI 2022 challenge, 13 organs.

Source: Ma et al. 2023, https://arxiv.org/abs/2308.05862, https://doi.org/10.5281/zenodo.7860267 (FLARE22Train.zip).
"""

from __future__ import annotations

from pathlib import Path

from nnunet_cil.datasets.download import Dataset, find_files, incomplete, paired_cases, root_with, unpaired

CLASSES = (
    "liver",
    "right kidney",
    "spleen",
    "pancreas",
    "aorta",
    "inferior vena cava",
    "right adrenal gland",
    "left adrenal gland",
    "gallbladder",
    "esophagus",
    "stomach",
    "duodenum",
    "left kidney",
)
"""In the order of their numbers, 1 to 13."""


def find(source: Path) -> Dataset:
    """Finds ``images/FLARE22_Tr_0001_0000.nii.gz`` with ``labels/FLARE22_Tr_0001.nii.gz``.

    Raises:
        CILError: no such folders.
    """
    root = root_with(source, "images", "labels", expected="FLARE22Train/images and FLARE22Train/labels")
    images = find_files(root / "images", r"(FLARE22_Tr_\d{4})_0000\.nii(?:\.gz)?")
    labels = find_files(root / "labels", r"(FLARE22_Tr_\d{4})\.nii(?:\.gz)?")
    cases = paired_cases(images, labels)
    return Dataset(
        name="FLARE22",
        cases=tuple(cases),
        numbers={name: i for i, name in enumerate(CLASSES, start=1)},
        reference="https://doi.org/10.5281/zenodo.7860267",
        licence="see the Zenodo record",
        citation="Ma et al. 2023, Unleashing the Strengths of Unlabeled Data in Pan-cancer Abdominal Organ Quantification: "
        "the FLARE22 Challenge, https://arxiv.org/abs/2308.05862",
        problems=(*unpaired(images, labels), *incomplete(len(cases), 50)),
    )
