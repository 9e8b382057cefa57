"""nnU-Net's plans files: what a configuration settles, and copies for a smaller network or for another data set."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError, did_you_mean
from nnunet_cil.files import read_json
from nnunet_cil.host.folders import dataset_id
from nnunet_cil.names import valid_name
from nnunet_cil.validation import validated

_AGAIN = "Restore the file, or remove it and plan and preprocess the data set again."


_PROPERTIES = "foreground_intensity_properties_per_channel"
_EARLY_PROPERTIES = "foreground_intensity_properties_by_modality"
"""Names ``_PROPERTIES`` as the first plans of nnU-Net 2 did."""


@dataclass(frozen=True, kw_only=True)
class _Plans:
    """The keys of plans that are read here and in nnU-Net, beside those of the configurations."""

    dataset_name: str
    plans_name: str
    configurations: dict[str, dict[str, Any]]
    image_reader_writer: str = ""
    transpose_forward: tuple[int, ...] = ()
    transpose_backward: tuple[int, ...] = ()
    foreground_intensity_properties_per_channel: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Configuration:
    """The settings of a configuration that are read here."""

    data_identifier: str
    patch_size: tuple[int, ...] = ()
    batch_size: int = 0
    spacing: tuple[float, ...] = ()
    normalization_schemes: tuple[str, ...] = ()
    previous_stage: str | None = None
    architecture: dict[str, Any] = field(default_factory=dict)


def read_plans(file: Path, remedy: str, again: str = _AGAIN) -> dict[str, Any]:
    """Reads nnU-Net's plans.

    Args:
        file: of the plans.
        remedy: says what to do when the file is missing, or holds no object.
        again: says what to do when it lacks something.

    Raises:
        CILError: the file is missing, or lacks what nnU-Net needs.
    """
    plans = read_json(file, remedy, again)
    found: _Plans = validated(_Plans, plans, str(file), again)
    if not found.configurations:
        raise CILError(f"{file} has no configuration. {again}")
    if _EARLY_PROPERTIES in plans:  # nnU-Net reads it all the same
        plans.setdefault(_PROPERTIES, plans.pop(_EARLY_PROPERTIES))
    return plans


def configuration_settings(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """Returns the settings of a configuration of the plans, with what it inherits from another one.

    Raises:
        CILError: there is no such configuration, or it lacks what nnU-Net needs.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    where = f"The configuration {configuration!r} of the plans {plans.get('plans_name')!r}"
    known = plans["configurations"]
    if configuration not in known:
        raise CILError(
            f"The plans {plans.get('plans_name')!r} have no configuration {configuration!r}{did_you_mean(configuration, known)}."
        )
    try:
        settings: dict[str, Any] = PlansManager(dict(plans)).get_configuration(configuration).configuration
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CILError(f"{where} cannot be read by nnU-Net ({reason}). {_AGAIN}") from error
    validated(_Configuration, settings, where, _AGAIN)
    return settings


def stages(plans: Mapping[str, Any], configuration: str) -> tuple[str, ...]:
    """Returns the configurations that are trained for one, in order: before a cascade the one whose predictions it sees.

    Raises:
        CILError: there is no such configuration, or the two do not name each other as nnU-Net needs it.
    """
    before = configuration_settings(plans, configuration).get("previous_stage")
    if before is None:
        return (configuration,)
    settings = configuration_settings(plans, before)
    following = settings.get("next_stage")
    if settings.get("previous_stage") is not None:
        raise CILError(
            f"{before} of the plans {plans.get('plans_name')!r}, the stage before {configuration}, is a cascade itself. "
            "nnunet_cil trains cascades of two stages: choose another configuration."
        )
    if configuration not in ([following] if isinstance(following, str) else following or []):
        raise CILError(
            f"{before} of the plans {plans.get('plans_name')!r} does not have {configuration!r} as its 'next_stage', so that it "
            "would not predict for the cascade. Write it into the base plans, and run 'nnunet_cil plan' again."
        )
    return before, configuration


