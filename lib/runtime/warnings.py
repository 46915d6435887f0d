"""What a compiled module warns of."""

from __future__ import annotations


class FallbackWarning(UserWarning):
    """Some ops of a compiled module run in PyTorch."""


__all__ = ["FallbackWarning"]
