"""Loop nests for stages: vector tiles with tails of their own width, and horizontal reductions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm_ffi
from tvm import sym, tirx
from tvm.ir import TensorLoad, Var

from torch_tvm.schedules.cpu.loops.access import is_guarded
from torch_tvm.schedules.cpu.loops.accumulators import Accumulator, accumulate
from torch_tvm.schedules.cpu.loops.producers.fusion import fresh_lets
from torch_tvm.schedules.cpu.loops.program import Reducer, Stage
from torch_tvm.tir import (
    Axis,
    Point,
    analyzer_for,
    const,
    elements,
    flat_sequence,
    lanes_loop,
    linear,
    loop,
    nest,
    pieces,
    substitute,
)


@dataclass
class Memory:
    """Where buffers live: one flat buffer for each, and the group-local ones with the dimensions that they
    keep.

    ``local`` maps a buffer to the positions of the dimensions that stay, and to the tile width (0: none) of the
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
        return elements([*(buffer.shape[d] for d in kept), max(width, 1)])

    def rewrite(self, expr: tirx.Expr, mapping: Point, analyzer: sym.Analyzer) -> tirx.Expr:
        """``expr`` at the point that ``mapping`` names, its loads from flat buffers, its lets renamed."""

        def visit(load: TensorLoad, mutator: Any) -> tirx.Expr:
            indices = [mutator.mutate(index) for index in load.indices]
            position = analyzer.simplify(self.place(load.source, indices))
            return tirx.BufferLoad(self.flat[load.source], [substitute(position, mapping)])

        flattened = tvm_ffi.structural_mutate(expr, [(TensorLoad, visit)])
        return fresh_lets(substitute(flattened, mapping))


