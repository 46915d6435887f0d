"""LSTM, GRU and their cells whose weights are quantised, and whose inputs are at each call.

As ATen computes them: the products of a layer's input once for all steps, those of its state at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torch_tvm.importers.recording.storages import TensorRef
from torch_tvm.importers.torchscript.evaluator import Evaluator
from torch_tvm.importers.torchscript.handlers import tensors
from torch_tvm.importers.torchscript.handlers.quantized import Packed, product, script_object
from torch_tvm.importers.torchscript.handlers.registry import handles
from torch_tvm.importers.torchscript.values import ListValue

aten = torch.ops.aten

State = tuple[TensorRef, ...]


@dataclass(frozen=True)
class Weights:
    """Those of a direction of a layer: for its input and for its state."""

    of_input: Packed
    of_state: Packed


@dataclass(frozen=True)
class Cell:
    """One step: the next state, its output first, from products of the input, products of the state and the state."""

    step: Callable[[Evaluator, TensorRef, TensorRef, State], State]

    def run(self, ev: Evaluator, weights: Weights, x: TensorRef, state: State) -> State:
        return self.step(ev, x, product(ev, state[0], weights.of_state), state)


def _call(ev: Evaluator, op: Any, *operands: Any) -> Any:
    return tensors.call(ev, op, list(operands))


def _gates(ev: Evaluator, x: TensorRef, count: int) -> list[TensorRef]:
    size = x.meta.shape[-1] // count
    return [_call(ev, aten.slice.Tensor, x, -1, k * size, (k + 1) * size, 1) for k in range(count)]


def _lstm_step(ev: Evaluator, of_input: TensorRef, of_state: TensorRef, state: State) -> State:
    sums = _gates(ev, _call(ev, aten.add.Tensor, of_state, of_input, 1), 4)
    let, keep, out = (_call(ev, aten.sigmoid.default, sums[k]) for k in (0, 1, 3))
    kept = _call(ev, aten.mul.Tensor, keep, state[1])
    cell = _call(ev, aten.add.Tensor, kept, _call(ev, aten.mul.Tensor, let, _call(ev, aten.tanh.default, sums[2])), 1)
    return _call(ev, aten.mul.Tensor, out, _call(ev, aten.tanh.default, cell)), cell


def _gru_step(ev: Evaluator, of_input: TensorRef, of_state: TensorRef, state: State) -> State:
    ours, theirs = _gates(ev, of_input, 3), _gates(ev, of_state, 3)
    sums = (_call(ev, aten.add.Tensor, theirs[k], ours[k], 1) for k in (0, 1))
    reset, update = (_call(ev, aten.sigmoid.default, each) for each in sums)
    new = _call(
        ev, aten.tanh.default, _call(ev, aten.add.Tensor, ours[2], _call(ev, aten.mul.Tensor, theirs[2], reset), 1)
    )
    moved = _call(ev, aten.mul.Tensor, _call(ev, aten.sub.Tensor, state[0], new, 1), update)
    return (_call(ev, aten.add.Tensor, moved, new, 1),)


def _simple_step(activation: Any) -> Callable[[Evaluator, TensorRef, TensorRef, State], State]:
    def step(ev: Evaluator, of_input: TensorRef, of_state: TensorRef, state: State) -> State:
        return (_call(ev, activation, _call(ev, aten.add.Tensor, of_state, of_input, 1)),)

    return step


_CELLS = {
    "lstm": Cell(_lstm_step),
    "gru": Cell(_gru_step),
    "rnn_tanh": Cell(_simple_step(aten.tanh.default)),
    "rnn_relu": Cell(_simple_step(aten.relu.default)),
}


# -- cells --------------------------------------------------------------------------------------------------


@handles(*(f"quantized::quantized_{name}_cell_dynamic" for name in _CELLS))
def _cell(ev: Evaluator, args: list[Any]) -> Any:
    """``quantized::quantized_lstm_cell_dynamic(Tensor input, Tensor[] hx, w_ih, w_hh, Tensor b_ih, Tensor b_hh)``"""
    x, hx, of_input, of_state = args[:4]
    cell = _CELLS[ev.overload._schema.name.removeprefix("quantized::quantized_").removesuffix("_cell_dynamic")]
    weights = Weights(*(Packed(script_object(ev, each), each.path, True) for each in (of_input, of_state)))
    state = tuple(ev.items(hx)) if isinstance(hx, ListValue) else (hx,)
    found = cell.run(ev, weights, product(ev, x, weights.of_input), state)
    return found if len(found) > 1 else found[0]


# -- layers -------------------------------------------------------------------------------------------------


@handles("aten::quantized_lstm.input")
def _lstm(ev: Evaluator, args: list[Any]) -> Any:
    """``aten::quantized_lstm.input(Tensor input, Tensor[] hx, CellParamsBase[] params, …)``"""
    x, hx, params, _, _, dropout, train, bidirectional, batch_first = args[:9]
    return _layers(ev, _CELLS["lstm"], x, ev.items(hx), params, dropout * train, bidirectional, batch_first)


@handles("aten::quantized_gru.input")
def _gru(ev: Evaluator, args: list[Any]) -> Any:
    """``aten::quantized_gru.input(Tensor input, Tensor hx, CellParamsBase[] params, …)``"""
    x, hx, params, _, _, dropout, train, bidirectional, batch_first = args[:9]
    return _layers(ev, _CELLS["gru"], x, [hx], params, dropout * train, bidirectional, batch_first)


def _layers(
    ev: Evaluator,
    cell: Cell,
    x: TensorRef,
    states: Sequence[TensorRef],
    params: Any,
    dropout: float,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[TensorRef, ...]:
    """The output, and the last states of all layers and directions."""
    if dropout:
        raise ev.failure("dropout in a layer whose weights are quantised", advice="call eval() on the module")
    if not isinstance(x.meta.shape[1 if batch_first else 0], int):
        raise ev.failure("a sequence whose length only the run knows", advice="give it a size that is known")
    x = _call(ev, aten.transpose.int, x, 0, 1) if batch_first else x
    weights = [_weights(ev, each) for each in ev.items(params)]
    directions = 2 if bidirectional else 1
    last: list[State] = []
    for start in range(0, len(weights), directions):
        outputs = []
        for index in range(start, start + directions):
            state = tuple(_call(ev, aten.select.int, each, 0, index) for each in states)
            output, state = _direction(ev, cell, weights[index], x, state, is_reversed=index > start)
            outputs.append(output)
            last.append(state)
        x = outputs[0] if directions == 1 else _call(ev, aten.cat.default, ListValue(outputs), -1)
    x = _call(ev, aten.transpose.int, x, 0, 1) if batch_first else x
    return x, *(_call(ev, aten.stack.default, ListValue(list(each)), 0) for each in zip(*last, strict=True))


def _direction(
    ev: Evaluator, cell: Cell, weights: Weights, x: TensorRef, state: State, *, is_reversed: bool
) -> tuple[TensorRef, State]:
    of_input, steps = product(ev, x, weights.of_input), range(x.meta.shape[0])
    outputs: dict[int, TensorRef] = {}
    for step in reversed(steps) if is_reversed else steps:
        state = cell.run(ev, weights, _call(ev, aten.select.int, of_input, 0, step), state)
        outputs[step] = state[0]
    return _call(ev, aten.stack.default, ListValue([outputs[step] for step in steps]), 0), state


def _weights(ev: Evaluator, params: Any) -> Weights:
    source: Any = script_object(ev, params)
    kind, _, _, flags, packed = source.__getstate__()[0]
    if kind not in ("quantized_dynamic", "quantized_fp16"):
        raise ev.failure(f"weights packed as '{kind}'", advice="quantise the module with quantize_dynamic")
    names = ("ih", "hh")
    return Weights(
        *(Packed(each, f"{params.path}.{n}", bool(sum(flags))) for n, each in zip(names, packed, strict=True))
    )
