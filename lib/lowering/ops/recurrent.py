"""Recurrent layers of a known, moderate length.

The input projections of all time steps are one product; the steps are unrolled, each with one product of
the hidden state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tvm import relax

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.matmul import product_of
from torch_tvm.lowering.ops.shape import permute, reshape
from torch_tvm.lowering.ops.slicing import strided_slice
from torch_tvm.lowering.registry import Tensor, register

R = relax.op
Expr: TypeAlias = relax.Expr

MAX_STEPS = 256

Cell = Callable[[Builder, Expr, Expr, list[Expr]], list[Expr]]


@dataclass(frozen=True)
class Kind:
    """A cell: ``step(b, x gates, h gates, state) -> new state``, its number of gates and of state tensors."""

    step: Cell
    gates: int
    states: int
    shares_bias: bool


def _gate(b: Builder, gates: Expr, index: int, count: int) -> Expr:
    width = b.shape(gates)[1]
    if not isinstance(width, int):
        b.unsupported("a hidden size that is known only at run time")
    return strided_slice(b, gates, 1, index * (width // count), width // count)


def _lstm_step(b: Builder, x: Expr, h: Expr, state: list[Expr]) -> list[Expr]:
    gates = b.emit(R.add(x, h))
    enter, forget, cell, leave = (_gate(b, gates, i, 4) for i in range(4))
    kept = b.emit(R.multiply(b.emit(R.sigmoid(forget)), state[1]))
    added = b.emit(R.multiply(b.emit(R.sigmoid(enter)), b.emit(R.tanh(cell))))
    memory = b.emit(R.add(kept, added))
    return [b.emit(R.multiply(b.emit(R.sigmoid(leave)), b.emit(R.tanh(memory)))), memory]


def _gru_step(b: Builder, x: Expr, h: Expr, state: list[Expr]) -> list[Expr]:
    reset, update = (b.emit(R.sigmoid(b.emit(R.add(_gate(b, x, i, 3), _gate(b, h, i, 3))))) for i in range(2))
    fresh = b.emit(R.add(_gate(b, x, 2, 3), b.emit(R.multiply(reset, _gate(b, h, 2, 3)))))
    candidate = b.emit(R.tanh(fresh))
    change = b.emit(R.multiply(update, b.emit(R.subtract(state[0], candidate))))
    return [b.emit(R.add(candidate, change))]


def _plain_step(activation: Callable[[Expr], Expr]) -> Cell:
    def step(b: Builder, x: Expr, h: Expr, state: list[Expr]) -> list[Expr]:
        return [b.emit(activation(b.emit(R.add(x, h))))]

    return step


LSTM = Kind(_lstm_step, 4, 2, shares_bias=True)
GRU = Kind(_gru_step, 3, 1, shares_bias=False)


def _direction(
    b: Builder, kind: Kind, x: Expr, state: list[Expr], weights: Sequence[Expr], *, backwards: bool
) -> tuple[Expr, list[Expr]]:
    """One layer in one direction: x (T, B, I) to (T, B, H) and the last state."""
    steps, batch, _ = b.shape(x)
    assert isinstance(steps, int)
    wide = product_of(b, x, permute(b, weights[0], [1, 0]))
    recurrent = permute(b, weights[1], [1, 0])
    bias = None
    if len(weights) == 4:
        first = weights[2]
        if kind.shares_bias:
            first = b.emit(R.add(first, weights[3]))
        else:
            bias = weights[3]
        wide = b.emit(R.add(wide, first))
    width = b.shape(wide)[2]
    inputs = [wide] if steps == 1 else _unstacked(b, wide, steps)
    outputs = []
    for t in reversed(range(steps)) if backwards else range(steps):
        hidden = product_of(b, state[0], recurrent)
        hidden = hidden if bias is None else b.emit(R.add(hidden, bias))
        state = kind.step(b, reshape(b, inputs[t], [batch, width]), hidden, state)
        outputs.append(b.emit(R.expand_dims(state[0], 0)))
    if backwards:
        outputs.reverse()
    return (outputs[0] if steps == 1 else b.emit(R.concat(outputs, 0))), state


def _unstacked(b: Builder, x: Expr, steps: int) -> list[Expr]:
    parts = b.emit(R.split(x, steps, 0))
    return [b.emit(relax.TupleGetItem(parts, t)) for t in range(steps)]


def recur(
    b: Builder,
    kind: Kind,
    x: Expr,
    initial: Sequence[Expr],
    params: Sequence[Expr],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> list[Expr]:
    """Output and final states; ``initial`` and the results' states are (layers · directions, B, H)."""
    directions, each = 2 if bidirectional else 1, 4 if has_biases else 2
    _check(b, x, params, num_layers * directions, each, 1 if batch_first else 0)
    value = permute(b, x, [1, 0, 2]) if batch_first else x
    _, batch, size = b.shape(initial[0])
    final: list[list[Expr]] = [[] for _ in range(kind.states)]
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            state = [reshape(b, strided_slice(b, s, 0, index, 1), [batch, size]) for s in initial]
            weights = params[index * each : (index + 1) * each]
            output, state = _direction(b, kind, value, state, weights, backwards=direction == 1)
            outputs.append(output)
            for collected, last in zip(final, state, strict=True):
                collected.append(b.emit(R.expand_dims(last, 0)))
        value = outputs[0] if directions == 1 else b.emit(R.concat(outputs, 2))
    states = [c[0] if len(c) == 1 else b.emit(R.concat(c, 0)) for c in final]
    return [permute(b, value, [1, 0, 2]) if batch_first else value, *states]


