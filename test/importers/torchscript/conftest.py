"""Loads the tables of programs as real modules, because ``torch.jit.script`` reads their source."""

from __future__ import annotations

import importlib.util
import pathlib
import sys
from typing import Any


def load(name: str) -> Any:
    """``<name>.py`` beside this file as the module ``torchscript_<name>``."""
    full = f"torchscript_{name}"
    if full not in sys.modules:
        path = pathlib.Path(__file__).with_name(f"{name}.py")
        spec = importlib.util.spec_from_file_location(full, path)
        assert spec is not None and spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


programs = load("programs")
module_zoo = load("module_zoo")
rejects = load("rejects")
