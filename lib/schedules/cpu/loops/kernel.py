"""The generic CPU kernel: groups of stages become parallel, vectorised loops with explicit tails."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import tvm_ffi
from tvm import sym, tirx
from tvm.ir import Var

from torch_tvm.schedules.cpu.emit import INTERLEAVED, LINE
from torch_tvm.schedules.cpu.finish.work_sharing import CHUNKS
from torch_tvm.schedules.cpu.loops.access import (
    breakpoints,
    is_guarded,
    merge_axes,
    positions,
    restrict,
    select_where_safe,
    stride,
)
from torch_tvm.schedules.cpu.loops.partial_sums import split_reduction
from torch_tvm.schedules.cpu.loops.producers.fusion import Group, groups, inline
from torch_tvm.schedules.cpu.loops.producers.steps import PARALLEL_THRESHOLD
from torch_tvm.schedules.cpu.loops.program import (
    CALL_COST,
    Program,
    Stage,
    is_expensive,
    read_program,
    weight,
)
from torch_tvm.schedules.cpu.loops.tiles import Memory, StageEmitter
from torch_tvm.schedules.cpu.loops.transposition import Transposition, find_transposition, transposed_tile
from torch_tvm.schedules.instructions.prefetch import PREFETCH
from torch_tvm.schedules.target import CpuModel
from torch_tvm.tir import (
    Axis,
    Point,
    analyzer_for,
    bits_of,
    bytes_of,
    ceil_div,
    const,
    elements,
    exact,
    flat_sequence,
    linear,
    loads,
    loop,
    nest,
    product,
    static_sizes,
    substitute,
)

FEWEST_ITERATIONS = 4
"""Iterations for each core, at least, where all get the same number of them."""

Ahead = Callable[[Point, tirx.Expr, int], tirx.Stmt]
"""Asks for what the next row reads, given the place of a row, an element of it and how many from there on."""


@functools.lru_cache(maxsize=16)
def read(func: tirx.PrimFunc) -> tuple[Program, list[Group]]:
    """The stages of ``func`` after inlining, and the groups that they fall into."""
    program = inline(read_program(func))
    return program, groups(program)


def generate(func: tirx.PrimFunc, program: Program, parts: Sequence[Group], cpu: CpuModel) -> tirx.PrimFunc:
    """``func`` with its body replaced by the loops of ``parts``."""
    kernel = _Kernel(program, cpu)
    body = flat_sequence([kernel.group(part) for part in parts])
    views = [tirx.DeclBuffer(flat, data=buffer.data) for buffer, flat in kernel.views.items()]
    allocations = [tirx.AllocBuffer(flat) for flat in kernel.globals.values()]
    return func.with_body(flat_sequence([*views, *allocations, body]))


class _Kernel:
    def __init__(self, program: Program, cpu: CpuModel) -> None:
        self.program = program
        self.cpu = cpu
        self.views: dict[tirx.Buffer, tirx.Buffer] = {}
        self.globals: dict[tirx.Buffer, tirx.Buffer] = {}

    # --- memory ------------------------------------------------------------------------------------

    def _memory(self, group: Group) -> Memory:
        """Flat buffers for all that ``group`` touches; what only it touches becomes local later."""
        flat = {}
        for stage in group.stages:
            for buffer in [*stage.buffers, *(load.source for load in loads(*stage.values))]:
                flat[buffer] = self._flat(buffer)
        return Memory(flat)

    def _flat(self, buffer: tirx.Buffer) -> tirx.Buffer:
        under = self.program.views.get(buffer, buffer)
        table = self.views if under in self.program.params else self.globals
        if under not in table:
            size = elements(under.shape)
            table[under] = tirx.decl_buffer((size,), str(under.dtype), f"{under.name}_flat")
        return table[under]

    def _local_buffers(self, group: Group) -> list[tirx.Buffer]:
        """Intermediate buffers that only the stages of ``group`` touch."""
        if len(group.stages) == 1:
            return []
        inside = [id(stage) for stage in group.stages]
        made = [b for stage in group.stages for b in stage.buffers if not self.program.is_output(b)]
        names = {stage.name for stage in group.stages}
        outside = [s for s in self.program.stages if s.name not in names and id(s) not in inside]
        return [b for b in made if not any(load.source.same_as(b) for s in outside for load in loads(*s.values))]

    def _localize(self, original: Group, memory: Memory, width: int) -> list[tirx.Buffer]:
        """Make intermediates local to one iteration of the row loops (one tile of ``width``); the flat buffers."""
        rows = {axis.var for axis in original.rows}
        allocated = []
        for stage in original.stages:
            for buffer, indices in zip(stage.buffers, stage.indices, strict=True):
                if buffer not in self._local_buffers(original):
                    continue
                kept = tuple(d for d, index in enumerate(indices) if index not in rows)
                memory.local[buffer] = (kept, width)
                local = tirx.decl_buffer((memory.local_size(buffer),), str(buffer.dtype), buffer.name, scope="global")
                memory.flat[buffer] = local
                self.globals.pop(buffer, None)
                allocated.append(local)
        return allocated

    # --- groups ------------------------------------------------------------------------------------

    def group(self, original: Group) -> tirx.Stmt:
        """The loops of one group."""
        safe = tuple(select_where_safe(stage, original.rows) for stage in original.stages)
        original = Group(original.rows, safe)
        group = merge_axes(original)
        axis = _column_axis(group)
        parts = self._partial_groups(group, axis)
        if parts is not None:
            return flat_sequence([self.group(part) for part in parts])
        memory = self._memory(group)
        if axis is None:
            local = self._localize(original, memory, 0)
            emitter = StageEmitter(memory, group.rows, self._lanes(group))
            asking, ahead = self._ahead(group, emitter) or (None, None)
            ask = lambda stage: ahead if stage is asking else None
            body = lambda env: flat_sequence(
                [self._row_stage(emitter, stage, env, ask(stage)) for stage in group.stages]
            )
            return self._parallel_rows(group, list(group.rows), local, body)
        width = self._tile_width(group, axis)
        local = self._localize(original, memory, width)
        return self._columns(group, axis, width, memory, local)

    def _partial_groups(self, group: Group, axis: Axis | None) -> list[Group] | None:
        """``group`` in two steps, where its rows (or the tiles along ``axis``) are fewer than the cores."""
        sizes = [row.size for row in group.rows if row is not axis]
        if axis is not None:
            sizes.append(ceil_div(axis.size, self._tile_width(group, axis)) if axis.size else axis.size)
        work = _work(group)
        known = static_sizes(sizes)
        if known is None or math.prod(known) >= self.cpu.cores:
            return None
        if not isinstance(work, tirx.IntImm) or int(work) < 2 * PARALLEL_THRESHOLD:
            return None
        return split_reduction(group, self.cpu.cores)

    def _lanes(self, group: Group) -> int:
        """Lanes of the widest vectors that keep every value of ``group`` in one register."""
        sizes = [bits_of(b.dtype) for stage in group.stages for b in stage.buffers]
        widest = max(min(max(sizes), 32), 8)
        return max(2, self.cpu.vector_bits // widest)

    def _tile_width(self, group: Group, axis: Axis) -> int:
        lanes = self._lanes(group)
        heavy = any(map(_is_heavy, group.stages))
        reduces = any(stage.reducer is not None for stage in group.stages)
        vectors = (2 if reduces else INTERLEAVED) if heavy else 4
        if reduces and not heavy and len(group.stages) == 1:
            vectors = 8 // len(group.stages[0].buffers)
        vectors = max(1, min(vectors, self.cpu.vector_registers // 4))
        return lanes * vectors if axis.size is None else max(1, min(lanes * vectors, axis.size))

    # --- vectors along a common axis ---------------------------------------------------------------

    def _columns(self, group: Group, axis: Axis, width: int, memory: Memory, local: list[tirx.Buffer]) -> tirx.Stmt:
        outer = [row for row in group.rows if row is not axis]
        lanes = self._lanes(group)
        cuts = self._cuts(group, axis)
        if cuts:
            return self._cut_columns(group, outer, axis, cuts, memory, local, lanes)
        transposition = find_transposition(group.stages[0], group.rows, axis, self.cpu.vector_bits)
        if transposition is not None and len(group.stages) == 1:
            return self._transposed_columns(group, axis, transposition, memory)
        emitter = StageEmitter(memory, group.rows, lanes, INTERLEAVED if any(map(_is_heavy, group.stages)) else 1)
        tile = lambda env, base, size: flat_sequence([emitter.tile(s, axis, base, size, env) for s in group.stages])
        if (axis.size is not None and axis.size // width < 2 * self.cpu.cores) or _is_wide(outer, self.cpu):
            body = lambda env: _tiles(axis.extent, width, lanes, lambda base, size: tile(env, base, size))
            return self._parallel_rows(group, outer, local, body)
        whole = sym.Analyzer().simplify(tirx.floordiv(axis.extent, width))
        iterations = Axis(Var("tile", "int64"), whole)
        main = lambda env: tile(env, env[iterations.var] * width, width)
        rest = sym.Analyzer().simplify(axis.extent - whole * width)
        statements = [self._parallel_rows(group, [*outer, iterations], local, main)]
        if not (isinstance(rest, tirx.IntImm) and int(rest) == 0):
            tail = lambda env: _tiles(rest, width, lanes, lambda b, size: tile(env, whole * width + b, size))
            statements.append(self._parallel_rows(group, outer, local, tail))
        return flat_sequence(statements)

    def _cuts(self, group: Group, axis: Axis) -> list[int]:
        """Where the guards of a lone stage split ``axis`` into parts without guards."""
        (stage, *others) = group.stages
        if others or stage.reducer is not None or not any(is_guarded(v, axis.var) for v in stage.values):
            return []
        return breakpoints(stage, axis) or []

    def _cut_columns(
        self,
        group: Group,
        outer: list[Axis],
        axis: Axis,
        cuts: list[int],
        memory: Memory,
        local: list[tirx.Buffer],
        lanes: int,
    ) -> tirx.Stmt:
        ends = [0, *cuts, exact(axis.size)]
        parts = [restrict(group.stages[0], group.rows, axis, begin, end) for begin, end in itertools.pairwise(ends)]

        def body(env: Point) -> tirx.Stmt:
            statements = []
            for stage, part in parts:
                emitter = StageEmitter(memory, [part if row is axis else row for row in group.rows], lanes)
                tile = lambda base, size, s=stage, p=part, e=emitter: e.tile(s, p, base, size, env)
                statements.append(_tiles(part.extent, lanes * 4, lanes, tile))
            return flat_sequence(statements)

        return self._parallel_rows(group, outer, local, body)

    def _transposed_columns(self, group: Group, axis: Axis, transposition: Transposition, memory: Memory) -> tirx.Stmt:
        """Square tiles over ``axis`` and the axis along which the load is contiguous, then their edges."""
        (stage,) = group.stages
        lanes, across = transposition.lanes, transposition.across
        emitter = StageEmitter(memory, group.rows, lanes)
        outer = [row for row in group.rows if row is not axis and row is not across]
        simplify = sym.Analyzer().simplify
        blocks = Axis(Var("block", "int64"), simplify(tirx.floordiv(across.extent, lanes)))
        whole = simplify(tirx.floordiv(axis.extent, lanes))
        plain = lambda env, base, size: emitter.tile(stage, axis, base, size, env)

        def squares(env: Point) -> tirx.Stmt:
            first = env[blocks.var] * lanes
            square = lambda i: transposed_tile(emitter, stage, axis, transposition, env, (first, i * lanes))
            rest = simplify(axis.extent - whole * lanes)
            edge = lambda j: _tiles(
                rest,
                lanes,
                lanes,
                lambda b, size: plain({**env, across.var: first + j}, whole * lanes + b, size),
            )
            statements = [loop("tile", whole, square)]
            if not (isinstance(rest, tirx.IntImm) and int(rest) == 0):
                statements.append(loop("edge", lanes, edge))
            return flat_sequence(statements)

        statements = [self._parallel_rows(group, [*outer, blocks], [], squares, is_long=True)]
        left = simplify(across.extent - blocks.extent * lanes)
        if not (isinstance(left, tirx.IntImm) and int(left) == 0):
            last = Axis(Var("last", "int64"), left)
            at = lambda env: {**env, across.var: blocks.extent * lanes + env[last.var]}
            body = lambda env: _tiles(axis.extent, lanes, lanes, lambda b, size: plain(at(env), b, size))
            statements.append(self._parallel_rows(group, [*outer, last], [], body))
        return flat_sequence(statements)

    # --- vectors inside a row ----------------------------------------------------------------------

    def _ahead(self, group: Group, emitter: StageEmitter) -> tuple[Stage, Ahead] | None:
        """The stage that asks for what the first one will read of the next row, if that comes from memory.

        The first stage, a reduction, waits for it; the others compute.
        """
        first, *others = group.stages
        stage = next((other for other in others if other.reducer is None), None)
        axis = _unit_axis(first, first.reduced) if first.reduced else None
        if axis is None or stage is None or not group.rows:
            return None
        row = group.rows[-1]
        found = []
        for load in loads(*first.values):
            size = elements(load.source.shape)
            place = linear(load.source.shape, load.indices)
            is_large = isinstance(size, tirx.IntImm) and int(size) * bytes_of(load.source.dtype) > self.cpu.l2
            if load.source in self.program.params and is_large and stride(place, axis) == 1 and stride(place, row):
                found.append(load)
        if not found:
            return None
        analyzer = analyzer_for([*group.rows, axis])

        def ask(env: Point, base: tirx.Expr, size: int) -> tirx.Stmt:
            next_row = {**env, row.var: env[row.var] + 1}
            places = [
                emitter.memory.rewrite(load, {**next_row, axis.var: base + begin}, analyzer)
                for load in found
                for begin in range(0, size, LINE // bytes_of(load.source.dtype))
            ]
            return flat_sequence([PREFETCH(place, 2) for place in places])

        return stage, ask

    def _row_stage(self, emitter: StageEmitter, stage: Stage, env: Point, ahead: Ahead | None = None) -> tirx.Stmt:
        axis = _unit_axis(stage, stage.spatial)
        lanes = emitter.lanes
        if stage.reducer is None and axis is None:
            axis = stage.spatial[-1] if stage.spatial else None
        if axis is None and stage.reduced and stage.reducer is not None and stage.reducer.rhs:
            inner = _unit_axis(stage, stage.reduced) or stage.reduced[-1]
            return emitter.horizontal(stage, inner, env)
        if axis is None:
            unit = Axis(Var("point", "int64"), const(1))
            return emitter.tile(stage, unit, const(0), 1, env)
        rest = replace(stage, spatial=tuple(other for other in stage.spatial if other is not axis))
        together = INTERLEAVED if stage.reducer is None and _is_heavy(stage) else 1
        inside = StageEmitter(emitter.memory, [*emitter.rows, axis], lanes, together)
        width = lanes * (4 if stage.reducer is not None else together)
        tile = lambda base, size: inside.tile(rest, axis, base, size, env)
        if ahead is None:
            return _tiles(axis.extent, width, lanes, tile)
        ask = lambda base, size: flat_sequence([ahead(env, base, size), tile(base, size)])
        return _tiles(axis.extent, 2 * lanes * together, lanes, ask)

    # --- threads -----------------------------------------------------------------------------------

    def _parallel_rows(
        self,
        group: Group,
        rows: list[Axis],
        local: list[tirx.Buffer],
        body: Callable[[Point], tirx.Stmt],
        is_long: bool = False,
    ) -> tirx.Stmt:
        """``body`` for every point of ``rows``: on all cores where the work is worth waking them.

        Where that depends on a symbolic size there are two copies of the loops, unless ``body`` is long.
        """
        if any(row.size == 0 for row in rows):
            return flat_sequence([])
        work = _work(group)
        total = elements(row.extent for row in rows)
        serial = lambda: self._serial_rows(rows, local, body)
        alone = isinstance(total, tirx.IntImm) and int(total) == 1
        if self.cpu.cores == 1 or alone or (isinstance(work, tirx.IntImm) and int(work) < PARALLEL_THRESHOLD):
            return serial()
        threads = self._threads(rows, local, body)
        if isinstance(work, tirx.IntImm) or is_long:
            return threads
        return tirx.IfThenElse(work >= PARALLEL_THRESHOLD, threads, serial())

    def _serial_rows(self, rows: list[Axis], local: list[tirx.Buffer], body: Callable[[Point], tirx.Stmt]) -> tirx.Stmt:
        def loops(rest: list[Axis], env: Point) -> tirx.Stmt:
            if not rest:
                return body(env)
            first = rest[0]
            return loop("row", first.extent, lambda var: loops(rest[1:], {**env, first.var: var}))

        return _with_fresh(local, loops(rows, {}))

    def _threads(
        self,
        rows: list[Axis],
        local: list[tirx.Buffer],
        body: Callable[[Point], tirx.Stmt],
    ) -> tirx.Stmt:
        shared = _shared_rows(rows, self.cpu)
        rows, inner = rows[:shared], rows[shared:]
        total = elements(row.extent for row in rows)
        parts = self.cpu.cores * CHUNKS
        if isinstance(total, tirx.IntImm):
            parts = min(parts, int(total))
        chunk = sym.Analyzer().simplify(tirx.floordiv(total + (parts - 1), parts))

        def task(number: tirx.Expr) -> tirx.Stmt:
            begin = number * chunk
            iterations = chunk
            if not (isinstance(total, tirx.IntImm) and int(total) % parts == 0):
                iterations = tirx.max(tirx.min(chunk, total - begin), const(0))
            iteration = lambda i: nest(inner, _unravel(begin + i, rows), body)
            return _with_fresh(local, loop("row", iterations, iteration))

        return loop("task", parts, task, kind="parallel")


def _with_fresh(local: list[tirx.Buffer], body: tirx.Stmt) -> tirx.Stmt:
    """``body`` with buffers of its own in place of ``local``: it may be one of several copies."""
    if not local:
        return body
    fresh = {b: tirx.decl_buffer(b.shape, str(b.dtype), b.name) for b in local}
    body = tvm_ffi.structural_map(body, (Var, lambda var: fresh.get(var, var)))
    return flat_sequence([*(tirx.AllocBuffer(buffer) for buffer in fresh.values()), body])


def _shared_rows(rows: Sequence[Axis], cpu: CpuModel) -> int:
    """How many of ``rows`` the cores share; the others are loops inside, whose places need no division to be found."""
    iterations = 1
    for count, row in enumerate(rows, 1):
        if row.size is None:
            break
        iterations *= row.size
        if iterations >= cpu.cores * CHUNKS or (
            iterations % cpu.cores == 0 and iterations >= cpu.cores * FEWEST_ITERATIONS
        ):
            return count
    return len(rows)


def _unravel(position: tirx.Expr, rows: Sequence[Axis]) -> Point:
    """The value of each of ``rows`` at a position of their fused loop."""
    env: Point = {}
    for row in reversed(rows[1:]):
        # A number of whole tiles may be known to be 0: TVM's simplifier refuses to divide by that, in an empty loop.
        size = row.extent if isinstance(row.extent, (tirx.IntImm, Var)) else tirx.max(row.extent, const(1))
        env[row.var] = tirx.floormod(position, size)
        position = tirx.floordiv(position, size)
    if rows:
        env[rows[0].var] = position
    return env


def _tiles(extent: tirx.Expr, width: int, lanes: int, tile: Callable[[tirx.Expr, int], tirx.Stmt]) -> tirx.Stmt:
    """Cover ``extent`` with tiles of ``width``, then what is left with smaller ones."""
    if isinstance(extent, tirx.IntImm):
        whole = int(extent) // width
        statements = [loop("tile", whole, lambda i: tile(i * width, width))]
        if int(extent) % width:
            statements.append(tile(const(whole * width), int(extent) % width))
        return flat_sequence(statements)
    statements = []
    done: tirx.Expr = const(0)
    for size in dict.fromkeys((width, lanes, 1)):
        iterations = tirx.floordiv(extent - done, size)
        begin = done
        statements.append(loop("tile", iterations, lambda i, b=begin, s=size: tile(b + i * s, s)))
        done = tirx.floordiv(extent, size) * size
    return flat_sequence(statements)


def _is_wide(rows: Sequence[Axis], cpu: CpuModel) -> bool:
    sizes = static_sizes(row.size for row in rows)
    return sizes is not None and math.prod(sizes) >= 4 * cpu.cores


def _column_axis(group: Group) -> Axis | None:
    """The common axis along which every stage can be a vector, or None: then rows are taken one by one."""
    writes = positions(group.stages[-1])[0][1]
    candidates = [axis for axis in group.rows if stride(writes, axis) == 1]
    axis = candidates[0] if candidates else None
    if axis is None or all(stage.reducer is None for stage in group.stages):
        return axis
    touched = [stride(position, axis) for stage in group.stages for _, position in positions(stage)[1:]]
    if not group.stages[-1].reduced and len(group.stages) == 1:
        return axis
    straight = all(step in (0, 1) for step in touched)
    return axis if straight and 1 in touched else None


def _is_heavy(stage: Stage) -> bool:
    """Whether ``stage`` computes a transcendental function."""
    return any(is_expensive(value) for value in stage.values)


def _unit_axis(stage: Stage, axes: Sequence[Axis]) -> Axis | None:
    """The axis along which most accesses of ``stage`` step by one."""
    places = [position for _, position in positions(stage)]
    counts = [(sum(stride(p, axis) == 1 for p in places), axis.size or 1 << 20) for axis in axes]
    if not counts or max(counts)[0] == 0:
        return None
    return axes[counts.index(max(counts))]


def _work(group: Group) -> tirx.Expr:
    """Elementary operations of ``group``, constant or symbolic."""
    total: tirx.Expr = const(0)
    first = {row.var: const(0) for row in group.rows}
    for stage in group.stages:
        axes = (*group.rows, *stage.spatial, *stage.reduced)
        points = product([substitute(axis.extent, first) for axis in axes])
        calls = sum(is_expensive(value) for value in stage.values)
        cost = 1 + sum(weight(value) for value in stage.values) + CALL_COST * calls
        total = total + points * cost
    return sym.Analyzer().simplify(total)
