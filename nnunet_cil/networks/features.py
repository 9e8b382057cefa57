"""Reading activations while a network runs, without changing the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel


def bare_network(network: nn.Module) -> nn.Module:
    """Returns the network without DDP and torch.compile around it."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    return network._orig_mod if isinstance(network, OptimizedModule) else network


def last_segmentation_layer(network: nn.Module) -> nn.Module:
    """Returns the full-resolution segmentation layer of nnU-Net's U-Nets, a 1x1 convolution.

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


def num_features(network: nn.Module) -> int:
    """Returns the number of channels of the full-resolution features; raises as ``last_segmentation_layer``."""
    return int(last_segmentation_layer(network).in_channels)  # type: ignore[arg-type]


def encoder_stages(network: nn.Module) -> list[nn.Module]:
    """Returns the encoder's stages, full resolution first, the bottleneck last.

    Raises:
        NotImplementedError: a network of another structure.
    """
    stages = getattr(getattr(network, "encoder", None), "stages", None)
    if stages is None:
        raise NotImplementedError(
            f"{type(network).__name__} has no 'encoder.stages'; nnunet_cil supports nnU-Net's plain and residual U-Nets."
        )
    return list(stages)


class ActivationReader:
    """Keeps activations of the last forward pass inside of ``with reading()``; outside of it nothing is kept.

    The hooks are registered before the first forward pass, since ``torch.compile`` ignores later ones. They change no
    activation, and nothing enters the state dict.
    """

    def __init__(self, num_activations: int) -> None:
        """Starts with nothing; a subclass registers ``_keep`` as hook of ``num_activations`` modules."""
        self._kept: list[Tensor | None] = [None] * num_activations
        self._is_reading = False

    def _keep(self, index: int, activation: Tensor) -> None:
        if self._is_reading:
            self._kept[index] = activation

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keeps activations as long as the context lasts, and drops them at its end."""
        self._is_reading = True
        try:
            yield
        finally:
            self._is_reading = False
            self._kept = [None] * len(self._kept)

    def _take(self) -> list[Tensor]:
        kept = [activation for activation in self._kept if activation is not None]
        if len(kept) < len(self._kept):
            raise RuntimeError("The network has not run since its activations were last taken.")
        self._kept = [None] * len(self._kept)
        return kept


class StageReader(ActivationReader):
    """Keeps the outputs of encoder stages, (batch, channels, *spatial) float each."""

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        """Hooks the reader into the stages."""
        super().__init__(len(stages))
        for index, stage in enumerate(stages):
            stage.register_forward_hook(partial(self._keep_output, index))

    def _keep_output(self, index: int, _module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
        self._keep(index, output)

    def take(self) -> list[Tensor]:
        """Returns the outputs of the last forward pass, one a stage, and drops them.

        Raises:
            RuntimeError: the network has not run since.
        """
        return self._take()


class FeatureReader(ActivationReader):
    """Keeps the input of the last segmentation layer: the full-resolution features, (batch, channels, *spatial) float."""

    def __init__(self, network: nn.Module) -> None:
        """Hooks the reader into a network with nnU-Net's decoder.

        Raises:
            NotImplementedError: a network of another structure.
        """
        super().__init__(1)
        last_segmentation_layer(network).register_forward_pre_hook(self._keep_input)

    def _keep_input(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._keep(0, inputs[0])

    def take(self) -> Tensor:
        """Returns the features of the last forward pass, and drops them.

        Raises:
            RuntimeError: the network has not run since.
        """
        return self._take()[0]


class HeadReader(ActivationReader):
    """Keeps the inputs of all segmentation layers, (batch, channels, *spatial) float each, lowest resolution first.

    As long as it reads, the network runs all of them, as with deep supervision.
    """

    def __init__(self, network: nn.Module) -> None:
        """Hooks the reader into a network with nnU-Net's decoder; raises as ``last_segmentation_layer``."""
        last_segmentation_layer(network)
        decoder: Any = network.decoder
        self._decoder, layers = decoder, decoder.seg_layers
        self.num_features = [int(layer.in_channels) for layer in layers]
        """The number of channels of each input."""
        super().__init__(len(layers))
        self._hooks = [
            layer.register_forward_pre_hook(partial(self._keep_input, index)) for index, layer in enumerate(layers)
        ]

    def _keep_input(self, index: int, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._keep(index, inputs[0])

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Reads as the parent, with the network's deep supervision on."""
        before, self._decoder.deep_supervision = self._decoder.deep_supervision, True
        try:
            with super().reading():
                yield
        finally:
            self._decoder.deep_supervision = before

    def take(self) -> list[Tensor]:
        """Returns the inputs of the last forward pass, and drops them; raises as ``StageReader.take``."""
        return self._take()

    def remove(self) -> None:
        """Takes the hooks out of the network."""
        for hook in self._hooks:
            hook.remove()
