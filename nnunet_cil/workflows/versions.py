"""The versions of the packages that results depend on, which are kept with them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform

from nnunet_cil import __version__


def versions() -> dict[str, str]:
    """Returns the versions of what the numbers depend on."""
    names = ("nnunet-cil", "nnunetv2", "torch", "numpy", "scipy", "SimpleITK")
    found = {"Python": platform.python_version()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {**found, "nnunet-cil": __version__}
