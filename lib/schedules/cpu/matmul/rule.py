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
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.ir import Expr

from torch_tvm.schedules.cpu.matmul.contraction import Contraction, read_contraction
from torch_tvm.schedules.cpu.matmul.register_tile import Share, TileShape, emit_tile
from torch_tvm.schedules.cpu.matmul.tiling import MatmulTiling, choose_tiling, matmul_tilings
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import (
    INDEX,
    Point,
    SizeLike,
    as_size,
    binary_pieces,
    ceil_div,
    const,
    lanes_loop,
    loop,
    product,
    sequence,
    static,
    substitute,
    unflatten,
    variables,
    when,
)


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


def _emitted(func: tirx.PrimFunc, contraction: Contraction, tiling: MatmulTiling) -> tirx.PrimFunc:
    return func.with_body(MatmulEmitter(contraction, tiling).emit())


Element = Callable[[Expr, Expr], Expr]
"""What lies in a row (of the reduction) and a column of a panel."""


@dataclass(frozen=True)
class Task:
    """``tiles`` tiles of rows (``most`` at most), from ``first`` on, of one panel of columns of the
    product ``base``.
    """

    shape: TileShape
    base: Point
    panel: Expr
    first: Expr
    tiles: Expr
    most: int


@dataclass(frozen=True)
class Piece:
    """``extent`` steps of the reduction from ``k0`` on."""

    k0: Expr
    extent: SizeLike
    is_first: bool
    is_last: bool


