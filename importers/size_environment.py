"""Snapshots of what PyTorch's ``ShapeEnv`` knows of unknown sizes."""

from __future__ import annotations

from copy import copy
from typing import Any

from torch.fx.experimental.symbolic_shapes import ShapeEnv

_STATE = (
    "guards",
    "axioms",
    "var_to_range",
    "var_to_range_sloc",
    "replacements",
    "replacements_slocs",
    "divisible",
)
_CACHED = [method for method in vars(ShapeEnv).values() if hasattr(method, "cache_clear")]


def snapshot(environment: ShapeEnv) -> dict[str, Any]:
    """What is assumed of the sizes now."""
    return {name: copy(getattr(environment, name)) for name in _STATE}


def restore(environment: ShapeEnv, before: dict[str, Any]) -> None:
    """Forget what was assumed since; symbols made since stay."""
    made = {name: dict(getattr(environment, name)) for name in ("var_to_range", "var_to_range_sloc")}
    for name, value in before.items():
        setattr(environment, name, copy(value))
    for name, known in made.items():
        setattr(environment, name, {**known, **getattr(environment, name)})
    forget(environment)


def forget(environment: ShapeEnv) -> None:
    """Have nothing read from a cache that was true before."""
    for cached in _CACHED:
        cached.cache_clear()
    environment._update_version_counter()
    environment._version_counter += 1
    if hasattr(environment, "_replacements_version_counter"):  # since PyTorch 2.13
        environment._replacements_version_counter += 1


__all__ = ["forget", "restore", "snapshot"]
