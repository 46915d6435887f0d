"""Partial results of a reduction in vectors: how they start, take elements, cascade and fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import sym, tirx
from tvm.ir import Var

from torch_tvm.schedules.cpu.loops.producers.fusion import fresh_lets
from torch_tvm.schedules.cpu.loops.program import Reducer
from torch_tvm.tir import (
    HALF,
    Axis,
    Point,
    const,
    flat_sequence,
    is_float,
    lanes_loop,
    loop,
    nest,
    substitute,
)

CASCADE = 32
"""How many elements one float accumulator takes before it is added to a total of its own."""


def accumulate(
    accumulators: Sequence[Accumulator],
    axes: Sequence[Axis],
    env: Point,
    step: Callable[[Point], tirx.Stmt],
    last: Callable[[Point], tirx.Stmt] | None = None,
) -> list[tirx.Stmt]:
    """Start ``accumulators``, run ``step`` over ``axes`` (and ``last`` after the innermost loop), in
    cascades.

    Float sums over many steps go through a second level of accumulators, which keeps the rounding error at that of
    short sums.
    """
    outer, inner = list(axes[:-1]), axes[-1] if axes else None
    body = lambda e: step(e)
    iterations = (lambda e: nest(axes[-1:], e, body)) if inner is not None else body
    run = (lambda e: flat_sequence([iterations(e), last(e)])) if last is not None else iterations
    statements = [acc.start() for acc in accumulators]
    if inner is None or not accumulators[0].cascades or not _is_long(axes):
        return [*statements, nest(outer, env, run)]
    statements += [acc.start_total() for acc in accumulators]
    flush = lambda: flat_sequence([acc.flush() for acc in accumulators])
    if outer and not _is_long([inner]):
        statements.append(nest(outer, env, lambda e: flat_sequence([run(e), flush()])))
        return [*statements, *(acc.take_total() for acc in accumulators)]

    def blocked(e: Point) -> tirx.Stmt:
        extent = substitute(inner.extent, e)
        count = sym.Analyzer().simplify(tirx.floordiv(extent + (CASCADE - 1), CASCADE))

        def block(b: tirx.Expr) -> tirx.Stmt:
            size = tirx.min(const(CASCADE), extent - b * CASCADE)
            if isinstance(extent, tirx.IntImm) and int(extent) % CASCADE == 0:
                size = const(CASCADE)
            return flat_sequence([loop("k", size, lambda i: step({**e, inner.var: b * CASCADE + i})), flush()])

        blocks = loop("block", count, block)
        return flat_sequence([blocks, last(e), flush()]) if last is not None else blocks

    return [*statements, nest(outer, env, blocked), *(acc.take_total() for acc in accumulators)]


def _is_long(axes: Sequence[Axis | None]) -> bool:
    steps = 1
    for axis in axes:
        if axis is None:
            continue
        if axis.size is None:
            return True
        steps *= axis.size
    return steps > 2 * CASCADE


class Accumulator:
    """One vector of partial results for each result of a reducer."""

    def __init__(self, reducer: Reducer, lanes: int) -> None:
        self.reducer = reducer
        self.lanes = lanes
        self.dtypes = [_sum_dtype(reducer, n) for n in range(len(reducer.lhs))]
        self.cascades = all(_is_float_sum(reducer, n) for n in range(len(reducer.lhs)))
        self.buffers = self._allocate("acc")
        self.pending = self._allocate("next") if len(self.buffers) > 1 else []
        self.totals: list[tirx.Buffer] = []
        self.carries: list[tirx.Buffer] = []
        self.moved: list[tirx.Buffer] = []
        self.sums: list[tirx.Buffer] = []

    def _allocate(self, name: str) -> list[tirx.Buffer]:
        return [
            tirx.decl_buffer((self.lanes,), dtype, f"{name}{n}", scope="global") for n, dtype in enumerate(self.dtypes)
        ]

    def _each_lane(self, body: Callable[[int, tirx.Expr], tirx.Stmt]) -> tirx.Stmt:
        numbers = range(len(self.buffers))
        return lanes_loop(self.lanes, lambda lane: flat_sequence([body(n, lane) for n in numbers]))

    def _identity(self, number: int) -> tirx.Expr:
        value = self.reducer.identity[number]
        dtype = self.dtypes[number]
        return value if str(value.ty.dtype) == dtype else tirx.Cast(dtype, value)

    def start(self) -> tirx.Stmt:
        """Allocate, and set every lane to the identity."""
        fill = self._each_lane(lambda n, lane: tirx.BufferStore(self.buffers[n], self._identity(n), [lane]))
        return flat_sequence([*self.allocations(), fill])

    def allocations(self) -> list[tirx.Stmt]:
        return [tirx.AllocBuffer(buffer) for buffer in [*self.buffers, *self.pending]]

    def start_total(self) -> tirx.Stmt:
        self.totals, self.carries = self._allocate("total"), self._allocate("carry")
        self.moved, self.sums = self._allocate("moved"), self._allocate("sum")
        kinds = (self.totals, self.carries, self.moved, self.sums)
        zero = lambda n, lane: flat_sequence(
            [
                tirx.BufferStore(self.totals[n], self._identity(n), [lane]),
                tirx.BufferStore(self.carries[n], self._identity(n), [lane]),
            ]
        )
        return flat_sequence([*(tirx.AllocBuffer(b) for buffers in kinds for b in buffers), self._each_lane(zero)])

    def flush(self) -> tirx.Stmt:
        """Add the partial sums to the totals (with Kahan's compensation) and start them again."""

        def one(n: int, lane: tirx.Expr) -> tirx.Stmt:
            partial, total, carry, moved, added = (
                buffers[n] for buffers in (self.buffers, self.totals, self.carries, self.moved, self.sums)
            )
            at = lambda buffer: tirx.BufferLoad(buffer, [lane])
            return flat_sequence(
                [
                    tirx.BufferStore(moved, at(partial) - at(carry), [lane]),
                    tirx.BufferStore(added, at(total) + at(moved), [lane]),
                    tirx.BufferStore(carry, (at(added) - at(total)) - at(moved), [lane]),
                    tirx.BufferStore(total, at(added), [lane]),
                    tirx.BufferStore(partial, self._identity(n), [lane]),
                ]
            )

        return self._each_lane(one)

    def take_total(self) -> tirx.Stmt:
        """Make the totals the partial sums."""
        return self._each_lane(
            lambda n, lane: tirx.BufferStore(self.buffers[n], tirx.BufferLoad(self.totals[n], [lane]), [lane])
        )

    def read(self, number: int, lane: tirx.Expr) -> tirx.Expr:
        return tirx.BufferLoad(self.buffers[number], [lane])

    def update(self, lane: tirx.Expr, elements: Sequence[tirx.Expr]) -> tirx.Stmt:
        """Combine one element into ``lane``."""
        return self._combine(self.buffers, lane, lane, elements)

    def absorb(self, other: Accumulator) -> tirx.Stmt:
        """Combine the lanes of ``other``, which has as many, into these."""
        return lanes_loop(
            self.lanes,
            lambda lane: self.update(lane, [other.read(n, lane) for n in range(len(self.buffers))]),
        )

    def fold(self) -> tuple[Accumulator, tirx.Stmt]:
        """The lower half of the lanes combined with the upper half, as a new accumulator.

        The halves are shuffled out of whole vectors: LLVM would break a vector that is also read in parts into those
        parts, wherever it is used.
        """
        half = Accumulator(self.reducer, self.lanes // 2)
        low, high = half._allocate("low"), half._allocate("high")
        statements: list[tirx.Stmt] = half.allocations()
        statements += [tirx.AllocBuffer(buffer) for buffer in (*low, *high)]
        for number, buffer in enumerate(self.buffers):
            whole = tirx.BufferLoad(buffer, [_all_lanes(self.lanes)])
            for part, first in ((low[number], 0), (high[number], half.lanes)):
                lanes = [tirx.IntImm("int32", lane) for lane in range(first, first + half.lanes)]
                statements.append(tirx.BufferStore(part, tirx.Shuffle([whole], lanes), [_all_lanes(half.lanes)]))
        element = lambda lane: [tirx.BufferLoad(buffer, [lane]) for buffer in high]
        combine = lambda lane: half._combine(low, lane, lane, element(lane))
        statements.append(lanes_loop(half.lanes, combine))
        return half, flat_sequence(statements)

    def _combine(
        self,
        sources: Sequence[tirx.Buffer],
        source_lane: tirx.Expr,
        lane: tirx.Expr,
        elements: Sequence[tirx.Expr],
    ) -> tirx.Stmt:
        old = [tirx.BufferLoad(source, [source_lane]) for source in sources]
        results = [self._result(n, old, elements) for n in range(len(self.buffers))]
        if len(results) == 1:
            return tirx.BufferStore(self.buffers[0], results[0], [lane])
        stores = [tirx.BufferStore(b, r, [lane]) for b, r in zip(self.pending, results, strict=True)]
        moves = [
            tirx.BufferStore(b, tirx.BufferLoad(p, [lane]), [lane])
            for b, p in zip(self.buffers, self.pending, strict=True)
        ]
        return flat_sequence([*stores, *moves])

    def _result(self, number: int, old: Sequence[tirx.Expr], elements: Sequence[tirx.Expr]) -> tirx.Expr:
        reducer = self.reducer
        if self.dtypes[number] != str(reducer.lhs[number].ty.dtype):
            element = elements[number]
            if str(element.ty.dtype) != self.dtypes[number]:
                element = tirx.Cast(self.dtypes[number], element)
            if isinstance(reducer.results[number], tirx.Add):
                return old[number] + element
            combine = tirx.bitwise_or if isinstance(reducer.results[number], tirx.Or) else tirx.bitwise_and
            return combine(old[number], element)
        if not reducer.rhs:
            return fresh_lets(substitute(elements[number], dict(zip(reducer.lhs, old, strict=True))))
        names = [Var(f"elem{n}", element.ty) for n, element in enumerate(elements)]
        mapping = {**dict(zip(reducer.lhs, old, strict=True)), **dict(zip(reducer.rhs, names, strict=True))}
        result = substitute(reducer.results[number], mapping)
        for name, element in zip(names, elements, strict=True):
            result = tirx.Let(name, fresh_lets(element), result)
        return result


def _all_lanes(lanes: int) -> tirx.Expr:
    return tirx.Ramp(const(0), const(1), lanes) if lanes > 1 else const(0)


def _is_float_sum(reducer: Reducer, number: int) -> bool:
    result = reducer.results[number]
    return bool(reducer.rhs) and isinstance(result, tirx.Add) and is_float(str(result.ty.dtype))


def _sum_dtype(reducer: Reducer, number: int) -> str:
    """The type that result ``number`` is accumulated in: half-precision sums in float32, truth in bytes."""
    dtype = str(reducer.lhs[number].ty.dtype)
    if dtype in HALF and _is_float_sum(reducer, number):
        return "float32"
    return "uint8" if isinstance(reducer.results[number], (tirx.And, tirx.Or)) and reducer.rhs else dtype
