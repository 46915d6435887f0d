"""Programs of the end-to-end suite, by what they are about. A new one is a function or a class under ``@case``."""

from __future__ import annotations

import importlib
import pkgutil


def load() -> None:
    """Import every file here, which registers its cases."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


__all__ = ["load"]
