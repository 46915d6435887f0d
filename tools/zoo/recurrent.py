"""Recurrent networks."""

from __future__ import annotations

import torch
from torch import nn


class Recurrent(nn.Module):
    """A two-layer LSTM or GRU over ``[N, T, inputs]`` and a linear head on its last step: ``[N, 10]``."""

    def __init__(self, kind: str, inputs: int, hidden: int) -> None:
        super().__init__()
        layer = {"lstm": nn.LSTM, "gru": nn.GRU}[kind]
        self.body = layer(inputs, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, _ = self.body(x)
        return self.head(out[:, -1])
