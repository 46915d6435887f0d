"""Vectors: their loads and stores, variables that hold them, and tiles of them that stay in registers."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr

from torch_tvm.tir.dtypes import vector_of
from torch_tvm.tir.expressions import broadcast
from torch_tvm.tir.loops import loop
from torch_tvm.tir.sizes import INDEX, SizeLike, as_size, const, static


def lane_slice(indices: Sequence[SizeLike], lanes: int) -> list[Expr]:
    """Indices that cover ``lanes`` consecutive elements, from ``indices`` on."""
    *head, last = (as_size(i) for i in indices)
    return [*head, tirx.Ramp(last, const(1), lanes) if lanes > 1 else last]


def load(buffer: tirx.Buffer, indices: Sequence[SizeLike], lanes: int = 1) -> Expr:
    """One element, or a vector of ``lanes`` consecutive ones."""
    return tirx.BufferLoad(buffer, lane_slice(indices, lanes))


def store(buffer: tirx.Buffer, value: Expr, indices: Sequence[SizeLike], lanes: int = 1) -> tirx.Stmt:
    """Store one element, or a vector of ``lanes`` consecutive ones."""
    return tirx.BufferStore(buffer, value, lane_slice(indices, lanes))


class Accumulators:
    """A register tile: ``count`` vectors of ``lanes`` elements in a buffer that LLVM promotes to registers."""

    def __init__(self, count: int, lanes: int, dtype: str, name: str = "acc") -> None:
        self.count, self.lanes, self.dtype = count, lanes, dtype
        self.buffer = tirx.decl_buffer((const(count * lanes),), dtype, name, scope="local")

    def allocate(self) -> tirx.Stmt:
        return tirx.AllocBuffer(self.buffer)

    def get(self, which: SizeLike) -> Expr:
        return load(self.buffer, [which * self.lanes], self.lanes)

    def lane(self, which: int, lane: Expr) -> Expr:
        """One element of vector ``which``, for a loop over lanes."""
        return tirx.BufferLoad(self.buffer, [const(which * self.lanes) + lane])

    def set(self, which: SizeLike, value: Expr) -> tirx.Stmt:
        return store(self.buffer, value, [which * self.lanes], self.lanes)

    def clear(self) -> tirx.Stmt:
        zero = broadcast(tirx.const(0, self.dtype), self.lanes)
        return loop("acc", self.count, lambda which: self.set(which, zero), kind="unrolled")


def bind_index(name: str, value: SizeLike) -> tuple[Expr, tirx.Bind | None]:
    """An index kept in a variable, so that expressions made of it stay short (constants need none)."""
    if static(value) is not None or isinstance(value, tirx.Var):
        return as_size(value), None
    var = tirx.Var(name, INDEX)
    return var, tirx.Bind(var, value)


class Names:
    """Index variables that are bound one after the other, by :func:`bind_index`."""

    def __init__(self) -> None:
        self.bound: list[tirx.Stmt | None] = []

    def __call__(self, name: str, value: SizeLike) -> Expr:
        result, stmt = bind_index(name, value)
        self.bound.append(stmt)
        return result


def bind_vector(name: str, value: Expr, lanes: int, dtype: str) -> tuple[tirx.Var, tirx.Stmt]:
    """A vector held in a register: its variable and the statement that sets it."""
    var = tirx.Var(name, vector_of(dtype, lanes))
    return var, tirx.Bind(var, value)


def pieces(width: int, lanes: int, together: int = 1) -> list[tuple[int, int]]:
    """``width`` elements as (offset, lanes) vectors, the last one narrower if need be.

    ``together`` vectors are one piece as long as there are so many.
    """
    whole = width // (lanes * together) * lanes * together
    return [
        *((begin, lanes * together) for begin in range(0, whole, lanes * together)),
        *((begin, min(lanes, width - begin)) for begin in range(whole, width, lanes)),
    ]


def binary_pieces(width: int, lanes: int) -> list[tuple[int, int]]:
    """``width`` elements as (offset, lanes) vectors of decreasing powers of two."""
    found, start = [], 0
    while start < width:
        while start + lanes > width:
            lanes //= 2
        found.append((start, lanes))
        start += lanes
    return found
