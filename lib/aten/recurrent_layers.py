"""Recurrent layers, one after the other, with the dropout between them that PyTorch's decomposition forgets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._decomp import decompositions

by_pytorch = decompositions._rnn_helper


def recurrent_layers(
    x: torch.Tensor,
    hidden: Sequence[Any],
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    layer: Callable[..., Any],
) -> Any:
    """PyTorch's ``_rnn_helper``, layer by layer: the output and the last hidden state of each
    direction of each layer.
    """
    if not train or not dropout:
        rest = has_biases, num_layers, dropout, train, bidirectional, batch_first, layer
        return by_pytorch(x, hidden, params, *rest)
    x = x.transpose(0, 1) if batch_first else x
    final: list[Any] = []
    count = 2 if bidirectional else 1
    for start in range(0, num_layers * count, count):
        own = slice(start, start + count)
        x, last = by_pytorch(x, hidden[own], params[own], has_biases, 1, 0.0, train, bidirectional, False, layer)
        final += last
        if start + count < num_layers * count:
            x = torch.dropout(x, dropout, True)
    return x.transpose(0, 1) if batch_first else x, final


__all__ = ["by_pytorch", "recurrent_layers"]
