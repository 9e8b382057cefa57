"""nnU-Net's split of the training cases into folds."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from nnunet_cil.errors import CILError, few_names
from nnunet_cil.files import read_json_list

NUM_FOLDS = 5
"""The number of folds that nnU-Net splits into."""

SPLIT_SEED = 12345
"""The seed of nnU-Net's split; also deals cases out to steps."""

SPLITS_FILE = "splits_final.json"
"""Where a preprocessed data set keeps its split: a list of ``{"train": [...], "val": [...]}``, one a fold."""

_REMEDY = "Correct it, or remove it: nnU-Net then makes a split of its own."


@dataclass(frozen=True, kw_only=True)
class Fold:
    """The cases of a fold.

    Attributes:
        training: that a model is trained on.
        validation: that it is validated on.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]

    def narrowed(self, cases: Collection[str] | None, fold: str, step: str) -> Fold:
        """Returns the fold's cases among those of a step.

        Args:
            cases: the step's; None for all.
            fold: its name, for the message.
            step: its name, for the message.

        Raises:
            CILError: no training or no validation case is left.
        """
        if cases is None:
            return self
        own = set(cases)
        training, validation = (tuple(c for c in part if c in own) for part in (self.training, self.validation))
        for what, left in (("training", training), ("validation", validation)):
            if not left:
                raise CILError(
                    f"{fold} has no {what} case among the {len(cases)} cases of {step}. Use another fold, fewer steps or shared "
                    "cases."
                )
        return Fold(training=training, validation=validation)


def remove_cut_off_split(folder: Path, cases: Sequence[str]) -> None:
    """Removes a split that nnU-Net has not written to its end, since it was killed: it makes the same one again.

    Args:
        folder: the preprocessed data set.
        cases: all of its training cases.
    """
    if _is_cut_off(folder / SPLITS_FILE, cases):
        (folder / SPLITS_FILE).unlink(missing_ok=True)


def _is_cut_off(file: Path, cases: Sequence[str]) -> bool:
    """Tells whether a file holds the beginning of nnU-Net's own split; of nearly nothing it is not known whose it was."""
    content = file.read_bytes() if len(cases) >= NUM_FOLDS and file.is_file() else b""
    if b'"train"' not in content:
        return False
    folds = [{"train": list(f.training), "val": list(f.validation)} for f in _made_by_nnunet(cases)]
    whole = json.dumps(folds, sort_keys=True, indent=4).encode()  # as nnU-Net's save_json
    return len(content) < len(whole) and whole.startswith(content)


def read_split(folder: Path) -> list[Fold]:
    """Reads a preprocessed data set's own split; empty where it has none yet.

    Raises:
        CILError: the file has another form, or a fold that nnU-Net cannot train or validate.
    """
    file = folder / SPLITS_FILE
    if not file.exists():
        return []
    content = read_json_list(file, _REMEDY)
    if not content:
        raise CILError(f"{file} lists no fold. {_REMEDY}")
    return [_read_fold(entry, file, number) for number, entry in enumerate(content)]


def _read_fold(entry: Any, file: Path, number: int) -> Fold:
    """Checks a fold's form, and that every case has one place in it."""
    parts: list[Any] = [entry.get(key) for key in ("train", "val")] if isinstance(entry, dict) else []
    if not parts or not all(isinstance(part, list) and all(isinstance(c, str) for c in part) for part in parts):
        raise CILError(
            f'{file}: fold {number} must be {{"train": [...], "val": [...]}}, with names of cases in both lists. {_REMEDY}'
        )
    fold = Fold(training=tuple(parts[0]), validation=tuple(parts[1]))
    for key, cases in (("train", fold.training), ("val", fold.validation)):
        if not cases:
            raise CILError(f"{file}: fold {number} has no case in {key!r}. Add some, or remove the fold.")
        if twice := [case for case, number_of in Counter(cases).items() if number_of > 1]:
            raise CILError(
                f"{file}: fold {number} lists {few_names(twice)} more than once in {key!r}. Leave one of each."
            )
    if both := sorted(set(fold.training) & set(fold.validation)):
        raise CILError(
            f"{file}: fold {number} has {few_names(both)} in 'train' and in 'val', so that training cases would be scored as "
            "validation. Leave each case in one of the two, or train fold all, which has no validation cases."
        )
    return fold


