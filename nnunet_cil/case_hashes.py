"""The cases that a model was trained and validated on, as hashes: the names of cases are often patients' IDs."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nnunet_cil.errors import few_names
from nnunet_cil.validation import validated

_DIGEST_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class CaseHashes:
    """The cases of a fold, each as a keyed hash of its name.

    Attributes:
        key: of the hashes, in hexadecimal; random, so that it is another one in every training.
        training: hashes of the training cases, sorted.
        validation: hashes of the validation cases, sorted; empty in fold ``all``.
    """

    key: str
    training: tuple[str, ...]
    validation: tuple[str, ...]

    @classmethod
    def of(cls, training: Iterable[str], validation: Iterable[str]) -> CaseHashes:
        """Hashes the names of cases with a new key."""
        key = secrets.token_hex(16)
        hashed = (tuple(sorted({_hash(case, key) for case in cases})) for cases in (training, validation))
        return cls(key=key, training=next(hashed), validation=next(hashed))

    def __post_init__(self) -> None:
        """Refuses a key that is none."""
        if not re.fullmatch(r"([0-9a-f]{2}){1,64}", self.key):
            raise ValueError("hashes with a key in hexadecimal")

    @classmethod
    def from_json(cls, stored: object) -> CaseHashes:
        """Reads what ``to_json`` has written; keys that a later version added are left out.

        Raises:
            CILError: it is damaged.
        """
        known = stored
        if isinstance(stored, dict):
            known = {key: stored[key] for key in ("key", "training", "validation") if key in stored}
            joined = {key: value.split() for key, value in known.items() if key != "key" and isinstance(value, str)}
            known |= joined  # early versions wrote lists
        where = "A record of the cases that a model was trained on"
        hashes: CaseHashes = validated(cls, known, where, "Restore the model, or export it again.")
        return hashes

    def to_json(self) -> dict[str, str]:
        """Returns the hashes as plain text: lists of thousands make a checkpoint slow to read."""
        return {"key": self.key, "training": " ".join(self.training), "validation": " ".join(self.validation)}

    def trained_on(self, cases: Iterable[str]) -> list[str]:
        """Returns which of the cases are training cases."""
        return self._among(cases, self.training)

    def differences(self, training: Sequence[str], validation: Sequence[str]) -> str:
        """Says how the cases of a fold differ from these; empty where they are the same."""
        found = []
        for what, cases, known in (
            ("training", training, self.training),
            ("validation", validation, self.validation),
        ):
            same = self._among(cases, known)
            new = sorted(set(cases) - set(same))
            gone = len(known) - len(set(same))
            parts = [f"{few_names(new)} new"] if new else []
            parts += [f"{gone} gone"] if gone else []
            if parts:
                found.append(f"{what} cases: {', '.join(parts)}")
        return "; ".join(found)

    def _among(self, cases: Iterable[str], hashes: tuple[str, ...]) -> list[str]:
        known = set(hashes)
        return [case for case in cases if _hash(case, self.key) in known]


def _hash(case: str, key: str) -> str:
    return hashlib.blake2b(case.encode(), key=bytes.fromhex(key), digest_size=_DIGEST_BYTES).hexdigest()