def _check(b: Builder, x: Expr, params: Sequence[Expr], layers: int, each: int, time_axis: int) -> None:
    if len(params) != layers * each:
        b.unsupported("a recurrent layer with projections")
    if b.rank(x) != 3:
        b.unsupported("a recurrent layer without a batch dimension")
    steps = b.shape(x)[time_axis]
    if not isinstance(steps, int) or steps < 1:
        b.unsupported("a recurrent layer over an unknown number of steps")
    if steps * layers > MAX_STEPS:
        b.unsupported(f"a recurrent layer of {steps * layers} steps: at most {MAX_STEPS} are unrolled")


def lstm(
    b: Builder,
    x: Tensor,
    hx: list[Tensor],
    params: list[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> list[Expr]:
    """aten::lstm.input(Tensor input, Tensor[] hx, Tensor[] params, bool has_biases, int num_layers,
    float dropout, bool train, bool bidirectional, bool batch_first) -> (Tensor, Tensor, Tensor)"""
    if train and dropout:
        b.unsupported("dropout in training mode is random")
    return recur(b, LSTM, x, hx, params, has_biases, num_layers, bidirectional, batch_first)


def _single_state(name: str, kind: Kind) -> None:
    def lowering(
        b: Builder,
        x: Tensor,
        hx: Tensor,
        params: list[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> list[Expr]:
        if train and dropout:
            b.unsupported("dropout in training mode is random")
        return recur(b, kind, x, [hx], params, has_biases, num_layers, bidirectional, batch_first)

    lowering.__doc__ = (
        f"aten::{name}(Tensor input, Tensor hx, Tensor[] params, bool has_biases, int num_layers, "
        "float dropout, bool train, bool bidirectional, bool batch_first) -> (Tensor, Tensor)"
    )
    register(f"torch.aten.{name}", lowering, custom=True)


register("torch.aten.lstm.input", lstm, custom=True)
_single_state("gru.input", GRU)
_single_state("rnn_tanh.input", Kind(_plain_step(R.tanh), 1, 1, shares_bias=True))
_single_state("rnn_relu.input", Kind(_plain_step(R.nn.relu), 1, 1, shares_bias=True))
