"""nnU-Net's plans files: what a configuration settles, and a small network in place of the planned one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any


def configuration_settings(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """Of a configuration of the plans, with what it inherits from another one."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    settings: dict[str, Any] = PlansManager(dict(plans)).get_configuration(configuration).configuration
    return settings


def small_plans(
    plans: Mapping[str, Any],
    name: str,
    configuration: str,
    *,
    features: Sequence[int],
    patch_size: Sequence[int],
    batch_size: int,
) -> dict[str, Any]:
    """A copy of the plans of a U-Net, plain or residual: one configuration, fewer features, and another patch and batch.

    One convolution (or block) at full resolution in the encoder and one a stage in the decoder, two elsewhere. The preprocessed
    data stay those of the original plans. Batch Dice is on, as nnU-Net plans it for patches that cover a part of the image.

    Args:
        plans: nnU-Net plans.
        name: name of the copy.
        configuration: the only one that is kept, e.g. ``3d_fullres``.
        features: features of each stage; their number is the number of stages.
        patch_size: of the configuration.
        batch_size: of the configuration.
    """
    copied: dict[str, Any] = copy.deepcopy(dict(plans))
    config = copied["configurations"][configuration]
    copied.update(plans_name=name, configurations={configuration: config})
    config.update(patch_size=list(patch_size), batch_size=batch_size, batch_dice=True)
    kwargs = config["architecture"]["arch_kwargs"]
    stages = len(features)
    kwargs.update(
        n_stages=stages,
        features_per_stage=list(features),
        n_conv_per_stage_decoder=[1] * (stages - 1),
    )
    residual = "n_blocks_per_stage" in kwargs
    kwargs["n_blocks_per_stage" if residual else "n_conv_per_stage"] = [1] + [2] * (stages - 1)
    for key in ("kernel_sizes", "strides"):
        kwargs[key] = kwargs[key][:stages]
    return copied