class StageEmitter:
    """Emits the loops of one stage; ``rows`` are the axes that are fixed around it.

    Points are stored ``together`` vectors of ``lanes`` at a time.
    """

    def __init__(self, memory: Memory, rows: Sequence[Axis], lanes: int, together: int = 1) -> None:
        self.memory = memory
        self.rows = tuple(rows)
        self.lanes = lanes
        self.together = together

    # --- one point of a stage ----------------------------------------------------------------------

    def value(self, stage: Stage, number: int, mapping: Point) -> tirx.Expr:
        """Result ``number`` (or, of a reduction, the element) at the point that ``mapping`` names."""
        return self.memory.rewrite(stage.values[number], mapping, analyzer_for([*self.rows, *stage.axes]))

    def store(self, stage: Stage, number: int, mapping: Point, value: tirx.Expr) -> tirx.Stmt:
        buffer = stage.buffers[number]
        analyzer = analyzer_for([*self.rows, *stage.axes])
        position = analyzer.simplify(self.memory.place(buffer, stage.indices[number]))
        if str(value.ty.dtype) != str(buffer.dtype):
            value = tirx.Cast(str(buffer.dtype), value)
        return tirx.BufferStore(self.memory.flat[buffer], value, [substitute(position, mapping)])

    def lane_loop(self, stage: Stage, axis: Axis, width: int, body: Callable[[tirx.Expr], tirx.Stmt]) -> tirx.Stmt:
        """``width`` neighbours along ``axis`` as one vector, or as a loop where a guard tells them apart."""
        guarded = any(is_guarded(value, axis.var) for value in stage.values)
        kind = "serial" if guarded else "vectorized"
        return loop("lane", width, body, kind=kind)

    # --- tiles along a spatial axis ----------------------------------------------------------------

    def tile(self, stage: Stage, axis: Axis, base: tirx.Expr, width: int, mapping: Point) -> tirx.Stmt:
        """``stage`` for ``axis`` in ``base .. base + width``: vectors of at most ``lanes``."""

        def at(offset: int, lane: tirx.Expr, env: Point) -> Point:
            inside = lane + offset if offset else lane
            return {**env, axis.var: base + inside, self.memory.lane: inside}

        if stage.reducer is not None:
            return self._reduce_tile(stage, axis, width, mapping, at)

        def point(env: Point) -> tirx.Stmt:
            return flat_sequence(
                [
                    self.lane_loop(
                        stage, axis, lanes, lambda lane, o=offset: self._store_point(stage, at(o, lane, env))
                    )
                    for offset, lanes in pieces(width, self.lanes, self.together)
                ]
            )

        return nest(stage.spatial, mapping, point)

    def _store_point(self, stage: Stage, env: Point) -> tirx.Stmt:
        values = [self.value(stage, n, env) for n in range(len(stage.values))]
        return flat_sequence([self.store(stage, n, env, value) for n, value in enumerate(values)])

    def _reduce_tile(self, stage: Stage, axis: Axis, width: int, mapping: Point, at: Callable) -> tirx.Stmt:
        def point(env: Point) -> tirx.Stmt:
            parts = pieces(width, self.lanes)
            sums = [Accumulator(_reducer(stage), lanes) for _, lanes in parts]

            def step(inner: Point) -> tirx.Stmt:
                iterations = []
                for (offset, lanes), accumulator in zip(parts, sums, strict=True):
                    take = lambda lane, o=offset, acc=accumulator: acc.update(
                        lane, [self.value(stage, n, at(o, lane, inner)) for n in range(len(stage.values))]
                    )
                    iterations.append(self.lane_loop(stage, axis, lanes, take))
                return flat_sequence(iterations)

            def finish(offset: int, accumulator: Accumulator) -> Callable[[tirx.Expr], tirx.Stmt]:
                return lambda lane: flat_sequence(
                    [
                        self.store(stage, n, at(offset, lane, env), accumulator.read(n, lane))
                        for n in range(len(stage.values))
                    ]
                )

            ends = [lanes_loop(lanes, finish(offset, acc)) for (offset, lanes), acc in zip(parts, sums, strict=True)]
            return flat_sequence([*accumulate(sums, stage.reduced, env, step), *ends])

        return nest(stage.spatial, mapping, point)

    # --- reductions along the vector axis ----------------------------------------------------------

    def horizontal(self, stage: Stage, axis: Axis, mapping: Point) -> tirx.Stmt:
        """Reduce ``stage`` with vectors along its reduced ``axis``: several accumulators, then a tree."""
        return nest(stage.spatial, mapping, lambda env: self._reduce_row(stage, axis, env))

    def _reduce_row(self, stage: Stage, axis: Axis, env: Point) -> tirx.Stmt:
        outer = [other for other in stage.reduced if other is not axis]
        lanes = self.lanes
        extent = substitute(axis.extent, env)
        size = int(extent) if isinstance(extent, tirx.IntImm) else None
        unroll = 4 if size is None else max(1, min(4, size // lanes))
        main = [Accumulator(_reducer(stage), lanes) for _ in range(unroll)]
        tail_widths = [1] if size is None else [w for w in _powers(lanes) if size % lanes & w]
        tails = [Accumulator(_reducer(stage), w) for w in tail_widths]

        def take(accumulator: Accumulator, base: tirx.Expr, inner: Point) -> tirx.Stmt:
            def point(lane: tirx.Expr) -> tirx.Stmt:
                at = {**inner, axis.var: base + lane}
                return accumulator.update(lane, [self.value(stage, n, at) for n in range(len(stage.values))])

            return self.lane_loop(stage, axis, accumulator.lanes, point)

        def vectors(i: tirx.Expr, inner: Point) -> tirx.Stmt:
            begins = [i * (lanes * unroll) + u * lanes for u in range(unroll)]
            return flat_sequence([take(acc, begin, inner) for acc, begin in zip(main, begins, strict=True)])

        def rest(inner: Point) -> tirx.Stmt:
            whole = tirx.floordiv(extent, lanes * unroll) * unroll
            left = tirx.floordiv(extent, lanes) - whole
            one = lambda i: take(main[0], (whole + i) * lanes, inner)
            begin = tirx.floordiv(extent, lanes) * lanes
            statements = [loop("i", sym.Analyzer().simplify(left), one)]
            if size is None:
                statements.append(loop("i", tirx.floormod(extent, lanes), lambda i: take(tails[0], begin + i, inner)))
            else:
                offset = const(size - size % lanes)
                for accumulator in tails:
                    statements.append(take(accumulator, offset, inner))
                    offset = const(int(offset) + accumulator.lanes)
            return flat_sequence(statements)

        iteration = Axis(Var(axis.var.name, "int64"), sym.Analyzer().simplify(tirx.floordiv(extent, lanes * unroll)))
        step = lambda inner: vectors(inner[iteration.var], inner)
        steps = accumulate([*main, *tails], [*outer, iteration], env, step, last=rest)
        return flat_sequence([*steps, *self._finish_row(stage, env, main, tails)])

    def _finish_row(
        self, stage: Stage, env: Point, main: list[Accumulator], tails: list[Accumulator]
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
        zero = const(0)
        statements += [self.store(stage, n, env, total.read(n, zero)) for n in range(len(stage.values))]
        return statements


def _reducer(stage: Stage) -> Reducer:
    """What a stage that reduces combines by."""
    assert stage.reducer is not None
    return stage.reducer


def _powers(lanes: int) -> list[int]:
    return [1 << bit for bit in range(lanes.bit_length() - 2, -1, -1)]
