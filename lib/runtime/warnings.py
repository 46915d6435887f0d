"""What a compiled module warns of, at the line of the user's that called us."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

_INSIDE = {"torch_tvm", "torch", "contextlib", "functools"}


class FallbackWarning(UserWarning):
    """Some ops of a compiled module run in PyTorch."""


def warn_user(message: str, category: type[Warning]) -> None:
    """Warn at the innermost line that is neither ours nor PyTorch's."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _is_inside(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _is_inside(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _INSIDE


__all__ = ["FallbackWarning", "warn_user"]
