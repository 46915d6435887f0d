"""Matrix products: register tiles over packed panels of the right operand.

    C[b, m, n] = epilogue(sum_k A[b, m, k] * B[b, k, n])

    for task in parallel(batch × row blocks × panels):     # a panel is NR columns
        [pack the panel of B, unless the weights came packed as [N / NR, K, NR]]
        for tile in row tiles of the block:                # MR rows
            sums[MR, NR] = 0
            for k: sums += A[tile, k] * panel[k, :]
            C[tile, panel] = epilogue(sums)

No tile is predicated. The last row tile moves up until it fits (rows in the overlap are computed twice, with
the same result); fewer rows than one tile take smaller tiles, chosen at run time when the number of rows is
symbolic. A last panel that is not full is padded when it is packed, and stored through a scratch tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import tvm
from tvm import tirx
from tvm.ir import Expr, TensorLoad

from torch_tvm.schedules.cpu.candidates import matmul_tilings
from torch_tvm.schedules.cpu.contraction import (
    Axis,
    Contraction,
    loads,
    read_contraction,
    substitute,
    variables,
)
from torch_tvm.schedules.cpu.emit import const, index, loop, sequence, static, when
from torch_tvm.schedules.cpu.register_tile import Share, TileShape, emit_tile, lanes_loop, tile_shape
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal

LONGEST_SUM = 768
"""Products that are summed one after the other before the sum is put aside."""

SHORTEST_SUM = 256
"""Products in a piece of a longer sum, at least: what it costs to put a sum aside is little beside them."""

PADDING = 0.02
"""Part of the columns that padding may add before a panel of fewer vectors is worth its smaller tiles."""

ONE_VECTOR = 0.4
"""The same for a panel of one vector: every multiply-add then loads a number of its own."""

PREFETCH_TURNS = 32
"""How far ahead the weights are asked for when one tile has all rows, and memory is the limit."""

MOST_STREAMS = 6
"""Panels that one row reads side by side, at most."""

SERIAL_WORK = 1 << 18
"""Multiply-adds (about 5 µs of one core) below which a kernel stays on one thread."""


@dataclass(frozen=True)
class Tiling:
    """How one product is computed.

    ``shapes`` are tried in order: the first with at least as many rows as its tile runs, with ``block_tiles``
    row tiles in a task. ``reduce_block`` splits the reduction (0: not), ``pack`` copies each panel of the
    right operand, ``scratch`` finishes sums in a second pass over memory, ``parallel`` uses all cores,
    ``shares`` lets the row tiles ask for the next weights, each for a part.
    """

    shapes: tuple[TileShape, ...]
    block_tiles: int
    reduce_block: int
    pack: bool
    scratch: bool
    parallel: bool
    shares: bool


class Matmul:
    """Products of matrices, batched or not, with packed weights or without; see the module's text."""

    name = "matmul"

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        contraction = _read(func)
        return _emitted(func, contraction, choose_tiling(contraction, cpu))

    def candidates(self, func: tirx.PrimFunc, cpu: CpuModel) -> dict[str, tirx.PrimFunc]:
        """The schedule of :meth:`apply` and its neighbours, by a label that says what they are."""
        c = _read(func)
        return {k: _emitted(func, c, t) for k, t in matmul_tilings(choose_tiling(c, cpu)).items()}


def _read(func: tirx.PrimFunc) -> Contraction:
    contraction = read_contraction(func)
    if not contraction.rows:
        raise Refusal("the left operand has no rows")
    return contraction


def _emitted(func: tirx.PrimFunc, contraction: Contraction, tiling: Tiling) -> tirx.PrimFunc:
    return func.with_body(Emitter(contraction, tiling).emit())


def widest_panel(cpu: CpuModel) -> int:
    """The most vectors in a panel."""
    return 4 if cpu.vector_registers >= 32 else 2


def panel_vectors(columns: int | None, rows: int | None, cpu: CpuModel, dtype: str) -> int:
    """Vectors in a panel: wide, unless a narrower one leaves clearly fewer padded columns."""
    widest = widest_panel(cpu)
    lanes = cpu.lanes(dtype)
    if columns is None:
        return min(widest, 2)
    if columns <= lanes:
        return 1
    order = (3, 4, 2) if widest == 4 else (2, 1)
    padded = {vectors: _padded(columns, vectors * lanes) for vectors in order}
    fewest = min(size * (1 + (ONE_VECTOR if vectors == 1 else PADDING)) for vectors, size in padded.items())
    return next(vectors for vectors in order if padded[vectors] <= fewest)