class MatmulEmitter:
    """Writes the loop nest of one contraction under one tiling."""

    def __init__(self, contraction: Contraction, tiling: MatmulTiling) -> None:
        self.c = contraction
        self.tiling = tiling
        self.width = tiling.shapes[0].columns
        self.rows = as_size(product(axis.extent for axis in contraction.rows))
        self.columns = as_size(contraction.column.extent)
        self.panels = ceil_div(self.columns, self.width)
        columns = contraction.column.size
        self.is_whole = columns is not None and columns % self.width == 0
        self.analyzer = tvm.sym.Analyzer()

    def emit(self) -> tirx.Stmt:
        shapes = self.tiling.shapes
        result = self.nest(shapes[-1])
        for shape in reversed(shapes[:-1]):
            result = when(self.rows >= const(shape.rows), self.nest(shape), result)
        return result

    def nest(self, shape: TileShape) -> tirx.Stmt:
        """All tasks, for tiles of one shape (there are at least that many rows)."""
        tiles = ceil_div(self.rows, shape.rows)
        most = max(1, self.tiling.block_tiles * self.tiling.shapes[0].rows // shape.rows)
        blocks = ceil_div(tiles, most)
        tasks = self.analyzer.simplify(as_size(product(axis.extent for axis in self.c.batch)) * blocks * self.panels)

        def task(which: Expr) -> tirx.Stmt:
            panel, outer = which % self.panels, which // self.panels
            # Where no row is left there is no task either, but TVM's simplifier divides by what it proves zero.
            divisor = blocks if isinstance(blocks, (int, tirx.IntImm)) else tirx.max(blocks, const(1))
            names = {"panel": panel, "block": outer % divisor, "batch": outer // divisor}
            bound = {name: tirx.Var(name, INDEX) for name in names}
            here = tirx.Var("tiles", INDEX)
            first = bound["block"] * most
            base = unflatten(bound["batch"], self.c.batch)
            return sequence(
                *(tirx.Bind(bound[name], self.analyzer.simplify(value)) for name, value in names.items()),
                tirx.Bind(here, tirx.min(tiles - first, const(most))),
                self.task(Task(shape, base, bound["panel"], first, here, most)),
            )

        return loop("task", tasks, task, kind="parallel" if self.tiling.parallel else "serial")

    def task(self, t: Task) -> tirx.Stmt:
        """The row tiles of one task."""
        prepare, rhs = self.right_operand(t)
        count = (t.most if self.tiling.reduce_block else 1) * t.shape.rows
        keep = tirx.decl_buffer((const(count), const(self.width)), self.c.acc_dtype, "scratch")
        allocate = tirx.AllocBuffer(keep) if self.tiling.scratch or self.tiling.reduce_block else None
        return sequence(allocate, prepare, *self.steps(t, keep, rhs))

    def steps(self, t: Task, keep: tirx.Buffer, rhs: Element) -> list[tirx.Stmt]:
        """The pieces that the reduction is split into, each over all tiles."""
        depth, block = as_size(self.c.reduce.extent), self.tiling.reduce_block

        def iteration(k0: Expr, extent: SizeLike, is_first: bool, is_last: bool) -> tirx.Stmt:
            piece = Piece(k0, extent, is_first, is_last)
            return loop("tile", t.tiles, lambda tile: self.tile(t, keep, rhs, tile, piece))

        if not block:
            return [iteration(const(0), self.c.reduce.extent, True, True)]
        size = static(depth)
        if size is None:
            more = tirx.max(depth - 1, const(0)) // block
            short = depth - more * block
            return [
                iteration(const(0), short, True, False),
                loop("step", more, lambda step: iteration(short + step * block, block, False, False)),
                loop("tile", t.tiles, lambda tile: self.finish(t, keep, tile)),
            ]
        tail = size % block or block
        middle = (size - tail) // block - 1
        return [
            iteration(const(0), block, True, False),
            *([loop("step", middle, lambda s: iteration((s + 1) * block, block, False, False))] if middle else []),
            iteration(const(size - tail), tail, False, True),
        ]

    def tile(self, t: Task, keep: tirx.Buffer, rhs: Element, tile: Expr, piece: Piece) -> tirx.Stmt:
        """A piece of the reduction of one tile; sums wait in ``keep`` for the next, or for the pass
        that finishes them.
        """
        c, row0 = self.c, tirx.Var("row", INDEX)
        kept = tile * t.shape.rows if self.tiling.reduce_block else const(0)

        def lhs(row: Expr, k: Expr) -> Expr:
            point = {**t.base, **unflatten(row0 + row, c.rows), c.reduce.var: piece.k0 + k}
            return self.cast(substitute(c.lhs, point))

        def finish(row: Expr, column: Expr, total: Expr) -> tirx.Stmt:
            place = [kept + row, column]
            if not piece.is_first:
                total = tirx.BufferLoad(keep, place) + total
            if piece.is_last and not self.tiling.scratch:
                return self.store(t, row0 + row, column, total)
            return tirx.BufferStore(keep, total, place)

        number = t.most if static(self.rows) is not None else t.tiles
        share = Share(tile, number) if self.tiling.shares and t.shape.rows > 1 else None
        right = lambda k, column: rhs(piece.k0 + k, column)
        sums = emit_tile(t.shape, piece.extent, lhs, right, finish, c.acc_dtype, share)
        is_split = piece.is_last and self.tiling.scratch
        last = self.second_pass(t, row0, keep, kept) if is_split else None
        return sequence(tirx.Bind(row0, self.first_row(t, tile)), sums, last)

    def finish(self, t: Task, keep: tirx.Buffer, tile: Expr) -> tirx.Stmt:
        """The last step of one tile whose sums lie in ``keep``."""
        row0 = tirx.Var("row", INDEX)
        finished = self.second_pass(t, row0, keep, tile * t.shape.rows)
        return sequence(tirx.Bind(row0, self.first_row(t, tile)), finished)

    def first_row(self, t: Task, tile: Expr) -> Expr:
        """The last tile moves up until it fits."""
        start, rows = (t.first + tile) * t.shape.rows, static(self.rows)
        is_whole = rows is not None and rows % t.shape.rows == 0
        return start if is_whole else tirx.min(start, self.rows - t.shape.rows)

    def right_operand(self, t: Task) -> tuple[tirx.Stmt | None, Element]:
        """How tiles read the panel, and what packs it first."""
        c, origin = self.c, t.panel * self.width

        def direct(k: Expr, column: Expr) -> Expr:
            point = {**t.base, c.reduce.var: k, c.column.var: origin + column}
            return self.cast(self.narrow(substitute(c.rhs, point), column))

        if not self.tiling.pack:
            return None, direct
        packed = tirx.decl_buffer((as_size(c.reduce.extent), const(self.width)), c.acc_dtype, "packed")
        zero = tirx.const(0, c.acc_dtype)

        def whole(k: Expr) -> tirx.Stmt:
            return self.each_vector(t.shape, lambda n: tirx.BufferStore(packed, direct(k, n), [k, n]))

        def part(k: Expr) -> tirx.Stmt:
            value = lambda n: tirx.if_then_else(origin + n < self.columns, direct(k, n), zero)
            return loop("column", self.width, lambda n: tirx.BufferStore(packed, value(n), [k, n]))

        copy = loop("pack_k", c.reduce.extent, whole)
        if not self.is_whole:
            fits = (t.panel + 1) * self.width <= self.columns
            copy = when(fits, copy, loop("pack_k", c.reduce.extent, part))
        return sequence(tirx.AllocBuffer(packed), copy), lambda k, n: tirx.BufferLoad(packed, [k, n])

    def second_pass(self, t: Task, row0: Expr, keep: tirx.Buffer, offset: Expr) -> tirx.Stmt:
        """Finish the sums of one tile that lie in ``keep`` from row ``offset`` on."""
        lanes = t.shape.lanes

        def element(row: Expr, column: Expr) -> tirx.Stmt:
            return self.store(t, row0 + row, column, tirx.BufferLoad(keep, [offset + row, column]))

        def full(row: Expr) -> tirx.Stmt:
            of_vector = lambda v: lanes_loop(lanes, lambda lane: element(row, v * lanes + lane))
            return loop("vector", t.shape.vectors, of_vector)

        whole = loop("row", t.shape.rows, full)
        if self.is_whole:
            return whole
        columns, here = static(self.columns), self.columns - t.panel * self.width

        def part(row: Expr) -> tirx.Stmt:
            if columns is None:
                return loop("column", here, lambda column: element(row, column))
            ends = binary_pieces(columns % self.width, lanes)
            of_end = lambda start, size: lanes_loop(size, lambda lane: element(row, const(start) + lane))
            return sequence(*(of_end(start, size) for start, size in ends))

        return when(here >= const(self.width), whole, loop("row", t.shape.rows, part))

    def store(self, t: Task, row: Expr, column: Expr, total: Expr) -> tirx.Stmt:
        """Store a finished sum; ``column`` counts from the first one of the panel."""
        c, place = self.c, t.panel * self.width + column
        point = {**t.base, **unflatten(row, c.rows), c.column.var: place}
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
