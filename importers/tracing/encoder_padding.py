"""``nn.TransformerEncoder`` with a padding mask: where eager packs its sequences, padding becomes zeros."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

aten = torch.ops.aten
Call = Callable[..., Any]


@contextmanager
def encoders_hide_padding() -> Iterator[None]:
    """Inside, encoders that would pack their sequences into a nested tensor give what that gives, without one.

    PyTorch's own exports do not: what they compute at padding is another number than eager's.
    """
    original = nn.TransformerEncoder.forward

    @functools.wraps(original)
    def forward(
        self: Any, src: Tensor, mask: Any = None, src_key_padding_mask: Any = None, is_causal: Any = None
    ) -> Tensor:
        if not _packs(self, src, mask, src_key_padding_mask):
            return original(self, src, mask, src_key_padding_mask, is_causal)
        norm = self.norm
        self.norm, self.use_nested_tensor = None, False
        try:
            found = original(self, src, mask, src_key_padding_mask, is_causal)
        finally:
            self.norm, self.use_nested_tensor = norm, True
        padding = src_key_padding_mask
        padding = padding if padding.dtype == torch.bool else padding != 0
        found = torch.where(hidden(lambda overload, *given: overload(*given), padding), 0, found)
        return found if norm is None else norm(found)

    nn.TransformerEncoder.forward = forward
    try:
        yield
    finally:
        nn.TransformerEncoder.forward = original


def hidden(call: Call, padding: Any) -> Any:
    """Where an encoder gives zeros, (N, L, 1): at ``padding`` (N, L), if in every row of that padding comes last.

    ``call`` calls an overload: on tensors, or on what an importer has in their place.
    """
    later = call(aten.slice.Tensor, padding, 1, 1, None, 1)
    earlier = call(aten.logical_not.default, call(aten.slice.Tensor, padding, 1, None, -1, 1))
    is_last = call(aten.all.default, call(aten.logical_or.default, later, earlier))
    return call(aten.unsqueeze.default, call(aten.logical_and.default, padding, is_last), -1)


def _packs(encoder: Any, src: Tensor, mask: Any, padding: Any) -> bool:
    """Whether eager would pack, if padding comes last: what ``nn.TransformerEncoder.forward`` asks."""
    first = encoder.layers[0]
    may = torch.backends.mha.get_fastpath_enabled() and getattr(encoder, "use_nested_tensor", False)
    if not may or first.training or src.dim() != 3 or padding is None or mask is not None:
        return False
    needs_gradients = torch.is_grad_enabled() and any(each.requires_grad for each in first.parameters())
    return not (torch.is_autocast_enabled("cpu") or needs_gradients)


__all__ = ["encoders_hide_padding", "hidden"]
