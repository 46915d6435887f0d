"""Op lowerings by family; importing this package's modules fills the registry."""

from __future__ import annotations

import importlib
import pkgutil


def load() -> None:
    """Import every family, so that its lowerings are registered."""
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        importlib.import_module(module.name)
