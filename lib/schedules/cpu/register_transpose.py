"""Transpose a square of elements in vector registers.

Step s of Eklundh's algorithm swaps the off-diagonal squares of side s between rows that lie s apart: for 16
lanes, four steps of 16 shuffles where a gather would touch 256 elements one by one.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr

from torch_tvm.tir import const, lanes_loop, sequence


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
        body.append(
            lanes_loop(
                lanes, lambda lane, r=r, buffer=buffer: tirx.BufferStore(buffer, load(r, lane), [lane])
            )
        )
    rows: list[Expr] = [tirx.BufferLoad(buffer, [everything]) for buffer in buffers]
    distance = lanes // 2
    while distance:
        rows = _exchange(rows, distance, f"{dtype}x{lanes}", body)
        distance //= 2
    for buffer, row in zip(buffers, rows, strict=True):
        body.append(tirx.BufferStore(buffer, row, [everything]))
    for c, buffer in enumerate(buffers):
        body.append(
            lanes_loop(
                lanes, lambda lane, c=c, buffer=buffer: store(c, lane, tirx.BufferLoad(buffer, [lane]))
            )
        )
    return sequence(*body)


def _exchange(rows: list[Expr], distance: int, dtype: str, body: list[tirx.Stmt]) -> list[Expr]:
    """One step: bind the new rows to variables in ``body`` and return them."""
    lanes = len(rows)
    result = list(rows)
    for first in range(lanes):
        if first & distance:
            continue
        second = first + distance
        low = [lane if not lane & distance else lanes + lane - distance for lane in range(lanes)]
        high = [lane + distance if not lane & distance else lanes + lane for lane in range(lanes)]
        for row, picks in ((first, low), (second, high)):
            shuffled = tirx.Shuffle([rows[first], rows[second]], [tirx.IntImm("int32", p) for p in picks])
            result[row] = tirx.Var("turned", dtype)
            body.append(tirx.Bind(result[row], shuffled))
    return result