def is_cascade(plans: Mapping[str, Any], configuration: str) -> bool:
    """Tells whether a configuration's network sees the predictions of another one; false where the plans have none so called."""
    if configuration not in plans["configurations"]:
        return False
    return configuration_settings(plans, configuration).get("previous_stage") is not None


def preprocessed_for(plans: Mapping[str, Any], configuration: str) -> list[str]:
    """Returns the configurations that are preprocessed for one: itself; for a cascade two, and not itself.

    Raises:
        CILError: as ``stages``.
    """
    trained = stages(plans, configuration)
    return [configuration] if len(trained) == 1 else [_with_data(plans, stage) for stage in trained]


def _with_data(plans: Mapping[str, Any], configuration: str) -> str:
    """Returns a configuration, or that from which it inherits its data."""
    own = plans["configurations"][configuration]
    if "data_identifier" in own or "inherits_from" not in own:
        return configuration
    return _with_data(plans, own["inherits_from"])


def small_plans(
    plans: Mapping[str, Any],
    name: str,
    configuration: str,
    *,
    features: Sequence[int],
    patch_size: Sequence[int],
    batch_size: int,
) -> dict[str, Any]:
    """Copies the plans of a U-Net for a smaller one: one configuration, fewer features, another patch and batch.

    The network is plain or residual. It has one convolution (or block) at full resolution in the encoder and one a stage in the
    decoder, two elsewhere. The preprocessed data stay those of the original plans. Batch Dice is on, as nnU-Net plans it for
    patches that cover a part of the image.

    Args:
        plans: nnU-Net plans.
        name: the copy's name.
        configuration: the only one that is kept, e.g. ``3d_fullres``.
        features: the features of each stage; their number is the number of stages.
        patch_size: the configuration's patch size, in voxels.
        batch_size: the configuration's batch size.
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


def reader_of(plans: Mapping[str, Any]) -> str:
    """Returns the name of the reader that the plans were made with; empty where they do not say."""
    return str(plans.get("image_reader_writer", ""))


def refuse_other_data_set(plans: Mapping[str, Any], file: Path) -> None:
    """Refuses plans of another data set than they lie with: nnU-Net would train on that, and write its models there.

    Args:
        plans: the content of the file.
        file: in the preprocessed data set.

    Raises:
        CILError: the data set was renamed, or the file copied from another one.
    """
    name, folder = plans.get("dataset_name"), file.parent.name
    if name != folder:
        again = "if none of the steps is trained yet, run 'nnunet_cil plan' again"
        redo = again if "cil" in plans else f'write "dataset_name": "{folder}" there'
        raise CILError(
            f"{file} says that it is of the data set {name!r}, on which nnU-Net would train. Rename the folder back, or {redo}."
        )


def moved_name(plans_name: str, source: str) -> str:
    """Returns the name that the plans ``plans_name`` get once they are moved from the data set ``source``."""
    return f"{unmoved_name(plans_name)}From{dataset_id(source):03d}"


def unmoved_name(plans_name: str) -> str:
    """Returns the name that moved plans had on the data set that they come from."""
    return re.sub(r"From[0-9]{3,}$", "", plans_name)


def moved_plans(
    base: Mapping[str, Any], dataset: str, reader: str, name: str, *, same_data: bool = False
) -> dict[str, Any]:
    """Copies plans for another data set: nothing changes but names, and the reader.

    Args:
        base: the plans as nnU-Net wrote them; a step's block is left out.
        dataset: nnU-Net's name of the other data set.
        reader: the reader of its images.
        name: the copy's name.
        same_data: the names of the preprocessed folders stay, so that these are used again.

    Raises:
        CILError: the name cannot be part of a folder's name.
    """
    valid_name(name, f"The plans' name {name!r}")
    plans: dict[str, Any] = copy.deepcopy(dict(base))
    plans.pop("cil", None)
    plans |= {"dataset_name": dataset, "plans_name": name, "image_reader_writer": reader}
    if not same_data:
        for configuration_name, configuration in plans["configurations"].items():
            if "data_identifier" in configuration:
                configuration["data_identifier"] = f"{name}_{configuration_name}"
    return plans
