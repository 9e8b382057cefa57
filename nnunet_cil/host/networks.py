"""The network that plain nnU-Net builds from plans, and which classes plans may name for it."""

from __future__ import annotations

import pydoc
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_cil.errors import CILError
from nnunet_cil.files import shortened

if TYPE_CHECKING:
    from torch import nn

NETWORKS = "dynamic_network_architectures"
"""The package of nnU-Net's networks."""

PARTS = (NETWORKS, "torch.nn")
"""The packages whose layers and blocks a network of nnU-Net is made of."""

_RESAMPLING = ("preprocessing.resampling", "")
_HELPERS = {
    "image_reader_writer": ("imageio", "BaseReaderWriter"),
    "label_manager": ("utilities.label_handling", "LabelManager"),
    "preprocessor_name": ("preprocessing", "DefaultPreprocessor"),
    "normalization_schemes": ("preprocessing.normalization", "ImageNormalization"),
    **dict.fromkeys(("resampling_fn_data", "resampling_fn_seg", "resampling_fn_probabilities"), _RESAMPLING),
}
"""Key of plans -> the package of nnU-Net that is searched for its name, and the class that it must be a kind of; none for a
function."""

_MOST_LAYERS = 100
"""The most stages of a network, and layers of a stage; nnU-Net plans six or so."""

_DOTTED_NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)


def plain_network(plans: Mapping[str, Any], dataset_json: Mapping[str, Any], configuration: str) -> nn.Module:
    """Builds the network of nnU-Net's own trainer, without deep supervision and without memory for its weights.

    It calls what the plans name: ``check_network_classes`` comes before.

    Args:
        plans: nnU-Net plans.
        dataset_json: the labels count the outputs, the channels the inputs.
        configuration: nnU-Net's.
    """
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(dict(plans))
    settings = manager.get_configuration(configuration)
    inputs = determine_num_input_channels(manager, settings, dict(dataset_json))
    outputs = manager.get_label_manager(dict(dataset_json)).num_segmentation_heads
    with torch.device("meta"):
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
    _check_helpers(file, plans)
    for configuration, settings in plans["configurations"].items():
        architecture = settings.get("architecture") if isinstance(settings, Mapping) else None
        if architecture is None:  # inherited, or of an early nnU-Net, which imports nothing by name
            continue
        where = f"Configuration {configuration!r} in {file}"
        _check_size(architecture, where)
        for name, packages in _named_classes(architecture, where):
            if not _is_module_class(name, (*packages, *trusted)):
                raise CILError(
                    f"{where} names {name!r}, which is no class of {' or '.join(packages)}. Such a name can run any code, "
                    "so it is not imported. If you know its package and trust it, name the package with --trust-package."
                )


def _check_helpers(file: Path, plans: Mapping[str, Any]) -> None:
    """Refuses plans that name something else for nnU-Net's own helpers than these: it calls whatever its modules call so.

    Raises:
        CILError: says which name.
    """
    for key, name in _helpers(plans):
        if not _is_helper(_HELPERS[key], name):
            raise CILError(
                f"{file} names {shortened(name)} for {key!r}, which is nothing of that kind in nnU-Net. Restore the file, or "
                "install the version of nnU-Net that wrote it."
            )


def _helpers(plans: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields each key of plans that names one of nnU-Net's helpers, and the name."""
    for settings in (plans, *plans["configurations"].values()):
        for key in _HELPERS.keys() & (settings.keys() if isinstance(settings, Mapping) else ()):
            names = settings[key]
            yield from ((key, name) for name in (names if isinstance(names, list) else [names]))


def _is_helper(place: tuple[str, str], name: Any) -> bool:
    """Returns whether a module of nnU-Net has a class of that name and kind, or a function of its own."""
    import inspect

    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    package, kind = place
    if not isinstance(name, str) or not name.isidentifier():
        return False
    folder = Path(nnunetv2.__path__[0]).joinpath(*package.split("."))
    found = recursive_find_python_class(str(folder), name, f"nnunetv2.{package}")
    if not kind:
        return inspect.isfunction(found) and _is_of(found.__module__, [f"nnunetv2.{package}"])
    return isinstance(found, type) and kind in (base.__name__ for base in found.__mro__)


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


def _check_size(architecture: Any, where: str) -> None:
    """Refuses a network that would take for ever to build."""
    arguments = architecture.get("arch_kwargs") if isinstance(architecture, Mapping) else None
    for key, value in arguments.items() if isinstance(arguments, Mapping) else ():
        numbers = value if isinstance(value, list) else [value]
        is_count = key.startswith("n_")
        if (is_count and not all(type(n) is int and 0 <= n <= _MOST_LAYERS for n in numbers)) or len(
            numbers
        ) > _MOST_LAYERS:
            raise CILError(
                f"{where} has {shortened(value)} for {key!r}, which is no number of layers. Restore the file."
            )


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
