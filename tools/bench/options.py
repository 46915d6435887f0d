"""How a runtime is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Call = Callable[[], Any]
"""Runs a model once on the inputs that it was prepared with and returns its flat results."""


@dataclass(frozen=True)
class Options:
    """``accuracy`` is ours alone: ``"strict"``, ``"default"`` or ``"fast"``. A call in ``training`` is a step of it."""

    threads: int
    accuracy: str = "default"
    training: bool = False


__all__ = ["Call", "Options"]
