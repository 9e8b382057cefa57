"""Reading the last decoder stage's features while the network runs, without changing the network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn


def last_segmentation_layer(network: nn.Module) -> nn.Module:
    """The full-resolution segmentation layer of nnU-Net's U-Nets, a 1x1 convolution.

    Raises:
        NotImplementedError: a network of another structure.
    """
    layers = getattr(getattr(network, "decoder", None), "seg_layers", None)
    if layers is None:
        raise NotImplementedError(
            f"{type(network).__name__} has no 'decoder.seg_layers'; nnunet_cil supports nnU-Net's plain and residual U-Nets."
        )
    layer: nn.Module = layers[-1]
    return layer


def encoder_stages(network: nn.Module) -> list[nn.Module]:
    """The encoder's stages, full resolution first, the bottleneck last.

    Raises:
        NotImplementedError: a network of another structure.
    """
    stages = getattr(getattr(network, "encoder", None), "stages", None)
    if stages is None:
        raise NotImplementedError(
            f"{type(network).__name__} has no 'encoder.stages'; nnunet_cil supports nnU-Net's plain and residual U-Nets."
        )
    return list(stages)


class StageReader:
    """Keeps the outputs of encoder stages: (batch, channels, *spatial) each. As ``FeatureReader``."""

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        """Hooks the reader into the stages."""
        self._outputs: list[Tensor | None] = [None] * len(stages)
        for index, stage in enumerate(stages):
            stage.register_forward_hook(partial(self._keep, index))

    def _keep(self, index: int, _module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
        self._outputs[index] = output

    def take(self) -> list[Tensor]:
        """The outputs of the last forward pass; the reader lets go of them."""
        outputs = [o for o in self._outputs if o is not None]
        if len(outputs) < len(self._outputs):
            raise RuntimeError("The network has not run since its stages were last taken.")
        self.clear()
        return outputs

    def clear(self) -> None:
        """Lets go of the outputs."""
        self._outputs = [None] * len(self._outputs)


class FeatureReader:
    """Keeps the input of the last segmentation layer: the full-resolution features (batch, channels, *spatial).

    The network stays as it is: a forward pre-hook looks on, nothing enters the state dict. Works under
    ``torch.compile`` when made before the first forward pass.
    """

    def __init__(self, network: nn.Module) -> None:
        """Hooks the reader into a network with nnU-Net's decoder.

        Raises:
            NotImplementedError: a network of another structure.
        """
        self._features: Tensor | None = None
        last_segmentation_layer(network).register_forward_pre_hook(self._keep)

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
