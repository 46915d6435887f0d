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

import tvm
from tvm import tirx
from tvm.ir import Expr

from torch_tvm.schedules.cpu.matmul.contraction import Contraction, read_contraction
from torch_tvm.schedules.cpu.matmul.register_tile import Share, TileShape, emit_tile
from torch_tvm.schedules.cpu.matmul.tiling import MatmulTiling, choose_tiling, matmul_tilings
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import (
    Axis,
    as_size,
    binary_pieces,
    ceil_div,
    const,
    lanes_loop,
    loop,
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


class MatmulEmitter:
    """Writes the loop nest of one contraction under one tiling."""

    def __init__(self, contraction: Contraction, tiling: MatmulTiling) -> None:
        self.c = contraction
        self.tiling = tiling
        self.width = tiling.shapes[0].columns
        self.rows = _product(contraction.rows)
        self.columns = as_size(contraction.column.extent)
        self.panels = ceil_div(self.columns, self.width)
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
        count = max(1, self.tiling.block_tiles * self.tiling.shapes[0].rows // shape.rows)
        blocks = ceil_div(tiles, count)
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
        depth, block = as_size(c.reduce.extent), self.tiling.reduce_block
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
        packed = tirx.decl_buffer((as_size(c.reduce.extent), const(self.width)), c.acc_dtype, "packed")
        columns = static(self.columns)
        is_whole = columns is not None and columns % self.width == 0
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
        ends = binary_pieces(columns % self.width, shape.lanes) if columns is not None else None

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


def _product(axes: tuple[Axis, ...]) -> Expr:
    result: Expr = const(1)
    for axis in axes:
        result = result * axis.extent if static(result) != 1 else as_size(axis.extent)
    return result
