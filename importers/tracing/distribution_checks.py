"""What ``torch.distributions`` asks of the numbers that it is given, asserted when the compiled program runs."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import torch
from torch.distributions import constraints, distribution, geometric
from torch.overrides import TorchFunctionMode

_MESSAGE = "a parameter or a sample of a distribution does not satisfy its constraint"
_QUESTIONS = (torch._is_all_true, torch.Tensor.__bool__)
_FILES = (constraints.__file__, distribution.__file__, geometric.__file__)


class ConstraintsAsserted(TorchFunctionMode):
    """Answers yes to ``torch._is_all_true(valid)`` of ``torch.distributions`` and to the conditions of its constraints,
    and asserts them.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _QUESTIONS and _asks(sys._getframe(1)):
            torch.ops.aten._assert_async.msg(args[0].all(), _MESSAGE)
            return True
        return func(*args, **(kwargs or {}))


def _asks(frame: FrameType | None) -> bool:
    """Whether a distribution asks, past the modes that hand a call on."""
    while frame is not None and frame.f_code.co_name == "__torch_function__":
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename in _FILES


__all__ = ["ConstraintsAsserted"]
