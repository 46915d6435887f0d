"""The time loop of one recurrent layer as a tensor expression: plain loops, right on any target.

    for row in parallel(directions × batch):
        for t: for j in hidden: out[t, row, j], c[row, j] = cell(x[t, row, :, j], W[:, j, :] · h[t - 1, row, :])

Rules recognise it by its :class:`~torch_tvm.workloads.recurrent.RecurrentWorkload`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import tvm
from tvm import te, tirx

from torch_tvm.tir import loop
from torch_tvm.workloads.recurrent import RecurrentWorkload, new_states

Scalar: TypeAlias = tvm.ir.Expr


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
    output, final = outs[0], outs[1:]
    hidden, dtype = initial[0].shape[2], str(wide.dtype)
    steps, batch = wide.shape[int(r.batch_first)], wide.shape[1 - int(r.batch_first)]
    load, store = tirx.BufferLoad, tirx.BufferStore

    def one_row(row: Any) -> tirx.Stmt:
        d, n = row // batch, row % batch
        slot = d + r.first_slot

        def place(t: Any, column: Any) -> list[Any]:
            time = t if r.directions == 1 else tirx.Select(d > 0, steps - 1 - t, t)
            return [n, time, column] if r.batch_first else [time, n, column]

        def before(t: Any, k: Any) -> Scalar:
            old = load(output, place(t - 1, d * hidden + k))
            return tirx.if_then_else(t > 0, old, load(initial[0], [slot, n, k]))

        def unit(t: Any, j: Any) -> tirx.Stmt:
            sums = tirx.decl_buffer([tirx.const(r.gates, "int64")], dtype, "sums")
            rows = [j + g * hidden for g in range(r.gates)]
            start = [load(bias, [d, at]) if bias is not None else tirx.const(0, dtype) for at in rows]
            add = lambda k: [
                store(sums, load(sums, [g]) + before(t, k) * load(weight, [d, at, k]), [g])
                for g, at in enumerate(rows)
            ]
            x = [load(wide, place(t, d * r.gates * hidden + at)) for at in rows]
            old = [before(t, j), *(load(f, [d, n, j]) for f in final[1:])]
            new = new_states(r.cell, _Scalars(dtype), x, [load(sums, [g]) for g in range(r.gates)], old)
            values = tirx.decl_buffer([tirx.const(r.states, "int64")], dtype, "values")
            return tirx.SeqStmt(
                [
                    tirx.AllocBuffer(sums),
                    tirx.AllocBuffer(values),
                    *(store(sums, value, [g]) for g, value in enumerate(start)),
                    loop("k", hidden, lambda k: tirx.SeqStmt(add(k)) if r.gates > 1 else add(k)[0]),
                    *(store(values, value, [s]) for s, value in enumerate(new)),
                    store(output, load(values, [0]), place(t, d * hidden + j)),
                    *(store(f, load(values, [s]), [d, n, j]) for s, f in enumerate(final) if s),
                ]
            )

        copy = lambda j: [
            store(f, load(s, [slot, n, j]), [d, n, j]) for f, s in zip(final, initial, strict=True)
        ]
        return tirx.SeqStmt(
            [
                loop("j", hidden, lambda j: tirx.SeqStmt(copy(j)) if r.states > 1 else copy(j)[0]),
                loop("t", steps, lambda t: loop("j", hidden, lambda j: unit(t, j))),
                loop("j", hidden, lambda j: store(final[0], before(steps, j), [d, n, j])),
            ]
        )

    return loop("row", batch * r.directions, one_row, kind="parallel")
