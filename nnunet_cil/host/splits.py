"""nnU-Net's split of the training cases into folds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json_list

NUM_FOLDS = 5
"""The number of folds that nnU-Net splits into."""

SPLIT_SEED = 12345
"""The seed of nnU-Net's split; also deals cases out to steps."""

SPLITS_FILE = "splits_final.json"
"""Where a preprocessed data set keeps its split: a list of ``{"train": [...], "val": [...]}``, one a fold."""


def read_validation_folds(folder: Path) -> list[list[str]]:
    """Reads the validation cases of each fold from a preprocessed data set; empty where it has no split yet."""
    file = folder / SPLITS_FILE
    splits = read_json_list(file, "Remove it, and nnU-Net writes its own.") if file.exists() else []
    return [[str(case) for case in split["val"]] for split in splits]


def validation_folds(folder: Path, cases: Sequence[str]) -> list[list[str]]:
    """Returns the validation cases of each fold: of the split that is there, or of the one that nnU-Net is going to make.

    Args:
        folder: the preprocessed data set.
        cases: all of its training cases.

    Returns:
        One list a fold; empty where nnU-Net cannot split so few cases.
    """
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    if (folder / SPLITS_FILE).is_file():
        return read_validation_folds(folder)
    if len(cases) < NUM_FOLDS:
        return []
    splits = generate_crossval_split(sorted(cases), seed=SPLIT_SEED, n_splits=NUM_FOLDS)
    return [[str(case) for case in split["val"]] for split in splits]


def check_split(folder: Path, folds: Sequence[str], num_cases: int) -> None:
    """Refuses too few cases for nnU-Net's split, unless there is one of the user's.

    Args:
        folder: the preprocessed data set; need not be there yet.
        folds: that are going to be trained.
        num_cases: the number of training cases.

    Raises:
        CILError: there are fewer cases than folds, and no split.
    """
    if num_cases < NUM_FOLDS and set(folds) != {"all"} and not (folder / SPLITS_FILE).is_file():
        raise CILError(
            f"{folder.name} has {num_cases} training cases, but nnU-Net's split into {NUM_FOLDS} folds needs {NUM_FOLDS}. Add "
            f"cases, or write a split of your own to {folder / SPLITS_FILE}."
        )


def deal_cases(num_steps: int, cases: Sequence[str], folds: Sequence[Sequence[str]]) -> list[list[str]]:
    """Deals cases out in hands of equal size, always alike.

    Args:
        num_steps: the number of hands.
        cases: all training cases.
        folds: the validation cases of each fold. These are dealt out evenly too, so that a step has training and
            validation cases in every fold that has enough of them.
    """
    shuffled = list(cases)
    random.Random(SPLIT_SEED).shuffle(shuffled)
    fold_of = {case: i for i, fold in reversed(list(enumerate(folds))) for case in fold}
    shuffled.sort(key=lambda case: fold_of.get(case, len(folds)))
    return [sorted(shuffled[i::num_steps]) for i in range(num_steps)]
