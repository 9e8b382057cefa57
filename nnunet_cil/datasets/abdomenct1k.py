"""AbdomenCT-1K: liver, kidneys, spleen and pancreas in CTs of several public data sets.

Source: Ma et al. 2022, https://doi.org/10.1109/TPAMI.2021.3100536, https://github.com/JunMa11/AbdomenCT-1K; Zenodo 5903099,
5903846 and 5903769.
"""

from __future__ import annotations

from pathlib import Path

from nnunet_cil.datasets.download import Dataset, Problem, find_files, paired_cases, root_with, unpaired

CLASSES = ("liver", "kidney", "spleen", "pancreas")
"""In the order of their numbers, 1 to 4; both kidneys are one class."""


def find(source: Path) -> Dataset:
    """Finds ``AbdomenCT-1K-ImagePart1`` to ``3`` (``Case_00001_0000.nii.gz``), and ``Mask`` (``Case_00001.nii.gz``).

    Args:
        source: the folder that holds the unpacked archives. Cases without a mask are left out.

    Raises:
        CILError: no such folders.
    """
    expected = "AbdomenCT-1K-ImagePart1 (and 2, 3) beside Mask"
    root = root_with(source, "Mask", expected=expected)
    images = {
        case: file
        for part in sorted(root.glob("AbdomenCT-1K-ImagePart*"))
        for folder in (part, part / part.name)  # some unpackers add a level
        for case, file in find_files(folder, r"(Case_\d{5})_0000\.nii\.gz").items()
    }
    labels = {
        case: file
        for folder in (root / "Mask", root / "Mask" / "Mask")
        for case, file in find_files(folder, r"(Case_\d{5})\.nii\.gz").items()
    }
    without_mask = set(images) - set(labels)
    problems = unpaired({c: f for c, f in images.items() if c in labels}, labels)
    if without_mask:
        text = f"{len(without_mask)} images have no mask and are left out"
        problems = (*problems, Problem(case="", kind="images without labels", text=text, blocking=False))
    return Dataset(
        name="AbdomenCT1K",
        cases=tuple(paired_cases(images, labels)),
        numbers={name: i for i, name in enumerate(CLASSES, start=1)},
        reference="https://github.com/JunMa11/AbdomenCT-1K",
        licence="see the Zenodo records 5903099, 5903846 and 5903769",
        citation="Ma et al. 2022, AbdomenCT-1K: Is Abdominal Organ Segmentation A Solved Problem?, "
        "https://doi.org/10.1109/TPAMI.2021.3100536",
        problems=problems,
    )