def split_of(folder: Path, cases: Sequence[str]) -> list[Fold]:
    """Returns the split that is there, or the one that nnU-Net is going to make.

    Args:
        folder: the preprocessed data set; need not be there yet.
        cases: all of its training cases.

    Returns:
        The folds; empty where nnU-Net cannot split so few cases.

    Raises:
        CILError: the split that is there has another form, or names a case that is not there.
    """
    own = [] if _is_cut_off(folder / SPLITS_FILE, cases) else read_split(folder)
    if own:
        _refuse_unknown(own, folder, cases)
        return own
    return _made_by_nnunet(cases) if len(cases) >= NUM_FOLDS else []


def _made_by_nnunet(cases: Sequence[str]) -> list[Fold]:
    """Returns the split that nnU-Net makes where there is none."""
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    made = generate_crossval_split(sorted(cases), seed=SPLIT_SEED, n_splits=NUM_FOLDS)
    return [Fold(training=tuple(map(str, f["train"])), validation=tuple(map(str, f["val"]))) for f in made]


def _refuse_unknown(folds: Sequence[Fold], folder: Path, cases: Collection[str]) -> None:
    known = set(cases)
    for number, fold in enumerate(folds):
        if unknown := [case for case in (*fold.training, *fold.validation) if case not in known]:
            raise CILError(
                f"{folder / SPLITS_FILE}: fold {number} names {few_names(unknown)}, which {folder.name} does not have (its cases "
                f"are called {min(known, default='')!r} and the like). Correct the names, or add these cases."
            )


def fold_of(folder: Path, fold: int | str, cases: Sequence[str]) -> Fold:
    """Returns the cases of a fold.

    Args:
        folder: the preprocessed data set; need not be there yet.
        fold: its number, or all: then all cases are for training, and validated on.
        cases: all training cases of the data set.

    Raises:
        CILError: there is no such fold, there are too few cases for nnU-Net's split, or the split cannot be used.
    """
    if fold == "all":
        return Fold(training=tuple(cases), validation=tuple(cases))
    folds, file = split_of(folder, cases), folder / SPLITS_FILE
    if not folds:
        refuse_few_cases(folder, len(cases))
    number = int(fold)
    if not 0 <= number < len(folds):
        has = "fold 0" if len(folds) == 1 else f"folds 0 to {len(folds) - 1}"
        whose = str(file) if file.exists() else f"nnU-Net's split of {folder.name}"
        raise CILError(
            f"There is no fold {fold}: {whose} has {has} only, and nnU-Net would split at random instead. Choose another fold, "
            f"or write a split of your own to {file}."
        )
    return folds[number]


def refuse_few_cases(folder: Path, num_cases: int, hint: str = "") -> NoReturn:
    """Refuses a data set that nnU-Net cannot split.

    Args:
        folder: the preprocessed data set; need not be there yet.
        num_cases: the number of its training cases.
        hint: one more sentence.

    Raises:
        CILError: always.
    """
    raise CILError(
        f"{folder.name} has {num_cases} training cases, but nnU-Net's split into {NUM_FOLDS} folds needs {NUM_FOLDS}. Add cases, "
        f"write a split of your own to {folder / SPLITS_FILE}, or train fold all.{hint}"
    )


def unlisted_cases(folder: Path, cases: Iterable[str]) -> list[str]:
    """Returns the cases that no fold of the data set's own split names; none where it has no split yet."""
    all_cases = list(cases)
    folds = [] if _is_cut_off(folder / SPLITS_FILE, all_cases) else read_split(folder)
    listed = {case for fold in folds for case in (*fold.training, *fold.validation)}
    return sorted(set(all_cases) - listed) if folds else []


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
    fold_by_case = {case: i for i, fold in reversed(list(enumerate(folds))) for case in fold}
    shuffled.sort(key=lambda case: fold_by_case.get(case, len(folds)))
    return [sorted(shuffled[i::num_steps]) for i in range(num_steps)]
