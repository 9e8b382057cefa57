"""Reading activations while a network runs, without changing the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_cil.networks.architectures import head_layers, switch_deep_supervision


def bare_network(network: nn.Module) -> nn.Module:
    """Returns the network without DDP and torch.compile around it."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    return network._orig_mod if isinstance(network, OptimizedModule) else network


def num_features(network: nn.Module) -> int:
    """Returns the number of channels of the full-resolution features; raises as ``architecture_of``."""
    return int(head_layers(network)[-1].in_channels)  # type: ignore[arg-type]


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
        """Hooks the reader into a network; raises as ``architecture_of``."""
        super().__init__(1)
        head_layers(network)[-1].register_forward_pre_hook(self._keep_input)

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
        """Hooks the reader into a network; raises as ``architecture_of``."""
        self._network, layers = network, head_layers(network)
        self.num_features = [int(layer.in_channels) for layer in layers]  # type: ignore[arg-type]
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
        before = switch_deep_supervision(self._network, True)
        try:
            with super().reading():
                yield
        finally:
            switch_deep_supervision(self._network, before)

    def take(self) -> list[Tensor]:
        """Returns the inputs of the last forward pass, and drops them; raises as ``StageReader.take``."""
        return self._take()

    def remove(self) -> None:
        """Takes the hooks out of the network."""
        for hook in self._hooks:
            hook.remove()
