"""TotalSegmentator v2: CT of the whole body, one binary file for each of 117 structures.

Source: Wasserthal et al. 2023, https://doi.org/10.1148/ryai.230024, https://doi.org/10.5281/zenodo.10047292 (v2.0.1). Names and
groups: https://github.com/wasserth/TotalSegmentator, map_to_binary.py.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from nnunet_cil.datasets.download import Case, Dataset, Part, Problem, root_with
from nnunet_cil.datasets.volumes import ImageFile, Masks
from nnunet_cil.errors import CILError, did_you_mean

_VERTEBRAE = [
    f"vertebrae_{v}" for v in ("S1", *(f"{s}{i}" for s, n in (("L", 5), ("T", 12), ("C", 7)) for i in range(n, 0, -1)))
]

GROUPS: dict[str, tuple[str, ...]] = {
    "organs": (
        *("spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "pancreas"),
        *("adrenal_gland_right", "adrenal_gland_left", "lung_upper_lobe_left", "lung_lower_lobe_left"),
        *("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right", "esophagus", "trachea"),
        *("thyroid_gland", "small_bowel", "duodenum", "colon", "urinary_bladder", "prostate"),
        *("kidney_cyst_left", "kidney_cyst_right"),
    ),
    "vertebrae": ("sacrum", *_VERTEBRAE),
    "cardiac": (
        *("heart", "aorta", "pulmonary_vein", "brachiocephalic_trunk", "subclavian_artery_right"),
        *("subclavian_artery_left", "common_carotid_artery_right", "common_carotid_artery_left"),
        *("brachiocephalic_vein_left", "brachiocephalic_vein_right", "atrial_appendage_left", "superior_vena_cava"),
        *("inferior_vena_cava", "portal_vein_and_splenic_vein", "iliac_artery_left", "iliac_artery_right"),
        *("iliac_vena_left", "iliac_vena_right"),
    ),
    "muscles": (
        *(
            f"{bone}_{side}"
            for bone in ("humerus", "scapula", "clavicula", "femur", "hip")
            for side in ("left", "right")
        ),
        "spinal_cord",
        *(f"gluteus_{part}_{side}" for part in ("maximus", "medius", "minimus") for side in ("left", "right")),
        *(f"{muscle}_{side}" for muscle in ("autochthon", "iliopsoas") for side in ("left", "right")),
        *("brain", "skull"),
    ),
    "ribs": (
        *(f"rib_{side}_{i}" for side in ("left", "right") for i in range(1, 13)),
        *("sternum", "costal_cartilages"),
    ),
}
"""The five groups that TotalSegmentator's own models learn."""

STRUCTURES = tuple(name for group in GROUPS.values() for name in group)

REPORTED_FAULTS = {
    "s0092": "lung_upper_lobe_right leaves the body (TotalSegmentator issue 245)",
    "s0143": "heart lies in the abdomen (TotalSegmentator issue 299)",
    "s0201": "heart is misplaced (TotalSegmentator issue 245)",
    "s0513": "humerus_right is wrong (TotalSegmentator issue 245)",
    "s0605": "lung_lower_lobe_left reaches below the diaphragm (TotalSegmentator issue 245)",
    "s0864": "intensities are wrong in v2.0.0, the file is damaged in v1 (TotalSegmentator issues 92 and 193)",
    "s1196": "heart lies in the abdomen (TotalSegmentator issue 299)",
}
"""Faults that users reported of v2.0.1 and before; not all of them concern every group."""


def find(source: Path, *, classes: Sequence[str] = ("organs",)) -> Dataset:
    """Finds the subjects that ``meta.csv`` lists: ``s0011/ct.nii.gz`` and ``s0011/segmentations/liver.nii.gz``.

    The split is that of ``meta.csv``.

    Args:
        source: the folder with ``meta.csv``.
        classes: structures or names of ``GROUPS``, to become label 1, 2, ...

    Raises:
        CILError: no ``meta.csv``, or unknown structures.
    """
    names = tuple(dict.fromkeys(n for c in classes for n in GROUPS.get(c, (c,))))
    for name in names:
        if name not in STRUCTURES:
            raise CILError(f"TotalSegmentator has no structure {name!r}{did_you_mean(name, (*GROUPS, *STRUCTURES))}.")
    root = root_with(source, "meta.csv", expected="meta.csv beside s0011/ct.nii.gz")
    cases: list[Case] = []
    problems: list[Problem] = []
    for subject, part in _read_meta(root / "meta.csv").items():
        folder = root / subject
        if not (folder / "ct.nii.gz").is_file():
            text = "is listed in meta.csv, but has no ct.nii.gz"
            if (folder / "mri.nii.gz").is_file():
                text += ": its mri.nii.gz is of the MRI data set, which only 'convert generic' takes"
            problems.append(Problem(case=subject, kind="missing file", text=text))
            continue
        if subject in REPORTED_FAULTS:
            problems.append(Problem(case=subject, kind="known fault", text=REPORTED_FAULTS[subject], blocking=False))
        masks = tuple(folder / "segmentations" / f"{name}.nii.gz" for name in names)
        cases.append(Case(name=subject, images=(ImageFile(folder / "ct.nii.gz"),), labels=Masks(masks), part=part))
    group = classes[0] if len(classes) == 1 and classes[0] in GROUPS else ""
    return Dataset(
        name=f"TotalSegmentator{group.capitalize()}",
        cases=tuple(cases),
        numbers={name: i for i, name in enumerate(names, start=1)},
        reference="https://doi.org/10.5281/zenodo.10047292",
        licence="CC BY 4.0",
        citation="Wasserthal et al. 2023, TotalSegmentator: Robust Segmentation of 104 Anatomic Structures in CT Images, "
        "https://doi.org/10.1148/ryai.230024",
        problems=tuple(problems),
    )


def _read_meta(file: Path) -> dict[str, Part]:
    """Reads subject -> part; the file is separated by semicolons and begins with a byte order mark."""
    parts: dict[str, Part] = {"train": "train", "val": "val", "test": "test"}
    with file.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter=";"))
    try:
        return {row["image_id"]: parts[row["split"]] for row in rows}
    except KeyError as error:
        raise CILError(
            f"{file} is not TotalSegmentator's: expected the columns image_id and split (train, val, test), "
            f"separated by ';', but {error} is not there."
        ) from error
