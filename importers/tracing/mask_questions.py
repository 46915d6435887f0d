"""What ``nn.Transformer`` asks of the numbers of its masks, answered without looking at them."""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import Any

import torch
from torch.nn.modules import transformer
from torch.overrides import TorchFunctionMode


def asks_of_mask(name: str) -> bool:
    """Whether this is TorchScript's name (perhaps a mangled one) of the function that looks for a causal mask."""
    return name.startswith("__torch__.torch.nn.modules.transformer.") and name.endswith("._detect_is_causal_mask")


def is_encoder(name: str) -> bool:
    """Whether this is TorchScript's name of ``nn.TransformerEncoder``."""
    return name.startswith("__torch__.torch.nn.modules.transformer.") and name.endswith(".TransformerEncoder")


class MasksUnexamined(TorchFunctionMode):
    """Answers no to ``bool((mask == causal_mask).all())`` of ``nn.Transformer``'s modules.

    Yes would be a hint for speed alone: the mask is applied either way. As a question about data it stops an
    export, although nothing that the user wrote depends on it.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__bool__ and _asked_by(transformer._detect_is_causal_mask.__code__):
            return False
        return func(*args, **(kwargs or {}))


def _asked_by(code: CodeType) -> bool:
    """Whether ``code`` is among the innermost frames, past those of modes that handed a call on."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(8):
        if frame is None or frame.f_code is code:
            break
        frame = frame.f_back
    return frame is not None and frame.f_code is code
