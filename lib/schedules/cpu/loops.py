"""Loop nests for stages: vector tiles with tails of their own width, and horizontal reductions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import tvm_ffi
from tvm import sym, tirx
from tvm.ir import TensorLoad, Var

from torch_tvm.schedules.cpu.access import is_guarded
from torch_tvm.schedules.cpu.fusion import fresh_lets, linear_size
from torch_tvm.schedules.cpu.program import Axis, Reducer, Stage, analyzer_for, constant, linear, substitute

CASCADE = 32
"""How many elements one float accumulator takes before it is added to a total of its own."""

Mapping = dict[Var, tirx.Expr]


def sequence(statements: Sequence[tirx.Stmt]) -> tirx.Stmt:
    """One statement for several (or for none); sequences in it are flattened, so their allocations stay
    visible."""
    flat: list[tirx.Stmt] = []
    for statement in statements:
        flat.extend(statement.seq if isinstance(statement, tirx.SeqStmt) else [statement])
    if not flat:
        return tirx.Evaluate(constant(0))
    return flat[0] if len(flat) == 1 else tirx.SeqStmt(flat)


def for_loop(
    extent: tirx.Expr | int,
    body: Callable[[Var], tirx.Stmt],
    kind: tirx.ForKind = tirx.ForKind.SERIAL,
    name: str = "i",
) -> tirx.Stmt:
    """``for name in range(extent): body(name)``; a loop of one turn is its body."""
    extent = constant(extent) if isinstance(extent, int) else extent
    if isinstance(extent, tirx.IntImm) and int(extent) == 1:
        return body(constant(0))
    if isinstance(extent, tirx.IntImm) and int(extent) == 0:
        return sequence([])
    var = Var(name, "int64")
    return tirx.For(var, constant(0), extent, kind, body(var))


def nest(axes: Sequence[Axis], mapping: Mapping, body: Callable[[Mapping], tirx.Stmt]) -> tirx.Stmt:
    """Serial loops over ``axes`` around ``body``, which gets ``mapping`` extended by the loop variables."""
    if not axes:
        return body(mapping)
    first, *rest = axes
    inner = lambda var: nest(rest, {**mapping, first.var: var}, body)
    return for_loop(substitute(first.extent, mapping), inner, name=first.var.name)


def pieces(width: int, lanes: int) -> list[tuple[int, int]]:
    """``width`` elements as (offset, lanes) vectors, the last one narrower if need be."""
    return [(begin, min(lanes, width - begin)) for begin in range(0, width, lanes)]


@dataclass
class Memory:
    """Where buffers live: one flat buffer for each, and the group-local ones with the dimensions that they
    keep.

    ``local`` maps a buffer to the positions of the dimensions that stay, and to the tile width (0: none)
    of the
    vector axis, whose place within the tile is ``lane``.
    """

    flat: dict[tirx.Buffer, tirx.Buffer]
    local: dict[tirx.Buffer, tuple[tuple[int, ...], int]] = field(default_factory=dict)
    lane: Var = field(default_factory=lambda: Var("lane", "int64"))

    def place(self, buffer: tirx.Buffer, indices: Sequence[tirx.Expr]) -> tirx.Expr:
        """The position of an element in the flat buffer of ``buffer``."""
        if buffer not in self.local:
            return linear(buffer.shape, indices)
        kept, width = self.local[buffer]
        position = linear([buffer.shape[d] for d in kept], [indices[d] for d in kept])
        return position * width + self.lane if width else position

    def local_size(self, buffer: tirx.Buffer) -> tirx.Expr:
        """How many elements a local ``buffer`` has."""
        kept, width = self.local[buffer]
        return sym.Analyzer().simplify(linear_size([buffer.shape[d] for d in kept]) * max(width, 1))

    def rewrite(self, expr: tirx.Expr, mapping: Mapping, analyzer: sym.Analyzer) -> tirx.Expr:
        """``expr`` at the point that ``mapping`` names, its loads from flat buffers, its lets renamed."""

        def visit(load: TensorLoad, mutator: object) -> tirx.Expr:
            indices = [mutator.mutate(index) for index in load.indices]
            position = analyzer.simplify(self.place(load.source, indices))
            return tirx.BufferLoad(self.flat[load.source], [substitute(position, mapping)])

        flattened = tvm_ffi.structural_mutate(expr, [(TensorLoad, visit)])
        return fresh_lets(substitute(flattened, mapping))


class Emitter:
    """Emits the loops of one stage; ``rows`` are the axes that are fixed around it."""

    def __init__(self, memory: Memory, rows: Sequence[Axis], lanes: int) -> None:
        self.memory = memory
        self.rows = tuple(rows)
        self.lanes = lanes

    # --- one point of a stage ----------------------------------------------------------------------

    def value(self, stage: Stage, number: int, mapping: Mapping) -> tirx.Expr:
        """Result ``number`` (or, of a reduction, the element) at the point that ``mapping`` names."""
        return self.memory.rewrite(stage.values[number], mapping, analyzer_for([*self.rows, *stage.axes]))

    def store(self, stage: Stage, number: int, mapping: Mapping, value: tirx.Expr) -> tirx.Stmt:
        buffer = stage.buffers[number]
        analyzer = analyzer_for([*self.rows, *stage.axes])
        position = analyzer.simplify(self.memory.place(buffer, stage.indices[number]))
        if str(value.ty.dtype) != str(buffer.dtype):
            value = tirx.Cast(str(buffer.dtype), value)
        return tirx.BufferStore(self.memory.flat[buffer], value, [substitute(position, mapping)])

    def lane_loop(
        self, stage: Stage, axis: Axis, width: int, body: Callable[[tirx.Expr], tirx.Stmt]
    ) -> tirx.Stmt:
        """``width`` neighbours along ``axis`` as one vector, or as a loop where a guard tells them apart."""
        guarded = any(is_guarded(value, axis.var) for value in stage.values)
        kind = tirx.ForKind.SERIAL if guarded else tirx.ForKind.VECTORIZED
        return for_loop(width, body, kind, name="lane")

    # --- tiles along a spatial axis ----------------------------------------------------------------

    def tile(self, stage: Stage, axis: Axis, base: tirx.Expr, width: int, mapping: Mapping) -> tirx.Stmt:
        """``stage`` for ``axis`` in ``base .. base + width``: vectors of at most ``lanes``."""

        def at(offset: int, lane: tirx.Expr, env: Mapping) -> Mapping:
            inside = lane + offset if offset else lane
            return {**env, axis.var: base + inside, self.memory.lane: inside}

        if stage.reducer is not None:
            return self._reduce_tile(stage, axis, width, mapping, at)

        def point(env: Mapping) -> tirx.Stmt:
            return sequence(
                [
                    self.lane_loop(
                        stage, axis, lanes, lambda lane, o=offset: self._store_point(stage, at(o, lane, env))
                    )
                    for offset, lanes in pieces(width, self.lanes)
                ]
            )

        return nest(stage.spatial, mapping, point)

    def _store_point(self, stage: Stage, env: Mapping) -> tirx.Stmt:
        values = [self.value(stage, n, env) for n in range(len(stage.values))]
        return sequence([self.store(stage, n, env, value) for n, value in enumerate(values)])

    def _reduce_tile(self, stage: Stage, axis: Axis, width: int, mapping: Mapping, at: Callable) -> tirx.Stmt:
        def point(env: Mapping) -> tirx.Stmt:
            parts = pieces(width, self.lanes)
            sums = [Accumulator(stage.reducer, lanes) for _, lanes in parts]

            def step(inner: Mapping) -> tirx.Stmt:
                turns = []
                for (offset, lanes), accumulator in zip(parts, sums, strict=True):
                    take = lambda lane, o=offset, acc=accumulator: acc.update(
                        lane, [self.value(stage, n, at(o, lane, inner)) for n in range(len(stage.values))]
                    )
                    turns.append(self.lane_loop(stage, axis, lanes, take))
                return sequence(turns)

            def finish(offset: int, accumulator: Accumulator) -> Callable[[tirx.Expr], tirx.Stmt]:
                return lambda lane: sequence(
                    [
                        self.store(stage, n, at(offset, lane, env), accumulator.read(n, lane))
                        for n in range(len(stage.values))
                    ]
                )

            ends = [
                for_loop(lanes, finish(offset, acc), tirx.ForKind.VECTORIZED, name="lane")
                for (offset, lanes), acc in zip(parts, sums, strict=True)
            ]
            return sequence([*accumulate(sums, stage.reduced, env, step), *ends])

        return nest(stage.spatial, mapping, point)

    # --- reductions along the vector axis ----------------------------------------------------------

    def horizontal(self, stage: Stage, axis: Axis, mapping: Mapping) -> tirx.Stmt:
        """Reduce ``stage`` with vectors along its reduced ``axis``: several accumulators, then a tree."""
        return nest(stage.spatial, mapping, lambda env: self._reduce_row(stage, axis, env))

    def _reduce_row(self, stage: Stage, axis: Axis, env: Mapping) -> tirx.Stmt:
        outer = [other for other in stage.reduced if other is not axis]
        lanes = self.lanes
        extent = substitute(axis.extent, env)
        size = int(extent) if isinstance(extent, tirx.IntImm) else None
        unroll = 4 if size is None else max(1, min(4, size // lanes))
        main = [Accumulator(stage.reducer, lanes) for _ in range(unroll)]
        tail_widths = [1] if size is None else [w for w in _powers(lanes) if size % lanes & w]
        tails = [Accumulator(stage.reducer, w) for w in tail_widths]

        def take(accumulator: Accumulator, base: tirx.Expr, inner: Mapping) -> tirx.Stmt:
            def point(lane: tirx.Expr) -> tirx.Stmt:
                at = {**inner, axis.var: base + lane}
                return accumulator.update(lane, [self.value(stage, n, at) for n in range(len(stage.values))])

            return self.lane_loop(stage, axis, accumulator.lanes, point)

        def vectors(i: tirx.Expr, inner: Mapping) -> tirx.Stmt:
            begins = [i * (lanes * unroll) + u * lanes for u in range(unroll)]
            return sequence([take(acc, begin, inner) for acc, begin in zip(main, begins, strict=True)])

        def rest(inner: Mapping) -> tirx.Stmt:
            whole = tirx.floordiv(extent, lanes * unroll) * unroll
            left = tirx.floordiv(extent, lanes) - whole
            one = lambda i: take(main[0], (whole + i) * lanes, inner)
            begin = tirx.floordiv(extent, lanes) * lanes
            statements = [for_loop(sym.Analyzer().simplify(left), one)]
            if size is None:
                statements.append(
                    for_loop(tirx.floormod(extent, lanes), lambda i: take(tails[0], begin + i, inner))
                )
            else:
                offset = constant(size - size % lanes)
                for accumulator in tails:
                    statements.append(take(accumulator, offset, inner))
                    offset = constant(int(offset) + accumulator.lanes)
            return sequence(statements)

        turn = Axis(
            Var(axis.var.name, "int64"), sym.Analyzer().simplify(tirx.floordiv(extent, lanes * unroll))
        )
        step = lambda inner: vectors(inner[turn.var], inner)
        steps = accumulate([*main, *tails], [*outer, turn], env, step, last=rest)
        return sequence([*steps, *self._finish_row(stage, env, main, tails)])

    def _finish_row(
        self, stage: Stage, env: Mapping, main: list[Accumulator], tails: list[Accumulator]
    ) -> list[tirx.Stmt]:
        statements = []
        while len(main) > 1:
            half = (len(main) + 1) // 2
            statements += [a.absorb(b) for a, b in zip(main, main[half:], strict=False)]
            main = main[:half]
        total = main[0]
        while True:
            for tail in tails:
                if tail.lanes == total.lanes:
                    statements.append(total.absorb(tail))
            if total.lanes == 1:
                break
            folded, statement = total.fold()
            statements.append(statement)
            total = folded
        zero = constant(0)
        statements += [self.store(stage, n, env, total.read(n, zero)) for n in range(len(stage.values))]
        return statements


def _powers(lanes: int) -> list[int]:
    return [1 << bit for bit in range(lanes.bit_length() - 2, -1, -1)]


def accumulate(
    accumulators: Sequence[Accumulator],
    axes: Sequence[Axis],
    env: Mapping,
    step: Callable[[Mapping], tirx.Stmt],
    last: Callable[[Mapping], tirx.Stmt] | None = None,
) -> list[tirx.Stmt]:
    """Start ``accumulators``, run ``step`` over ``axes`` (and ``last`` after the innermost loop), in
    cascades.

    Float sums over many steps go through a second level of accumulators, which keeps the rounding error at
    that of
    short sums.
    """
    *outer, inner = axes if axes else [None]
    body = lambda e: step(e)
    loop = (lambda e: nest([inner], e, body)) if inner is not None else body
    run = (lambda e: sequence([loop(e), last(e)])) if last is not None else loop
    statements = [acc.start() for acc in accumulators]
    if not accumulators[0].cascades or not _is_long(axes):
        return [*statements, nest(outer, env, run)]
    statements += [acc.start_total() for acc in accumulators]
    flush = lambda: sequence([acc.flush() for acc in accumulators])
    if outer and not _is_long([inner]):
        statements.append(nest(outer, env, lambda e: sequence([run(e), flush()])))
        return [*statements, *(acc.take_total() for acc in accumulators)]

    def blocked(e: Mapping) -> tirx.Stmt:
        extent = substitute(inner.extent, e)
        count = sym.Analyzer().simplify(tirx.floordiv(extent + (CASCADE - 1), CASCADE))

        def block(b: tirx.Expr) -> tirx.Stmt:
            size = tirx.min(constant(CASCADE), extent - b * CASCADE)
            if isinstance(extent, tirx.IntImm) and int(extent) % CASCADE == 0:
                size = constant(CASCADE)
            return sequence(
                [for_loop(size, lambda i: step({**e, inner.var: b * CASCADE + i}), name="k"), flush()]
            )

        blocks = for_loop(count, block, name="block")
        return sequence([blocks, last(e), flush()]) if last is not None else blocks

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
            tirx.decl_buffer((self.lanes,), dtype, f"{name}{n}", scope="global")
            for n, dtype in enumerate(self.dtypes)
        ]

    def _each_lane(self, body: Callable[[int, tirx.Expr], tirx.Stmt]) -> tirx.Stmt:
        numbers = range(len(self.buffers))
        return for_loop(
            self.lanes,
            lambda lane: sequence([body(n, lane) for n in numbers]),
            tirx.ForKind.VECTORIZED,
            name="lane",
        )

    def _identity(self, number: int) -> tirx.Expr:
        value = self.reducer.identity[number]
        dtype = self.dtypes[number]
        return value if str(value.ty.dtype) == dtype else tirx.Cast(dtype, value)

    def start(self) -> tirx.Stmt:
        """Allocate, and set every lane to the identity."""
        fill = self._each_lane(lambda n, lane: tirx.BufferStore(self.buffers[n], self._identity(n), [lane]))
        return sequence([*self.allocations(), fill])

    def allocations(self) -> list[tirx.Stmt]:
        return [tirx.AllocBuffer(buffer) for buffer in [*self.buffers, *self.pending]]

    def start_total(self) -> tirx.Stmt:
        self.totals, self.carries = self._allocate("total"), self._allocate("carry")
        self.moved, self.sums = self._allocate("moved"), self._allocate("sum")
        kinds = (self.totals, self.carries, self.moved, self.sums)
        zero = lambda n, lane: sequence(
            [
                tirx.BufferStore(self.totals[n], self._identity(n), [lane]),
                tirx.BufferStore(self.carries[n], self._identity(n), [lane]),
            ]
        )
        return sequence([*(tirx.AllocBuffer(b) for buffers in kinds for b in buffers), self._each_lane(zero)])

    def flush(self) -> tirx.Stmt:
        """Add the partial sums to the totals (with Kahan's compensation) and start them again."""

        def one(n: int, lane: tirx.Expr) -> tirx.Stmt:
            partial, total, carry, moved, added = (
                buffers[n] for buffers in (self.buffers, self.totals, self.carries, self.moved, self.sums)
            )
            at = lambda buffer: tirx.BufferLoad(buffer, [lane])
            return sequence(
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
        return for_loop(
            self.lanes,
            lambda lane: self.update(lane, [other.read(n, lane) for n in range(len(self.buffers))]),
            tirx.ForKind.VECTORIZED,
            name="lane",
        )

    def fold(self) -> tuple[Accumulator, tirx.Stmt]:
        """The lower half of the lanes combined with the upper half, as a new accumulator.

        The halves are shuffled out of whole vectors: LLVM would break a vector that is also read in parts
        into
        those parts, wherever it is used.
        """
        half = Accumulator(self.reducer, self.lanes // 2)
        low, high = half._allocate("low"), half._allocate("high")
        statements: list[tirx.Stmt] = half.allocations()
        statements += [tirx.AllocBuffer(buffer) for buffer in (*low, *high)]
        for number, buffer in enumerate(self.buffers):
            whole = tirx.BufferLoad(buffer, [_all_lanes(self.lanes)])
            for part, first in ((low[number], 0), (high[number], half.lanes)):
                lanes = [tirx.IntImm("int32", lane) for lane in range(first, first + half.lanes)]
                statements.append(
                    tirx.BufferStore(part, tirx.Shuffle([whole], lanes), [_all_lanes(half.lanes)])
                )
        element = lambda lane: [tirx.BufferLoad(buffer, [lane]) for buffer in high]
        combine = lambda lane: half._combine(low, lane, lane, element(lane))
        statements.append(for_loop(half.lanes, combine, tirx.ForKind.VECTORIZED, name="lane"))
        return half, sequence(statements)

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
        return sequence([*stores, *moves])

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
    return tirx.Ramp(constant(0), constant(1), lanes) if lanes > 1 else constant(0)


def _is_float_sum(reducer: Reducer, number: int) -> bool:
    result = reducer.results[number]
    return (
        bool(reducer.rhs)
        and isinstance(result, tirx.Add)
        and str(result.ty.dtype).startswith(("float", "bfloat"))
    )


def _sum_dtype(reducer: Reducer, number: int) -> str:
    """The type that result ``number`` is accumulated in: half-precision sums in float32, truth in bytes."""
    dtype = str(reducer.lhs[number].ty.dtype)
    if dtype in ("float16", "bfloat16") and _is_float_sum(reducer, number):
        return "float32"
    return "uint8" if isinstance(reducer.results[number], (tirx.And, tirx.Or)) and reducer.rhs else dtype
