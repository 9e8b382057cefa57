"""Finds where the networks of nnU-Net have what a step reads and widens. Another architecture is one more entry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The names of a network's parts, as ``nn.Module.get_submodule`` takes them.

    Attributes:
        heads: the segmentation layer, or an ``nn.ModuleList`` of all, lowest resolution first, whether or not deep supervision
            is on. The features are the input of the last one.
        encoder_stages: the encoder's stages, full resolution first, the bottleneck last; None where there are none.
        deep_supervision: the module whose attribute ``deep_supervision`` lets all heads run; None where one does.
    """

    heads: str
    encoder_stages: str | None = None
    deep_supervision: str | None = None


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(heads="decoder.seg_layers", encoder_stages="encoder.stages", deep_supervision="decoder"),
)
"""One entry for each structure: this is that of nnU-Net's plain and residual U-Nets, whatever the preset."""


def architecture_of(network: nn.Module) -> Architecture:
    """Returns the entry that describes a network.

    Raises:
        NotImplementedError: there is none.
    """
    for architecture in ARCHITECTURES:
        if _part(network, architecture.heads) is not None:
            return architecture
    wanted = " or ".join(repr(architecture.heads) for architecture in ARCHITECTURES)
    raise NotImplementedError(
        f"{type(network).__name__} has no {wanted}: nnunet_cil finds its segmentation layers and features there, in nnU-Net's "
        "plain and residual U-Nets. Take plans with one of these."
    )


def head_layers(network: nn.Module) -> Sequence[nn.Module]:
    """Returns the segmentation layers, lowest resolution first; raises as ``architecture_of``."""
    part = _part(network, architecture_of(network).heads)
    return list(part) if isinstance(part, nn.ModuleList) else [part]


def encoder_stages(network: nn.Module) -> list[nn.Module]:
    """Returns the encoder's stages, full resolution first, the bottleneck last.

    Raises:
        NotImplementedError: it has none where its entry says, or no entry.
    """
    stages = _part(network, architecture_of(network).encoder_stages)
    if stages is None:
        raise NotImplementedError(f"{type(network).__name__} has no encoder stages. Use a trainer that compares none.")
    return list(stages)


def switch_deep_supervision(network: nn.Module, is_on: bool) -> bool:
    """Lets all segmentation layers run or the last one alone, where there are several; returns how it was."""
    module = _part(network, architecture_of(network).deep_supervision)
    if module is None:
        return False
    before, module.deep_supervision = module.deep_supervision, is_on
    return bool(before)


def is_head(name: str) -> bool:
    """Tells whether a name in a state dict is of a segmentation layer: a row of such a tensor is a channel's."""
    return any(name.startswith(f"{architecture.heads}.") for architecture in ARCHITECTURES)


def head_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """Returns the names of weight and bias of each segmentation layer in a state dict, lowest resolution first."""
    stems = {name.removesuffix(".weight") for name in names if is_head(name) and name.endswith(".weight")}
    ordered = sorted(stems, key=lambda stem: (len(stem), stem))  # 2 before 10
    return [(f"{stem}.weight", f"{stem}.bias") for stem in ordered]


def _part(network: nn.Module, name: str | None) -> Any:
    if name is None:
        return None
    try:
        return network.get_submodule(name)
    except AttributeError:
        return None
