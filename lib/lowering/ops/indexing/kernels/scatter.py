"""Kernels that combine updates with what lies at their places: one after the other, in parallel where parts of the
updates go to parts of the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.conversion import is_nan
from torch_tvm.lowering.ops.indexing.positions import IndexCheck, read, write
from torch_tvm.tir import ceil_div, is_float, loop, sequence, static

OF_BOOLS = {"amax": "sum", "amin": "prod"}
"""Reductions of booleans that are others: the largest is whether any is true."""


def combination(reduction: str, old: Any, new: Any, dtype: str) -> Any:
    if reduction == "sum":
        return tirx.Or(old, new) if dtype == "bool" else old + new
    if reduction == "prod":
        return tirx.And(old, new) if dtype == "bool" else old * new
    if reduction in ("amax", "amin"):
        better = new > old if reduction == "amax" else new < old
        if is_float(dtype):
            better = tirx.Or(better, is_nan(new))
        return tirx.Select(better, new, old)
    return new


def identity(reduction: str, dtype: str) -> Any:
    if reduction == "amax":
        return tirx.const(float("-inf"), dtype) if is_float(dtype) else tirx.min_value(dtype)
    if reduction == "amin":
        return tirx.const(float("inf"), dtype) if is_float(dtype) else tirx.max_value(dtype)
    return tirx.const(1 if reduction == "prod" else 0, dtype)


COLUMNS = 256
"""Columns of a row that one thread of a CPU takes: threads share the columns, so each sees all updates in order."""

STRIP = 64
"""Columns of one thread where each column has indices of its own: a strip of a tensor stays in the cache of a CPU."""


@dataclass(frozen=True)
class Update:
    """How the updates of a scatter are combined with what lies there: rows, or single elements.

    A thread takes ``columns`` of a row.
    """

    reduction: str
    dtype: str
    include_self: bool
    is_element: bool
    columns: int = COLUMNS

    def body(self, ins: Sequence[Any], outs: Sequence[Any], width: Any, parts: Any) -> tirx.Stmt:
        """Copy the data, then write the updates of each part in order: the parts, and chunks of rows, side by side."""
        data, where, values = (T.buffer_proxy(buffer) for buffer in ins)
        out = T.buffer_proxy(outs[0])
        each = tirx.floordiv(ins[1].shape[0], parts)
        chunks = ceil_div(width, self.columns)
        with IRBuilder() as builder:
            with T.seq_scope():
                with T.parallel(0, ins[0].shape[0]) as i:
                    out[i] = data[i]
                with T.parallel(0, parts * chunks) as task:
                    group, chunk = task // chunks, task % chunks
                    if not self.include_self:
                        with T.serial(0, each) as i:
                            start = lambda _: identity(self.reduction, self.dtype)
                            self.write(out, where[group * each + i], start, chunk, width)
                    with T.serial(0, each) as i:
                        self.combine(out, where, values, group * each + i, chunk, width)
            return builder.get()

    def combine(self, out: Any, where: Any, values: Any, number: Any, chunk: Any, width: Any) -> None:
        """The update ``number`` with what lies at its place."""

        def combined(j: Any) -> Any:
            old = out[where[number] * width + j]
            return combination(self.reduction, old, values[number * width + j], self.dtype)

        self.write(out, where[number], combined, chunk, width)

    def write(self, out: Any, place: Any, value: Callable[[Any], Any], chunk: Any, width: Any) -> None:
        """At one place, if it is one: the part ``chunk`` of a row, or its only element."""
        with T.If(place >= 0), T.Then():
            if self.is_element:
                out[place] = value(0)
                return
            first = chunk * self.columns
            with T.serial(0, tirx.min(width - first, self.columns)) as j:
                out[place * width + first + j] = value(first + j)


@dataclass(frozen=True)
class UpdateAlong:
    """Indices of their own for each element: ``out[o, index[o, k, i], i]`` gets ``values[o, k, i]``, for k in order.

    ``check`` raises for positions out of range; without one they are passed over. ``fill`` is the value of all updates
    where there is no tensor of them.
    """

    reduction: str
    dtype: str
    include_self: bool
    check: IndexCheck | None
    fill: Any = None
    columns: int = STRIP

    def body(self, ins: Sequence[Any], outs: Sequence[Any], sizes: Sequence[Any]) -> tirx.Stmt:
        """``sizes`` are o, those of the dimension in the tensor and in the index, and i.

        Threads share o and strips of ``columns`` of i.
        """
        outer, size, count, inner = sizes
        found = tirx.decl_buffer((1,), "int64", "found")
        strips = ceil_div(inner, self.columns)

        def strip(task: Any) -> tirx.Stmt:
            first = tirx.floormod(task, strips) * self.columns
            width = inner if _is_at_most(inner, self.columns) else tirx.min(inner - first, self.columns)
            row = tirx.floordiv(task, strips)

            def over(extent: Any, body: Callable[[Any, Any], tirx.Stmt]) -> tirx.Stmt:
                """``body`` of the number of each element of the strip, and of the first one in its column."""
                at = lambda k, j: (row * extent + k) * inner + first + j
                start = lambda j: row * size * inner + first + j
                return loop("k", extent, lambda k: loop("j", width, lambda j: body(at(k, j), start(j))))

            return sequence(
                over(size, lambda at, _: tirx.BufferStore(outs[0], ins[0][at], [at])),
                *self._updates(ins, outs[0], size, count, inner, found, over),
            )

        scatter = loop("task", outer * strips, strip, kind="parallel")
        if self.check is None:
            return scatter
        raising = tirx.IfThenElse(read(found) != 0, self.check.raising(ins[1], size), None)
        return tirx.SeqStmt([tirx.AllocBuffer(found), write(found, 0), scatter, raising])

    def _updates(
        self,
        ins: Sequence[Any],
        out: Any,
        size: Any,
        count: Any,
        inner: Any,
        found: Any,
        over: Callable[..., Any],
    ) -> list[tirx.Stmt]:
        """Every place that is written made ready, unless what lies there counts, and then every update."""

        def written(at: Any, start: Any, value: Callable[[Any], Any], note: tirx.Stmt | None) -> tirx.Stmt:
            position = tirx.Var("position", "int64")
            place = start + position * inner
            store = tirx.BufferStore(out, value(out[place]), [place])
            inside = tirx.all(position >= 0, position < size)
            return tirx.SeqStmt(
                [tirx.Bind(position, tirx.Cast("int64", ins[1][at])), tirx.IfThenElse(inside, store, note)]
            )

        def update(at: Any, start: Any) -> tirx.Stmt:
            new = ins[2][at] if self.fill is None else self.fill
            combined = lambda old: combination(self.reduction, old, new, self.dtype)
            return written(at, start, combined, None if self.check is None else write(found, 1))

        begin = lambda _: identity(self.reduction, self.dtype)
        ready = [] if self.include_self else [over(count, lambda at, start: written(at, start, begin, None))]
        return [*ready, over(count, update)]


def _is_at_most(size: Any, limit: int) -> bool:
    known = static(size)
    return known is not None and known <= limit


__all__ = ["COLUMNS", "OF_BOOLS", "STRIP", "Update", "UpdateAlong", "combination", "identity"]
