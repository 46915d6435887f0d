"""Constructors for kernels that are written as explicit TIR: loops, vector loads, accumulators.

Schedules of register-tiled kernels (convolution, Winograd, depthwise) emit their loop nest directly: the
tile is unrolled by Python, so every accumulator has a constant place and LLVM keeps it in a register.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm
from tvm import tirx
from tvm.ir import Expr, StringImm
from tvm.tirx.stmt import ForKind

from torch_tvm.support.attributes import HIDDEN

INDEX = "int64"

LINE = 64
"""Bytes in a line of the cache."""

INTERLEAVED = 4
"""Vectors that a transcendental function is computed for side by side, at most: its steps wait for each other."""

KINDS = {
    "serial": ForKind.SERIAL,
    "parallel": ForKind.PARALLEL,
    "vectorized": ForKind.VECTORIZED,
    "unrolled": ForKind.UNROLLED,
}

Body = Callable[[Expr], tirx.Stmt]


def const(value: int) -> tirx.IntImm:
    """An index constant."""
    return tirx.IntImm(INDEX, int(value))


def index(value: int | Expr) -> Expr:
    """``value`` as an index expression."""
    return const(value) if isinstance(value, int) else value


def is_zero(value: int | Expr) -> bool:
    """Whether ``value`` is the constant 0."""
    return static(value) == 0


def static(value: int | Expr) -> int | None:
    """The constant behind ``value``, or None when it is symbolic."""
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, tirx.IntImm) else None


def ceil_div(value: int | Expr, divisor: int) -> int | Expr:
    """``value / divisor`` rounded up."""
    if isinstance(value, int):
        return -(-value // divisor)
    return (value + (divisor - 1)) // divisor


def sequence(*stmts: tirx.Stmt | None) -> tirx.Stmt:
    """The statements one after the other (None is skipped)."""
    kept = [stmt for stmt in stmts if stmt is not None]
    if not kept:
        return tirx.Evaluate(const(0))
    return kept[0] if len(kept) == 1 else tirx.SeqStmt(kept)


def loop(
    name: str, extent: int | Expr, body: Body, *, start: int | Expr = 0, kind: str = "serial"
) -> tirx.Stmt:
    """``for name in range(start, start + extent)``; a loop of one turn disappears."""
    if static(extent) == 1 and kind != "vectorized":
        return body(index(start))
    var = tirx.Var(name, INDEX)
    return tirx.For(var, index(start), index(extent), KINDS[kind], body(var))


def when(condition: Expr | bool | None, then: tirx.Stmt, otherwise: tirx.Stmt | None = None) -> tirx.Stmt:
    """``if condition``; None or True runs ``then`` unconditionally."""
    if condition is None or condition is True:
        return then
    return tirx.IfThenElse(condition, then, otherwise)


_HIDDEN_IR = f"""
define linkonce_odr i32 @{HIDDEN}(i32 %value) alwaysinline {{
  %same = call i32 asm "", "=r,0"(i32 %value)
  ret i32 %same
}}
"""


def hidden(count: int) -> Expr:
    """``count`` as a loop bound that LLVM cannot see through, so that it leaves the loop rolled.

    A body with this in it goes through :func:`with_hidden`.
    """
    return tirx.call_pure_extern("int32", HIDDEN, tirx.IntImm("int32", count)).astype(INDEX)


def with_hidden(body: tirx.Stmt) -> tirx.Stmt:
    """``body`` with the definition that :func:`hidden` calls."""
    return with_llvm(_HIDDEN_IR, body)


def with_llvm(definitions: str, body: tirx.Stmt) -> tirx.Stmt:
    """``body`` with functions in LLVM IR that it calls."""
    return tirx.AttrStmt(const(0), "pragma_import_llvm", StringImm(definitions), body)


def vectors_in_line(lanes: int, dtype: str) -> int:
    """How many vectors of ``lanes`` elements a line of the cache holds, at least one."""
    return max(1, LINE * 8 // (lanes * tvm.DataType(dtype).bits))


def prefetch(place: Expr, level: int) -> tirx.Stmt:
    """Ask for the line of the element ``place``: into the first cache with ``level`` 3, the second with 2."""
    return tirx.Evaluate(tirx.call_intrin("void", "tirx.prefetch", tirx.address_of(place), 0, level, 1))


def prefetch_parts(
    buffer: tirx.Buffer, start: Sequence[int | Expr], size: int, turns: int | Expr, fewest: int
) -> tuple[tirx.Stmt | None, Body]:
    """Ask for the ``size`` elements from ``start`` on in equal parts: what to bind first, and the part of a turn.

    There are ``turns`` turns, at least ``fewest``. A core waits for few lines at a time, and what it asks for beyond
    them delays its loads; so the requests are spread. They go into the second-level cache.
    """
    share = ceil_div(size, turns) if isinstance(turns, int) else (const(size - 1) + turns) // turns
    part, bound = bind_index("part", share)
    most = ceil_div(size, turns if isinstance(turns, int) else fewest)
    line = LINE * 8 // tvm.DataType(str(buffer.ty.dtype)).bits
    head, last = [index(i) for i in start[:-1]], index(start[-1])

    def part_of(turn: Expr) -> tirx.Stmt:
        places = (
            tirx.BufferLoad(buffer, [*head, last + turn * part + const(offset)])
            for offset in range(0, most, line)
        )
        return sequence(*(prefetch(place, 2) for place in places))

    return bound, part_of


def inside(position: Expr, extent: int | Expr) -> Expr:
    """``0 <= position < extent``."""
    return tirx.all(position >= const(0), position < index(extent))


def select_case(which: Expr, bounds: Sequence[int], cases: Sequence[Body]) -> tirx.Stmt:
    """Run ``cases[k]`` with ``which - bounds[k]`` for the k with ``bounds[k] <= which < bounds[k + 1]``."""
    result = cases[-1](which - const(bounds[-1]) if bounds[-1] else which)
    for bound, start, case in reversed(list(zip(bounds[1:], bounds[:-1], cases[:-1], strict=True))):
        result = tirx.IfThenElse(which < const(bound), case(which - const(start) if start else which), result)
    return result


def lane_slice(buffer: tirx.Buffer, indices: Sequence[int | Expr], lanes: int) -> list[Expr]:
    """Indices that cover ``lanes`` consecutive elements, from ``indices`` on."""
    head = [index(i) for i in indices[:-1]]
    return (
        [*head, tirx.Ramp(index(indices[-1]), const(1), lanes)] if lanes > 1 else [*head, index(indices[-1])]
    )


def load(buffer: tirx.Buffer, indices: Sequence[int | Expr], lanes: int = 1) -> Expr:
    """One element, or a vector of ``lanes`` consecutive ones."""
    return tirx.BufferLoad(buffer, lane_slice(buffer, indices, lanes))


def store(buffer: tirx.Buffer, value: Expr, indices: Sequence[int | Expr], lanes: int = 1) -> tirx.Stmt:
    """Store one element, or a vector of ``lanes`` consecutive ones."""
    return tirx.BufferStore(buffer, value, lane_slice(buffer, indices, lanes))


def broadcast(value: Expr, lanes: int) -> Expr:
    """A vector of ``lanes`` copies."""
    return tirx.Broadcast(value, lanes) if lanes > 1 else value


class Accumulators:
    """A register tile: ``count`` vectors of ``lanes`` elements in a buffer that LLVM promotes to registers."""

    def __init__(self, count: int, lanes: int, dtype: str, name: str = "acc") -> None:
        self.count, self.lanes, self.dtype = count, lanes, dtype
        self.buffer = tirx.decl_buffer((const(count * lanes),), dtype, name, scope="local")

    def allocate(self) -> tirx.Stmt:
        return tirx.AllocBuffer(self.buffer)

    def get(self, which: int | Expr) -> Expr:
        return load(self.buffer, [which * self.lanes], self.lanes)

    def lane(self, which: int, lane: Expr) -> Expr:
        """One element of vector ``which``, for a loop over lanes."""
        return tirx.BufferLoad(self.buffer, [const(which * self.lanes) + lane])

    def set(self, which: int | Expr, value: Expr) -> tirx.Stmt:
        return store(self.buffer, value, [which * self.lanes], self.lanes)

    def clear(self) -> tirx.Stmt:
        zero = broadcast(tirx.const(0, self.dtype), self.lanes)
        return loop("acc", self.count, lambda which: self.set(which, zero), kind="unrolled")


def bind_index(name: str, value: int | Expr) -> tuple[Expr, tirx.Stmt | None]:
    """An index kept in a variable, so that expressions made of it stay short (constants need none)."""
    if static(value) is not None or isinstance(value, tirx.Var):
        return index(value), None
    var = tirx.Var(name, INDEX)
    return var, tirx.Bind(var, value)


class Names:
    """Index variables that are bound one after the other, by :func:`bind_index`."""

    def __init__(self) -> None:
        self.bound: list[tirx.Stmt | None] = []

    def __call__(self, name: str, value: int | Expr) -> Expr:
        result, stmt = bind_index(name, value)
        self.bound.append(stmt)
        return result


def bind_vector(name: str, value: Expr, lanes: int, dtype: str) -> tuple[tirx.Var, tirx.Stmt]:
    """A vector held in a register: its variable and the statement that sets it."""
    var = tirx.Var(name, f"{dtype}x{lanes}" if lanes > 1 else dtype)
    return var, tirx.Bind(var, value)
