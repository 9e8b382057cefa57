"""BTCV: abdominal CT with 13 organs, the MICCAI 2015 challenge Multi-Atlas Labeling Beyond the Cranial Vault.

Source: Landman et al. 2015, https://doi.org/10.7303/syn3193805 (Synapse, after registration).
"""

from __future__ import annotations

from pathlib import Path

from nnunet_cil.datasets.download import Case, Dataset, Part, choose, find_files, incomplete, root_with, unpaired
from nnunet_cil.datasets.volumes import ImageFile

CLASSES = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal vein and splenic vein",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
"""In the order of their numbers, 1 to 13."""

TRANSUNET_TEST = ("0001", "0002", "0003", "0004", "0008", "0022", "0025", "0029", "0032", "0035", "0036", "0038")
"""The 12 test cases of Chen et al. 2021 (https://github.com/Beckschen/TransUNet, lists_Synapse/test_vol.txt)."""

SWIN_UNETR_VALIDATION = ("0035", "0036", "0037", "0038", "0039", "0040")
"""The 6 of 30 cases that Swin UNETR's training leaves out (https://github.com/Project-MONAI/research-contributions)."""

SPLITS: dict[str, dict[str, Part]] = {
    "none": {},
    "transunet": dict.fromkeys(TRANSUNET_TEST, "test"),
    "swin-unetr": dict.fromkeys(SWIN_UNETR_VALIDATION, "val"),
}


def find(source: Path, *, split: str = "none") -> Dataset:
    """Finds the 30 labelled cases: ``Training/img/img0001.nii.gz`` with ``Training/label/label0001.nii.gz``.

    Args:
        source: ``RawData``, or what holds it.
        split: one of ``SPLITS``; none: all are training cases.

    Raises:
        CILError: no such folders, or an unknown split.
    """
    parts = choose(split, SPLITS, "--split")
    root = root_with(source, "img", "label", expected="RawData/Training/img and RawData/Training/label")
    images = find_files(root / "img", r"img(\d{4})\.nii\.gz")
    labels = find_files(root / "label", r"label(\d{4})\.nii\.gz")
    pairs = sorted(set(images) & set(labels))
    return Dataset(
        name="BTCV",
        cases=tuple(
            Case(
                name=f"btcv_{c}",
                images=(ImageFile(images[c]),),
                labels=ImageFile(labels[c]),
                part=parts.get(c, "train"),
            )
            for c in pairs
        ),
        numbers={name: i for i, name in enumerate(CLASSES, start=1)},
        reference="https://www.synapse.org/Synapse:syn3193805",
        licence="Synapse: terms of use of syn3193805",
        citation="Landman et al. 2015, MICCAI Multi-Atlas Labeling Beyond the Cranial Vault, https://doi.org/10.7303/syn3193805",
        problems=(*unpaired(images, labels), *incomplete(len(pairs), 30)),
    )
