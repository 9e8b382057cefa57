"""The network that plain nnU-Net builds from plans, and which classes plans may name for it."""

from __future__ import annotations

import pydoc
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_cil.errors import CILError

if TYPE_CHECKING:
    from torch import nn

NETWORKS = "dynamic_network_architectures"
"""The package of nnU-Net's networks."""

PARTS = (NETWORKS, "torch.nn")
"""The packages whose layers and blocks a network of nnU-Net is made of."""

_DOTTED_NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)


def plain_network(plans: Mapping[str, Any], dataset_json: Mapping[str, Any], configuration: str) -> nn.Module:
    """Builds the network of nnU-Net's own trainer, without deep supervision.

    It calls what the plans name: ``check_network_classes`` comes before.

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


def check_network_classes(file: Path, plans: Mapping[str, Any], trusted: Sequence[str] = ()) -> None:
    """Refuses plans whose network is not made of the classes of nnU-Net's own packages.

    nnU-Net imports and calls whatever its plans name, so that plans from a stranger could run any code. Nothing is imported
    here but these packages, and those that the user trusts.

    Args:
        file: the plans file, for the message.
        plans: its content; every configuration is looked at.
        trusted: further packages, by name.

    Raises:
        CILError: names the class.
    """
    for configuration, settings in plans["configurations"].items():
        architecture = settings.get("architecture") if isinstance(settings, Mapping) else None
        if architecture is None:  # inherited, or of an early nnU-Net, which imports nothing by name
            continue
        where = f"Configuration {configuration!r} in {file}"
        for name, packages in _named_classes(architecture, where):
            if not _is_module_class(name, (*packages, *trusted)):
                raise CILError(
                    f"{where} names {name!r}, which is no class of {' or '.join(packages)}. Such a name can run any code, "
                    "so it is not imported. If you know its package and trust it, name the package with --trust-package."
                )


def _named_classes(architecture: Any, where: str) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yields each name that nnU-Net imports for a network, and the packages that it may come from."""
    try:
        yield architecture["network_class_name"], (NETWORKS,)
        arguments = architecture["arch_kwargs"]
        for key in architecture["_kw_requires_import"]:
            if arguments[key] is not None:
                yield arguments[key], PARTS
    except (KeyError, TypeError) as error:
        raise CILError(f"{where} does not describe its network as nnU-Net does. Restore the file.") from error


def _is_module_class(name: Any, packages: Sequence[str]) -> bool:
    """Returns whether a name stands for a network or layer that one of the packages defines."""
    if not isinstance(name, str) or not _DOTTED_NAME.fullmatch(name) or not _is_of(name, packages):
        return False
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
    from torch import nn

    try:
        found = pydoc.locate(name)
    except pydoc.ErrorDuringImport:
        return False
    if found is None and _is_of(name, [NETWORKS]):  # as nnU-Net does, for classes that have moved
        import dynamic_network_architectures

        folder = Path(dynamic_network_architectures.__path__[0]) / "architectures"
        found = recursive_find_python_class(str(folder), name.split(".")[-1], f"{NETWORKS}.architectures")
    return isinstance(found, type) and issubclass(found, nn.Module) and _is_of(found.__module__, packages)


def _is_of(name: str, packages: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)
