"""The time loop of one recurrent layer as a tensor expression: plain loops, right on any target.

    for row in parallel(directions × batch):
        for t: for j in hidden: out[t, row, j], c[row, j] = cell(x[t, row, :, j], W[:, j, :] · h[t - 1, row, :])

Rules recognise it by its :class:`~torch_tvm.workloads.recurrent.RecurrentWorkload`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tvm
from tvm import te, tirx

from torch_tvm.tir import loop
from torch_tvm.workloads.recurrent import RecurrentWorkload, new_states

Scalar: TypeAlias = tvm.ir.Expr

load, store = tirx.BufferLoad, tirx.BufferStore


class _Scalars:
    """The arithmetic of the cells on single elements of a dtype."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def keep(self, value: Scalar) -> Scalar:
        return value

    def sigmoid(self, value: Scalar) -> Scalar:
        return tirx.sigmoid(value)

    def tanh(self, value: Scalar) -> Scalar:
        return tirx.tanh(value)

    def zero(self) -> Scalar:
        return tirx.const(0, self.dtype)


def recurrence(r: RecurrentWorkload, tensors: Sequence[te.Tensor]) -> list[te.Tensor]:
    """The output and the last states of a layer, each computed by the loops above."""
    wide, state = tensors[0], tensors[1]
    outer, width, dtype = list(wide.shape[:2]), state.shape[2], str(wide.dtype)
    batch = outer[0 if r.batch_first else 1]
    shapes = [[*outer, r.directions * width], *[[r.directions, batch, width]] * r.states]
    inputs = [tirx.decl_buffer(t.shape, dtype, f"in{n}") for n, t in enumerate(tensors)]
    outputs = [tirx.decl_buffer(s, dtype, f"out{n}") for n, s in enumerate(shapes)]
    return te.extern(
        shapes,
        list(tensors),
        lambda ins, outs: _body(r, list(ins), list(outs)),
        dtype=[dtype] * len(shapes),
        in_buffers=inputs,
        out_buffers=outputs,
        name=r.cell,
    )


def _body(r: RecurrentWorkload, ins: list[Any], outs: list[Any]) -> tirx.Stmt:
    wide, initial, weight, bias = r.split(ins)
    batch = wide.shape[1 - int(r.batch_first)]
    row = lambda at: _Row(r, wide, initial, weight, bias, outs[0], outs[1:], at // batch, at % batch).body()
    return loop("row", batch * r.directions, row, kind="parallel")


@dataclass(frozen=True)
class _Row:
    """Sequence ``n`` of the batch in direction ``d``."""

    workload: RecurrentWorkload
    wide: tirx.Buffer
    initial: Sequence[tirx.Buffer]
    weight: tirx.Buffer
    bias: tirx.Buffer | None
    output: tirx.Buffer
    final: Sequence[tirx.Buffer]
    d: Scalar
    n: Scalar

    def body(self) -> tirx.Stmt:
        """The initial states become the final ones at each step, but the first, which is read from the output."""
        slot, hidden = self.d + self.workload.first_slot, self.initial[0].shape[2]
        copy = lambda j: [
            store(f, load(s, [slot, self.n, j]), [self.d, self.n, j])
            for f, s in zip(self.final, self.initial, strict=True)
        ]
        last = lambda j: store(self.final[0], self._before(self._steps, j), [self.d, self.n, j])
        return tirx.SeqStmt(
            [
                loop("j", hidden, lambda j: tirx.SeqStmt(copy(j)) if len(self.final) > 1 else copy(j)[0]),
                loop("t", self._steps, lambda t: loop("j", hidden, lambda j: self._unit(t, j))),
                loop("j", hidden, last),
            ]
        )

    def _unit(self, t: Any, j: Any) -> tirx.Stmt:
        """One number of the output and of each state at step ``t``."""
        r, dtype, d, n, final = self.workload, str(self.wide.dtype), self.d, self.n, self.final
        hidden, bias = self.initial[0].shape[2], self.bias
        sums = tirx.decl_buffer([tirx.const(r.gates, "int64")], dtype, "sums")
        rows = [j + g * hidden for g in range(r.gates)]
        start = [load(bias, [d, at]) if bias is not None else tirx.const(0, dtype) for at in rows]
        add = lambda k: [
            store(sums, load(sums, [g]) + self._before(t, k) * load(self.weight, [d, at, k]), [g])
            for g, at in enumerate(rows)
        ]
        x = [load(self.wide, self._place(t, d * r.gates * hidden + at)) for at in rows]
        old = [self._before(t, j), *(load(f, [d, n, j]) for f in final[1:])]
        new = new_states(r.cell, _Scalars(dtype), x, [load(sums, [g]) for g in range(r.gates)], old)
        values = tirx.decl_buffer([tirx.const(r.states, "int64")], dtype, "values")
        return tirx.SeqStmt(
            [
                tirx.AllocBuffer(sums),
                tirx.AllocBuffer(values),
                *(store(sums, value, [g]) for g, value in enumerate(start)),
                loop("k", hidden, lambda k: tirx.SeqStmt(add(k)) if r.gates > 1 else add(k)[0]),
                *(store(values, value, [s]) for s, value in enumerate(new)),
                store(self.output, load(values, [0]), self._place(t, d * hidden + j)),
                *(store(f, load(values, [s]), [d, n, j]) for s, f in enumerate(final) if s),
            ]
        )

    @property
    def _steps(self) -> Scalar:
        return self.wide.shape[int(self.workload.batch_first)]

    def _place(self, t: Any, column: Any) -> list[Any]:
        r = self.workload
        time = t if r.directions == 1 else tirx.Select(self.d > 0, self._steps - 1 - t, t)
        return [self.n, time, column] if r.batch_first else [time, self.n, column]

    def _before(self, t: Any, k: Any) -> Scalar:
        """The output of the step before ``t``."""
        old = load(self.output, self._place(t - 1, self.d * self.initial[0].shape[2] + k))
        return tirx.if_then_else(t > 0, old, load(self.initial[0], [self.d + self.workload.first_slot, self.n, k]))
