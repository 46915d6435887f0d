"""Recurrent layers."""

from __future__ import annotations

import torch
from lowering.rows import Cases, Inputs, Row, Sample, row


def _layers(gates: int, states: int) -> Inputs:
    def case(
        s: Sample, steps: int, layers: int, both: bool, biases: bool, batch_first: bool
    ) -> tuple[object, ...]:
        batch, size, hidden = 2, 5, 3
        directions = 2 if both else 1
        weights: list[torch.Tensor] = []
        for layer in range(layers):
            inputs = size if layer == 0 else hidden * directions
            for _ in range(directions):
                weights += [s.floats(gates * hidden, inputs), s.floats(gates * hidden, hidden)]
                weights += [s.floats(gates * hidden), s.floats(gates * hidden)] if biases else []
        start = [s.floats(layers * directions, batch, hidden) for _ in range(states)]
        x = s.floats(batch, steps, size) if batch_first else s.floats(steps, batch, size)
        return x, start if states > 1 else start[0], weights, biases, layers, 0.0, False, both, batch_first

    def inputs(s: Sample) -> Cases:
        return [
            case(s, 4, 1, False, True, False),
            case(s, 3, 2, True, False, True),
            case(s, 1, 1, True, True, False),
        ]

    return inputs


ROWS: list[Row] = [
    row("aten.lstm.input", lambda x, h, w, *flags: torch.lstm(x, h, w, *flags), _layers(4, 2)),
    row("aten.gru.input", lambda x, h, w, *flags: torch.gru(x, h, w, *flags), _layers(3, 1)),
    row("aten.rnn_tanh.input", lambda x, h, w, *flags: torch.rnn_tanh(x, h, w, *flags), _layers(1, 1)),
    row("aten.rnn_relu.input", lambda x, h, w, *flags: torch.rnn_relu(x, h, w, *flags), _layers(1, 1)),
]
