"""Dropout between recurrent layers, which PyTorch's decomposition of LSTM, GRU and RNN for autograd forgets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch._decomp import decompositions

from torch_tvm.aten.recurrent_layers import by_pytorch, recurrent_layers


@contextlib.contextmanager
def recurrent_dropout_kept() -> Iterator[None]:
    """While graphs are traced, layers have the dropout that they have in eager PyTorch."""
    decompositions._rnn_helper = recurrent_layers
    try:
        yield
    finally:
        decompositions._rnn_helper = by_pytorch


__all__ = ["recurrent_dropout_kept"]
