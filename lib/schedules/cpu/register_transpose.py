"""Transpose a square of elements in vector registers.

Step s of Eklundh's algorithm swaps the off-diagonal squares of side s between rows that lie s apart: for 16
lanes, four steps of 16 shuffles where a gather would touch 256 elements one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tvm import tirx
from tvm.ir import Expr

from torch_tvm.tir import const, lanes_loop, sequence, vector_of

Row = TypeVar("Row", bound=Expr)


def transpose_registers(
    lanes: int,
    dtype: str,
    load: Callable[[int, Expr], Expr],
    store: Callable[[int, Expr, Expr], tirx.Stmt],
) -> tirx.Stmt:
    """``store(c, r, element)`` for all ``element = load(r, c)`` of a ``lanes`` × ``lanes`` square.

    The second arguments of ``load`` and ``store`` are variables of vectorised loops. ``lanes`` is a power of
    two.
    """
    everything = tirx.Ramp(const(0), const(1), lanes)
    buffers = [tirx.decl_buffer((const(lanes),), dtype, f"row_{r}") for r in range(lanes)]
    body: list[tirx.Stmt] = [tirx.AllocBuffer(buffer) for buffer in buffers]
    for r, buffer in enumerate(buffers):
        body.append(lanes_loop(lanes, lambda lane, r=r, buffer=buffer: tirx.BufferStore(buffer, load(r, lane), [lane])))

    def hold(row: Expr) -> Expr:
        var = tirx.Var("turned", vector_of(dtype, lanes))
        body.append(tirx.Bind(var, row))
        return var

    loads: list[Expr] = [tirx.BufferLoad(buffer, [everything]) for buffer in buffers]
    rows = exchanged(loads, hold)
    for buffer, row in zip(buffers, rows, strict=True):
        body.append(tirx.BufferStore(buffer, row, [everything]))
    for c, buffer in enumerate(buffers):
        body.append(lanes_loop(lanes, lambda lane, c=c, buffer=buffer: store(c, lane, tirx.BufferLoad(buffer, [lane]))))
    return sequence(*body)


def exchanged(rows: list[Row], hold: Callable[[Expr], Row]) -> list[Row]:
    """The columns of a square of which ``rows`` are the vectors; ``hold`` keeps a vector and says how to read it."""
    lanes, distance = len(rows), len(rows) // 2
    while distance:
        result = list(rows)
        low = [lane if not lane & distance else lanes + lane - distance for lane in range(lanes)]
        high = [lane + distance if not lane & distance else lanes + lane for lane in range(lanes)]
        for first in (row for row in range(lanes) if not row & distance):
            pair = [rows[first], rows[first + distance]]
            for row, picks in ((first, low), (first + distance, high)):
                result[row] = hold(tirx.Shuffle(pair, [tirx.IntImm("int32", pick) for pick in picks]))
        rows, distance = result, distance // 2
    return rows
