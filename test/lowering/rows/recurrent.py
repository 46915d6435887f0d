"""Recurrent layers."""

from __future__ import annotations

import torch
from lowering.rows import Cases, Inputs, Row, Sample, row


def _layers(gates: int, states: int) -> Inputs:
    def case(
        s: Sample,
        steps: int,
        layers: int,
        both: bool,
        biases: bool,
        batch_first: bool,
        batch: int = 2,
        hidden: int = 3,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[object, ...]:
        size = 5
        directions = 2 if both else 1
        weights: list[torch.Tensor] = []
        for layer in range(layers):
            inputs = size if layer == 0 else hidden * directions
            for _ in range(directions):
                shapes: list[tuple[int, ...]] = [(gates * hidden, inputs), (gates * hidden, hidden)]
                shapes += [(gates * hidden,)] * 2 if biases else []
                weights += [s.floats(*shape, dtype=dtype, low=-1, high=1) for shape in shapes]
        start = [s.floats(layers * directions, batch, hidden, dtype=dtype) for _ in range(states)]
        outer = (batch, steps) if batch_first else (steps, batch)
        x = s.floats(*outer, size, dtype=dtype)
        return x, start if states > 1 else start[0], weights, biases, layers, 0.0, False, both, batch_first

    def inputs(s: Sample) -> Cases:
        return [
            case(s, 4, 1, False, True, False),
            case(s, 3, 2, True, False, True),
            case(s, 1, 1, True, True, False),
            case(s, 5, 1, False, True, True, 8, 7),
            case(s, 300, 1, False, True, False, 1, 1),
            case(s, 6, 1, True, True, False, 3, 130),
            case(s, 4, 2, False, False, True, 3, 9, torch.float64),
        ]

    return inputs


ROWS: list[Row] = [
    row("aten.lstm.input", lambda x, h, w, *flags: torch.lstm(x, h, w, *flags), _layers(4, 2)),
    row("aten.gru.input", lambda x, h, w, *flags: torch.gru(x, h, w, *flags), _layers(3, 1)),
    row("aten.rnn_tanh.input", lambda x, h, w, *flags: torch.rnn_tanh(x, h, w, *flags), _layers(1, 1)),
    row("aten.rnn_relu.input", lambda x, h, w, *flags: torch.rnn_relu(x, h, w, *flags), _layers(1, 1)),
]
