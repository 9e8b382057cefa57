"""Says how long an extension is trained where ``--training num_epochs=`` does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_cil.schedule import DEFAULT_EPOCHS

SHARE = 1.0
"""The length over that of a training of the new classes from scratch, which has nnU-Net's own number of epochs."""

WHY = "in short trials old and new organs gained up to it on heart MR, up to half of it on head-and-neck CT"
"""Says where ``SHARE`` comes from, as the end of a sentence (benchmarks/notebook/2026-11-29-extension-length.md)."""


def with_length(training: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings of a training with the default length, where they have none and it is not nnU-Net's own."""
    length = {} if SHARE == 1 else {"num_epochs": max(1, round(SHARE * DEFAULT_EPOCHS))}
    return {**length, **training}


def num_epochs(training: Mapping[str, Any]) -> int:
    """Returns the length that an extension with these settings has."""
    return int(with_length(training).get("num_epochs", DEFAULT_EPOCHS))


def length_note(training: Mapping[str, Any]) -> str:
    """Says what the default length is, and why; empty where the settings have a length."""
    if "num_epochs" in training:
        return ""
    share = "as many as" if SHARE == 1 else f"{SHARE:.3g} times as many as"
    return (
        f"Length: {num_epochs(training)} epochs, {share} a training from scratch has: {WHY}. Choose another with --training "
        "num_epochs=N."
    )
