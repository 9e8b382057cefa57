"""The network that plain nnU-Net builds from plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def plain_network(plans: Mapping[str, Any], dataset_json: Mapping[str, Any], configuration: str) -> nn.Module:
    """Builds the network of nnU-Net's own trainer, without deep supervision.

    Args:
        plans: nnU-Net plans.
        dataset_json: the labels count the outputs, the channels the inputs.
        configuration: nnU-Net's.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(dict(plans))
    settings = manager.get_configuration(configuration)
    inputs = determine_num_input_channels(manager, settings, dict(dataset_json))
    outputs = manager.get_label_manager(dict(dataset_json)).num_segmentation_heads
    network: nn.Module = nnUNetTrainer.build_network_architecture(manager, settings, inputs, outputs, False)
    return network
