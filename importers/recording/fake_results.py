"""Results of which PyTorch's fake tensors tell another dtype than its kernels give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

Bound = dict[str, Any]


def _running_statistics(bound: Bound, metas: Sequence[Any]) -> list[Any]:
    """New statistics have the dtype of the old ones; fake tensors say float32 for those of half precision."""
    old = (bound["running_mean"].meta, bound["running_var"].meta)
    new = [torch.empty_like(meta, dtype=kept.dtype) for meta, kept in zip(metas[3:], old, strict=True)]
    return [*metas[:3], *new]


CORRECTIONS: dict[str, Callable[[Bound, Sequence[Any]], list[Any]]] = {
    "aten::_native_batch_norm_legit_functional": _running_statistics,
}
