"""Reading the last decoder stage's features while the network runs, without changing the network."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class FeatureReader:
    """Keeps the input of the last segmentation layer: the full-resolution features (batch, channels, *spatial).

    The network stays as it is: a forward pre-hook looks on, nothing enters the state dict. Works under
    ``torch.compile`` when made before the first forward pass.
    """

    def __init__(self, network: nn.Module) -> None:
        """Hooks the reader into a network with nnU-Net's decoder."""
        self._features: Tensor | None = None
        network.decoder.seg_layers[-1].register_forward_pre_hook(self._keep)  # type: ignore[union-attr, index]

    def _keep(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._features = inputs[0]

    def take(self) -> Tensor:
        """The features of the last forward pass; the reader lets go of them."""
        features, self._features = self._features, None
        if features is None:
            raise RuntimeError("The network has not run since its features were last taken.")
        return features

    def clear(self) -> None:
        """Lets go of the features."""
        self._features = None
