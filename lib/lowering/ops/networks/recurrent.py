"""Recurrent layers: one product for the inputs of all time steps, one kernel for the time loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tvm import relax

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.control.recurrence import recurrence
from torch_tvm.lowering.ops.networks.matmul import product_of
from torch_tvm.lowering.ops.shapes.views import permute
from torch_tvm.lowering.registry import Tensor, register
from torch_tvm.tir import compute_dtype
from torch_tvm.workloads.recurrent import RecurrentWorkload

R = relax.op
Expr: TypeAlias = relax.Expr

OPAQUE = 8


@dataclass(frozen=True)
class Kind:
    """A cell, its number of gates and of state tensors; whether both its biases may be added at once."""

    cell: str
    gates: int
    states: int
    shares_bias: bool


LSTM = Kind("lstm", 4, 2, shares_bias=True)
GRU = Kind("gru", 3, 1, shares_bias=False)
RNN_TANH = Kind("rnn_tanh", 1, 1, shares_bias=True)
RNN_RELU = Kind("rnn_relu", 1, 1, shares_bias=True)


def _joined(b: Builder, parts: Sequence[Expr]) -> Expr:
    return parts[0] if len(parts) == 1 else b.emit(R.concat(list(parts), 0))


def _stacked(b: Builder, parts: Sequence[Expr]) -> Expr:
    return _joined(b, [b.emit(R.expand_dims(part, 0)) for part in parts])


def _layer(
    b: Builder,
    kind: Kind,
    layer: int,
    x: Expr,
    initial: Sequence[Expr],
    weights: Sequence[Sequence[Expr]],
    batch_first: bool,
) -> list[Expr]:
    """Output and last states of one layer; ``weights`` are those of each direction."""
    wide = product_of(b, x, permute(b, _joined(b, [w[0] for w in weights]), [1, 0]))
    bias = None
    if len(weights[0]) == 4:
        added = _joined(b, [w[2] for w in weights])
        if kind.shares_bias:
            added = b.emit(R.add(added, _joined(b, [w[3] for w in weights])))
        else:
            bias = _stacked(b, [w[3] for w in weights])
        wide = b.emit(R.add(wide, added))
    tensors = [wide, *initial, _stacked(b, [w[1] for w in weights]), *([] if bias is None else [bias])]
    what = RecurrentWorkload(kind.cell, kind.gates, kind.states, len(weights), layer, batch_first, bias is not None)
    results = b.te(
        lambda *tensors: recurrence(what, tensors),
        *tensors,
        name=kind.cell,
        attributes={"op_pattern": OPAQUE, **what.to_attr()},
    )
    return [b.emit(relax.TupleGetItem(results, n)) for n in range(1 + kind.states)]


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
    _check(b, x, initial, params, num_layers * directions, each, 1 if batch_first else 0)
    dtype = b.dtype(x)
    wide = compute_dtype(dtype)
    value, initial = b.cast(x, wide), [b.cast(s, wide) for s in initial]
    weights = [b.cast(p, wide) for p in params]
    final: list[list[Expr]] = [[] for _ in range(kind.states)]
    for layer in range(num_layers):
        first = layer * directions
        own = [weights[n * each : (n + 1) * each] for n in range(first, first + directions)]
        value, *states = _layer(b, kind, layer, value, initial, own, batch_first)
        for collected, last in zip(final, states, strict=True):
            collected.append(last)
    return [b.cast(result, dtype) for result in (value, *(_joined(b, states) for states in final))]


def _check(
    b: Builder,
    x: Expr,
    initial: Sequence[Expr],
    params: Sequence[Expr],
    layers: int,
    each: int,
    time_axis: int,
) -> None:
    if len(params) != layers * each:
        b.unsupported("a recurrent layer with projections")
    if b.rank(x) != 3:
        b.unsupported("a recurrent layer without a batch dimension")
    if b.shape(x)[time_axis] == 0:
        b.unsupported("a recurrent layer over no steps")
    if not all(isinstance(size, int) and size > 0 for weight in params for size in b.shape(weight)):
        b.unsupported("a recurrent layer whose weights are empty or of unknown size")
    if len({b.dtype(t) for t in (x, *initial, *params)}) > 1:
        b.unsupported("a recurrent layer of more than one dtype")


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
_single_state("rnn_tanh.input", RNN_TANH)
_single_state("rnn_relu.input", RNN_RELU)