def tile_rows(rows: int | None, vectors: int, cpu: CpuModel) -> int:
    """Rows of a tile: as many sums as registers allow, at most 8, and little overlap for a known ``rows``."""
    most = min(8 if vectors <= 3 else 6, (cpu.vector_registers - vectors - 1) // vectors)
    if rows is None:
        return most
    if rows <= most:
        return rows
    tiles = lambda size: -(-rows // size)
    return min(range(max(1, most // 2), most + 1), key=lambda size: (tiles(size) * (size + 1.0), -size))


def choose_tiling(c: Contraction, cpu: CpuModel) -> Tiling:
    """Tile sizes from the registers, caches and cores of ``cpu``; nothing is measured."""
    lanes = cpu.lanes(c.acc_dtype)
    rows, columns = _size(c.rows), c.column.size
    packed_width = _packed_width(c, cpu)
    if packed_width:
        if packed_width % lanes:
            raise Refusal(f"weights are packed for vectors that are not of {lanes} lanes")
        streams = _streams(c, packed_width, cpu)
        vectors = packed_width // lanes * streams
    else:
        streams = 1
        vectors = panel_vectors(columns, rows, cpu, c.acc_dtype)
        while vectors * lanes > 2 * lanes and columns is not None and columns < vectors * lanes:
            vectors -= 1
    width = vectors * lanes
    whole = columns is not None and columns % width == 0
    most = rows if streams > 1 else tile_rows(rows, vectors, cpu)
    sizes = [most] if rows is not None else [most, *(s for s in (4, 2, 1) if s < most)]
    shapes = tuple(tile_shape(size, vectors, lanes, cpu) for size in sizes)
    depth = c.reduce.size
    tiles = None if rows is None else -(-rows // most)
    row_bytes = width * tvm.DataType(c.acc_dtype).bits // 8
    reduce_block = _reduce_block(depth, shapes[0].chains, cpu.l1 // 2 // row_bytes)
    piece = reduce_block or depth
    is_one_stream = bool(packed_width) and streams == 1
    if is_one_stream and tiles == 1 and most > 1:
        shapes = tuple(replace(shape, prefetch=PREFETCH_TURNS) for shape in shapes)
    work = None if None in (rows, columns, depth, _size(c.batch)) else rows * columns * depth * _size(c.batch)
    panels = None if columns is None or _size(c.batch) is None else _size(c.batch) * -(-columns // width)
    parallel = cpu.cores > 1 and (work is None or work >= SERIAL_WORK)
    panel_bytes = None if depth is None else depth * row_bytes
    is_cheap = (panel_bytes is not None and panel_bytes <= cpu.l1) or (tiles is not None and tiles <= 2)
    pack = not packed_width and not (whole and _is_contiguous(c) and is_cheap)
    # Each block reads all weights again: it is as large as its part of the left operand fits the cache.
    block_rows = cpu.l2 * 5 // 8 // (max(1, piece) * tvm.DataType(c.acc_dtype).bits // 8)
    return Tiling(
        shapes=shapes,
        block_tiles=_block_tiles(tiles, most, block_rows, panels, cpu.cores if parallel else 1),
        reduce_block=reduce_block,
        pack=pack,
        scratch=not whole or not c.store.is_plain,
        parallel=parallel,
        shares=is_one_stream and tiles != 1,
    )


def _streams(c: Contraction, packed_width: int, cpu: CpuModel) -> int:
    """How many panels a tile reads side by side.

    With few rows the weights come from memory once and nothing else matters: a core waits less for several
    streams than for one. The panels have to come out even, with tasks for all cores.
    """
    rows, columns = _size(c.rows), c.column.size
    if rows is None or columns is None or _size(c.batch) is None:
        return 1
    panels, vectors = -(-columns // packed_width), packed_width // cpu.lanes(c.acc_dtype)
    fits = lambda n: n * vectors * rows + rows + 2 <= cpu.vector_registers
    even = [n for n in range(1, MOST_STREAMS + 1) if panels % n == 0 and fits(n)]
    busy = [n for n in even if panels // n * _size(c.batch) >= 4 * cpu.cores]
    return max(busy, default=1)


def _reduce_block(depth: int | None, chains: int, cached: int) -> int:
    """Length of the pieces that the reduction is split into, 0 if it stays whole.

    A sum of n products in order has an error that grows with n; pieces keep it at that of BLAS. With ``cached``
    products a piece of the panel stays in the level 1 cache while all row tiles pass over it.
    """
    longest = LONGEST_SUM * chains
    if depth is not None and depth <= longest * 5 // 4:
        return 0
    longest = min(longest, max(SHORTEST_SUM * chains, cached))
    if depth is None:
        return longest
    pieces = -(-depth // longest)
    return -(-depth // pieces // 8) * 8


def _block_tiles(tiles: int | None, tile: int, rows: int, panels: int | None, cores: int) -> int:
    """Row tiles in a task: a block fits the cache, and there are enough tasks to keep all cores busy."""
    most = max(1, rows // tile)
    if tiles is None:
        return most
    most = min(most, tiles)
    if panels is None or cores == 1:
        return most

    def idle(size: int) -> float:
        tasks = panels * -(-tiles // size)
        return -(-tasks // cores) * cores / tasks * max(1.0, -(-tiles // size) * size / tiles)

    return next(
        (size for size in range(most, 0, -1) if idle(size) <= 1.07), min(range(1, most + 1), key=idle)
    )


def _size(axes: tuple[Axis, ...]) -> int | None:
    sizes = [axis.size for axis in axes]
    return None if None in sizes else prod(sizes)


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _packed_width(c: Contraction, cpu: CpuModel) -> int:
    """NR if the right operand reads one packed tensor at ``[n // NR, k, n % NR]``, otherwise 0.

    A matrix ``[1, k, n]`` is one panel too, where ``n`` is a width that panels have.
    """
    found = [c.rhs] if isinstance(c.rhs, TensorLoad) else loads(c.rhs)
    if len(found) != 1 or len(found[0].indices) < 3:
        return 0
    source, indices = found[0].source, found[0].indices
    last = indices[-1]
    if isinstance(last, tirx.FloorMod) and last.a.same_as(c.column.var):
        return static(last.b) or 0
    width = static(source.shape[-1])
    is_single = c.column.size is not None and last.same_as(c.column.var) and static(source.shape[0]) == 1
    if not (is_single and width and width >= c.column.size and len(indices) == 3):
        return 0
    vectors, rest = divmod(width, cpu.lanes(c.acc_dtype))
    return width if rest == 0 and vectors <= widest_panel(cpu) else 0


def _is_contiguous(c: Contraction) -> bool:
    """Whether neighbouring columns of the right operand lie side by side in memory."""
    if not isinstance(c.rhs, TensorLoad):
        return False
    *outer, last = c.rhs.indices
    return last.same_as(c.column.var) and not any(c.column.var in variables(i) for i in outer)


class Emitter:
    """Writes the loop nest of one contraction under one tiling."""

    def __init__(self, contraction: Contraction, tiling: Tiling) -> None:
        self.c = contraction
        self.tiling = tiling
        self.width = tiling.shapes[0].columns
        self.rows = _product(contraction.rows)
        self.columns = index(contraction.column.extent)
        self.panels = self.ceil_div(self.columns, self.width)
        self.analyzer = tvm.sym.Analyzer()

    @staticmethod
    def ceil_div(value: Expr, divisor: int) -> Expr:
        size = static(value)
        return const(-(-size // divisor)) if size is not None else (value + (divisor - 1)) // divisor

    def emit(self) -> tirx.Stmt:
        shapes = self.tiling.shapes
        result = self.nest(shapes[-1])
        for shape in reversed(shapes[:-1]):
            result = when(self.rows >= const(shape.rows), self.nest(shape), result)
        return result

    def nest(self, shape: TileShape) -> tirx.Stmt:
        """All tasks, for tiles of one shape (there are at least that many rows)."""
        tiles = self.ceil_div(self.rows, shape.rows)
        count = max(1, self.tiling.block_tiles * self.tiling.shapes[0].rows // shape.rows)
        blocks = self.ceil_div(tiles, count)
        tasks = self.analyzer.simplify(_product(self.c.batch) * blocks * self.panels)
        kind = "parallel" if self.tiling.parallel else "serial"

        def task(which: Expr) -> tirx.Stmt:
            panel, outer = which % self.panels, which // self.panels
            # Where no row is left there is no task either, but TVM's simplifier divides by what it proves zero.
            divisor = blocks if isinstance(blocks, (int, tirx.IntImm)) else tirx.max(blocks, const(1))
            block, batch = outer % divisor, outer // divisor
            names = {"panel": panel, "block": block, "batch": batch}
            bound = {name: tirx.Var(name, "int64") for name in names}
            first = bound["block"] * count
            here = tirx.Var("tiles", "int64")
            return sequence(
                *(tirx.Bind(bound[name], self.analyzer.simplify(value)) for name, value in names.items()),
                tirx.Bind(here, tirx.min(tiles - first, const(count))),
                self.task(shape, bound["batch"], first, here, count, bound["panel"]),
            )

        return loop("task", tasks, task, kind=kind)

    def task(
        self, shape: TileShape, batch: Expr, first: Expr, tiles: Expr, most_tiles: int, panel: Expr
    ) -> tirx.Stmt:
        """The row tiles ``first … first + tiles`` of one panel."""
        c = self.c
        base = unflatten(batch, c.batch)
        origin = panel * self.width
        prepare, rhs = self.right_operand(shape, base, panel)
        depth, block = index(c.reduce.extent), self.tiling.reduce_block
        count = (most_tiles if block else 1) * shape.rows
        keep = tirx.decl_buffer((const(count), const(self.width)), c.acc_dtype, "scratch")

        def row_of(tile: Expr) -> Expr:
            start = (first + tile) * shape.rows
            rows = static(self.rows)
            return (
                start
                if rows is not None and rows % shape.rows == 0
                else tirx.min(start, self.rows - shape.rows)
            )

        def tile_at(tile: Expr, k0: Expr, extent: int | Expr, is_first: bool, is_last: bool) -> tirx.Stmt:
            """A step of the reduction; sums wait in ``keep`` for the next, or for the pass that finishes them."""
            row0 = tirx.Var("row", "int64")
            kept = tile * shape.rows if block else const(0)

            def lhs(row: int, k: Expr) -> Expr:
                point = {**base, **unflatten(row0 + row, c.rows), c.reduce.var: k0 + k}
                return self.cast(substitute(c.lhs, point))

            def finish(row: int, column: Expr, total: Expr) -> tirx.Stmt:
                place = [kept + row, column]
                if not is_first:
                    total = tirx.BufferLoad(keep, place) + total
                if is_last and not self.tiling.scratch:
                    return self.store(base, row0 + row, origin + column, total)
                return tirx.BufferStore(keep, total, place)

            number = most_tiles if static(self.rows) is not None else tiles
            share = Share(tile, number) if self.tiling.shares and shape.rows > 1 else None
            tile_stmt = emit_tile(
                shape, extent, lhs, lambda k, column: rhs(k0 + k, column), finish, c.acc_dtype, share
            )
            is_split = is_last and self.tiling.scratch
            last = self.second_pass(shape, base, row0, origin, keep, kept) if is_split else None
            return sequence(tirx.Bind(row0, row_of(tile)), tile_stmt, last)

        def turn(k0: Expr, extent: int | Expr, is_first: bool, is_last: bool) -> tirx.Stmt:
            return loop("tile", tiles, lambda tile: tile_at(tile, k0, extent, is_first, is_last))

        def final(tile: Expr) -> tirx.Stmt:
            row0 = tirx.Var("row", "int64")
            finished = self.second_pass(shape, base, row0, origin, keep, tile * shape.rows)
            return sequence(tirx.Bind(row0, row_of(tile)), finished)

        def steps() -> list[tirx.Stmt]:
            size = static(depth)
            if not block:
                return [turn(const(0), c.reduce.extent, True, True)]
            if size is None:
                more = tirx.max(depth - 1, const(0)) // block
                short = depth - more * block
                inner = lambda step: turn(short + step * block, block, False, False)
                return [
                    turn(const(0), short, True, False),
                    loop("step", more, inner),
                    loop("tile", tiles, final),
                ]
            tail = size % block or block
            middle = (size - tail) // block - 1
            inner = lambda step: turn((step + 1) * block, block, False, False)
            return [
                turn(const(0), block, True, False),
                *([loop("step", middle, inner)] if middle else []),
                turn(const(size - tail), tail, False, True),
            ]

        allocate = tirx.AllocBuffer(keep) if self.tiling.scratch or block else None
        return sequence(allocate, prepare, *steps())

    def right_operand(
        self, shape: TileShape, base: dict[tirx.Var, Expr], panel: Expr
    ) -> tuple[tirx.Stmt | None, Callable[[Expr, Expr], Expr]]:
        """How tiles read the panel, and what packs it first."""
        c = self.c

        def direct(k: Expr, column: Expr) -> Expr:
            point = {**base, c.reduce.var: k, c.column.var: panel * self.width + column}
            return self.cast(self.narrow(substitute(c.rhs, point), column))

        if not self.tiling.pack:
            return None, direct
        packed = tirx.decl_buffer((index(c.reduce.extent), const(self.width)), c.acc_dtype, "packed")
        is_whole = static(self.columns) is not None and static(self.columns) % self.width == 0
        zero = tirx.const(0, c.acc_dtype)

        def pack_row(k: Expr, guarded: bool) -> tirx.Stmt:
            def element(column: Expr) -> tirx.Stmt:
                value = direct(k, column)
                if guarded:
                    value = tirx.if_then_else(panel * self.width + column < self.columns, value, zero)
                return tirx.BufferStore(packed, value, [k, column])

            if guarded:
                return loop("column", self.width, element)
            return self.each_vector(shape, element)

        full = loop("pack_k", c.reduce.extent, lambda k: pack_row(k, False))
        if not is_whole:
            fits = (panel + 1) * self.width <= self.columns
            full = when(fits, full, loop("pack_k", c.reduce.extent, lambda k: pack_row(k, True)))
        return sequence(tirx.AllocBuffer(packed), full), lambda k, column: tirx.BufferLoad(
            packed, [k, column]
        )

    def second_pass(
        self,
        shape: TileShape,
        base: dict[tirx.Var, Expr],
        row0: Expr,
        origin: Expr,
        keep: tirx.Var,
        offset: Expr | None = None,
    ) -> tirx.Stmt:
        """Finish the sums of one tile that lie in ``keep``."""
        offset = const(0) if offset is None else offset

        def element(row: Expr, column: Expr) -> tirx.Stmt:
            return self.store(
                base, row0 + row, origin + column, tirx.BufferLoad(keep, [offset + row, column])
            )

        def full(row: Expr) -> tirx.Stmt:
            return loop(
                "vector",
                shape.vectors,
                lambda v: lanes_loop(shape.lanes, lambda lane: element(row, v * shape.lanes + lane)),
            )

        columns = static(self.columns)
        whole = loop("row", shape.rows, full)
        if columns is not None and columns % self.width == 0:
            return whole
        here = self.columns - origin
        ends = pieces(columns % self.width, shape.lanes) if columns is not None else None

        def part(row: Expr) -> tirx.Stmt:
            if ends is None:
                return loop("column", here, lambda column: element(row, column))
            return sequence(
                *(
                    lanes_loop(size, lambda lane, start=start: element(row, const(start) + lane))
                    for start, size in ends
                )
            )

        return when(here >= const(self.width), whole, loop("row", shape.rows, part))

    def store(self, base: dict[tirx.Var, Expr], row: Expr, column: Expr, total: Expr) -> tirx.Stmt:
        c = self.c
        point = {**base, **unflatten(row, c.rows), c.column.var: column}
        return c.store.at(point, total.astype(str(c.store.total.ty.dtype)))

    def each_vector(self, shape: TileShape, element: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
        return sequence(
            *(
                lanes_loop(shape.lanes, lambda lane, base=vector * shape.lanes: element(const(base) + lane))
                for vector in range(shape.vectors)
            )
        )

    def narrow(self, expr: Expr, column: Expr) -> Expr:
        """Simplify ``(panel * NR + column) // NR``, knowing that ``column`` lies inside the panel."""
        analyzer = tvm.sym.Analyzer()
        for var in variables(column):
            analyzer.bind(var, tvm.ir.Range(const(0), const(self.tiling.shapes[0].lanes)))
        return analyzer.simplify(expr)

    def cast(self, expr: Expr) -> Expr:
        return expr.astype(self.c.acc_dtype)


def pieces(size: int, lanes: int) -> list[tuple[int, int]]:
    """``size`` columns as vectors of decreasing powers of two: (start, width)."""
    pieces, start, width = [], 0, lanes
    while start < size:
        if start + width <= size:
            pieces.append((start, width))
            start += width
        else:
            width //= 2
    return pieces


def _product(axes: tuple[Axis, ...]) -> Expr:
    result: Expr = const(1)
    for axis in axes:
        result = result * axis.extent if static(result) != 1 else index(axis.extent)
    return result


def unflatten(position: Expr, axes: tuple[Axis, ...]) -> dict[tirx.Var, Expr]:
    """The value of each axis at a position in their row-major product."""
    values: dict[tirx.Var, Expr] = {}
    kept = [axis for axis in axes if axis.size != 1]
    for axis in axes:
        if axis.size == 1:
            values[axis.var] = const(0)
    for axis in reversed(kept[1:]):
        values[axis.var] = position % axis.extent
        position = position // axis.extent
    if kept:
        values[kept[0].var] = position
    return values
