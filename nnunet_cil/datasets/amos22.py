"""AMOS22: abdominal CT and MR with 15 organs.

Source: Ji et al. 2022, https://arxiv.org/abs/2206.08023, https://doi.org/10.5281/zenodo.7262581 (amos22.zip).
"""

from __future__ import annotations

from pathlib import Path

from nnunet_cil.datasets.download import (
    Case,
    Dataset,
    Part,
    Problem,
    choose,
    find_files,
    incomplete,
    paired_cases,
    root_with,
    unpaired,
)

CLASSES = (
    "spleen",
    "right kidney",
    "left kidney",
    "gall bladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "postcava",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
    "duodenum",
    "bladder",
    "prostate/uterus",
)
"""In the order of their numbers, 1 to 15, named as in its dataset.json, where the aorta is misspelled 'arota'."""

LAST_CT = 500
"""Cases with a higher number are MR (readme.md of the archive)."""

MODALITIES = {"CT": ("CT",), "MR": ("MRI",), "both": ("CT or MRI",)}
NUM_TRAINING = {"CT": 200, "MR": 40, "both": 240}
SPLITS: dict[str, Part] = {"validation": "val", "test": "test"}


def find(source: Path, *, modality: str = "CT", split: str = "validation") -> Dataset:
    """Finds training and validation cases (``imagesTr/amos_0001.nii.gz``); the test cases have no public labels.

    Args:
        source: ``amos22``, or what holds it.
        modality: CT, MR, or both in one data set.
        split: use of the official validation cases: nnU-Net's validation, or a test set.

    Raises:
        CILError: no such folders, or an unknown option.
    """
    channels = choose(modality, MODALITIES, "--modality")
    parts: dict[str, Part] = {"Tr": "train", "Va": choose(split, SPLITS, "--split")}
    root = root_with(source, "imagesTr", "labelsTr", expected="amos22/imagesTr and amos22/labelsTr")
    cases: list[Case] = []
    problems: list[Problem] = []
    for ending, part in parts.items():
        images, labels = (
            {
                c: f
                for c, f in find_files(root / f"{kind}{ending}", r"(amos_\d+)\.nii\.gz").items()
                if _has_modality(c, modality)
            }
            for kind in ("images", "labels")
        )
        pairs = paired_cases(images, labels, part)
        num_official = NUM_TRAINING[modality] // (1 if part == "train" else 2)
        cases += pairs
        problems += [*unpaired(images, labels), *incomplete(len(pairs), num_official, f"images{ending}")]
    return Dataset(
        name="AMOS22" if modality == "both" else f"AMOS22{modality}",
        cases=tuple(cases),
        numbers={name: i for i, name in enumerate(CLASSES, start=1)},
        reference="https://doi.org/10.5281/zenodo.7262581",
        licence="CC BY 4.0 (as the Zenodo record says)",
        citation="Ji et al. 2022, AMOS: A Large-Scale Abdominal Multi-Organ Benchmark for Versatile Medical Image "
        "Segmentation, https://arxiv.org/abs/2206.08023",
        channels=channels,
        problems=tuple(problems),
    )


def _has_modality(case: str, modality: str) -> bool:
    is_ct = int(case.removeprefix("amos_")) <= LAST_CT
    return modality == "both" or is_ct == (modality == "CT")
