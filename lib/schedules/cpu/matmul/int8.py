"""Products of int8 and uint8 matrices with ``vpdpbusd``: four products of bytes are added to an int32 at once.

    C[b, m, n] = epilogue(sum_k int32(A[b, m, k]) * int32(B[b, k, n]))      # A: int8 or uint8, B: int8

The loop nest is that of :mod:`torch_tvm.schedules.cpu.matmul.rule`; a turn of the reduction takes four elements:

    for k4 in range(ceil(K / 4)):
        sums[row, :] = vpdpbusd(sums[row, :], four bytes of A[row], panel[k4, :])    # four bytes a column

The instruction wants A unsigned. For int8, ``a ^ 0x80`` is ``a + 128``, and sums start at ``-128 * sum_k B[k, n]``
in place of zero. Weights that :mod:`torch_tvm.transforms.matmul.packed_products` packed hold these starts as a last
row; other operands are packed here, panel by panel. Sums of int32 wrap around as in ATen, so results are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tvm import tirx
from tvm.ir import Expr, TensorLoad

from torch_tvm.schedules.cpu.matmul.contraction import Contraction, read_contraction
from torch_tvm.schedules.cpu.matmul.register_tile import TileShape
from torch_tvm.schedules.cpu.matmul.rule import MatmulEmitter
from torch_tvm.schedules.cpu.matmul.tiling import MatmulTiling, choose_tiling, tile_rows
from torch_tvm.schedules.instructions.dots import GROUP
from torch_tvm.schedules.instructions.instruction import PackedDot
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import (
    binary_pieces,
    broadcast,
    ceil_div,
    const,
    exact,
    lanes_loop,
    load,
    loop,
    sequence,
    static,
    store,
    substitute,
    unflatten,
    variables,
    when,
)

COPY = 64
"""Elements of the left operand that are copied at once."""

Words = Callable[[Expr, int], Expr]


@dataclass(frozen=True)
class Operands:
    """The loads behind both operands; ``packed_width`` is NR of packed weights, or 0."""

    lhs: TensorLoad
    rhs: TensorLoad
    is_signed: bool
    packed_width: int


class Int8Matmul:
    """Products of 8-bit integers summed in int32, where the target has ``vpdpbusd``; see the module's text."""

    name = "int8_matmul"

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        if not any(str(getattr(param, "dtype", "")) == "int8" for param in func.params):
            raise Refusal("no operand is int8")
        dot = cpu.dot(GROUP)
        if dot is None:
            raise Refusal("the target has no vpdpbusd")
        contraction = read_contraction(func)
        operands = read_operands(contraction)
        tiling = choose_int8_tiling(contraction, operands, cpu)
        body = Int8Emitter(contraction, operands, tiling, dot).emit()
        return func.with_body(dot.defined_in(body))


def read_operands(c: Contraction) -> Operands:
    """What the product multiplies, or :class:`Refusal`."""
    if c.acc_dtype != "int32":
        raise Refusal(f"sums are {c.acc_dtype}, not int32")
    if not c.rows:
        raise Refusal("the left operand has no rows")
    if not c.reduce.size:
        raise Refusal("the length of the sums is not constant")
    lhs, rhs = _widened_load(c.lhs), _widened_load(c.rhs)
    if str(lhs.source.dtype) not in ("int8", "uint8") or str(rhs.source.dtype) != "int8":
        raise Refusal(f"operands of {lhs.source.dtype} and {rhs.source.dtype}")
    *outer, last = lhs.indices
    if not last.same_as(c.reduce.var) or any(c.reduce.var in variables(i) for i in outer):
        raise Refusal("the left operand is not contiguous along the reduction")
    return Operands(lhs, rhs, str(lhs.source.dtype) == "int8", packed_width(c, GROUP))


def _widened_load(value: Expr) -> TensorLoad:
    if isinstance(value, tirx.Cast) and isinstance(value.value, TensorLoad):
        return value.value
    raise Refusal("an operand is more than a load of a tensor")


def packed_width(c: Contraction, word: int) -> int:
    """NR if the right operand came packed in words of ``word`` elements, otherwise 0."""
    return c.packed.width if c.packed is not None and c.packed.word == word else 0


def choose_int8_tiling(c: Contraction, operands: Operands, cpu: CpuModel) -> MatmulTiling:
    """The tiling of a float32 product of these sizes, for panels as wide as the weights were packed."""
    tiling = choose_tiling(c, cpu)
    shapes = tiling.shapes
    lanes = shapes[0].lanes
    vectors = operands.packed_width // lanes if operands.packed_width else shapes[0].vectors
    if operands.packed_width % lanes:
        raise Refusal(f"weights are packed for vectors that are not of {lanes} lanes")
    if vectors != shapes[0].vectors:
        most = tile_rows(None, vectors, cpu)
        shapes = tuple(replace(s, rows=min(s.rows, most), vectors=vectors) for s in shapes)
    columns = c.column.size
    whole = columns is not None and columns % (vectors * lanes) == 0
    return replace(
        tiling,
        shapes=shapes,
        reduce_block=0,
        pack=not operands.packed_width,
        scratch=not whole or not c.store.is_plain,
    )


class Int8Emitter(MatmulEmitter):
    """The loop nest of a product with a group of elements of the reduction, one word, in a turn."""

    group = GROUP
    sum_dtype = "int32"

    def __init__(
        self, contraction: Contraction, operands: Operands, tiling: MatmulTiling, dot: PackedDot
    ) -> None:
        super().__init__(contraction, tiling)
        self.operands, self.dot = operands, dot
        self.depth = exact(contraction.reduce.size)
        self.groups = ceil_div(self.depth, self.group)
        self.left: tirx.Buffer | None = None

    def must_copy(self) -> bool:
        """Whether the left operand cannot be read in place."""
        return self.operands.is_signed or self.depth % self.group != 0

    def left_dtype(self) -> str:
        """The dtype of the copy of the left operand."""
        return str(self.operands.lhs.source.dtype)

    def converted(self, value: Expr, count: int) -> Expr:
        """``count`` elements of the left operand as its copy holds them."""
        return value ^ broadcast(tirx.const(-128, "int8"), count) if self.operands.is_signed else value

    def task(
        self, shape: TileShape, batch: Expr, first: Expr, tiles: Expr, most_tiles: int, panel: Expr
    ) -> tirx.Stmt:
        """The row tiles ``first … first + tiles`` of one panel."""
        base = unflatten(batch, self.c.batch)
        origin = panel * self.width
        prepare, words, start = self.panel(shape, base, panel)
        keep = tirx.decl_buffer((const(shape.rows), const(self.width)), self.sum_dtype, "scratch")
        if self.must_copy():
            size = (const(shape.rows), const(self.groups * self.group))
            self.left = tirx.decl_buffer(size, self.left_dtype(), "left")

        def tile_at(tile: Expr) -> tirx.Stmt:
            row0 = tirx.Var("row", "int64")

            def finish(row: Expr, column: Expr, total: Expr) -> tirx.Stmt:
                if self.tiling.scratch:
                    return tirx.BufferStore(keep, total, [row, column])
                return self.store(base, row0 + row, origin + column, total)

            value = (first + tile) * shape.rows
            rows = static(self.rows)
            is_whole = rows is not None and rows % shape.rows == 0
            last = self.second_pass(shape, base, row0, origin, keep) if self.tiling.scratch else None
            return sequence(
                tirx.Bind(row0, value if is_whole else tirx.min(value, self.rows - shape.rows)),
                self.copy_left(shape, base, row0),
                self.tile(shape, base, row0, words, start, finish),
                last,
            )

        allocate = tirx.AllocBuffer(keep) if self.tiling.scratch else None
        body = loop("tile", tiles, tile_at)
        return sequence(
            allocate, tirx.AllocBuffer(self.left) if self.left is not None else None, prepare, body
        )

    def tile(
        self,
        shape: TileShape,
        base: dict[tirx.Var, Expr],
        row0: Expr,
        words: Words,
        start: Callable[[int], Expr],
        finish: Callable[[Expr, Expr, Expr], tirx.Stmt],
    ) -> tirx.Stmt:
        """One tile of sums in registers, from ``start`` to ``finish``."""
        lanes = shape.lanes
        sums = [
            [
                tirx.decl_buffer((const(shape.rows * lanes),), self.sum_dtype, f"sum_{chain}_{vector}")
                for vector in range(shape.vectors)
            ]
            for chain in range(shape.chains)
        ]
        zero = broadcast(tirx.const(0, self.sum_dtype), lanes)

        def cells(body: Callable[[Expr, int], tirx.Stmt]) -> tirx.Stmt:
            return loop(
                "row",
                shape.rows,
                lambda row: sequence(*(body(row, v) for v in range(shape.vectors))),
                kind="unrolled",
            )

        def begin(chain: int) -> tirx.Stmt:
            value = start if chain == 0 else lambda vector: zero
            return cells(lambda row, v: store(sums[chain][v], value(v), [row * lanes], lanes))

        def turn(k4: Expr, chain: int) -> tirx.Stmt:
            def add(row: Expr, v: int) -> tirx.Stmt:
                total = load(sums[chain][v], [row * lanes], lanes)
                left = self.left_words(base, row0, row, k4, lanes)
                return store(sums[chain][v], self.dot(total, left, words(k4, v)), [row * lanes], lanes)

            return cells(add)

        def end(row: Expr, v: int) -> tirx.Stmt:
            def element(lane: Expr) -> tirx.Stmt:
                total = tirx.BufferLoad(sums[0][v], [row * lanes + lane])
                for chain in range(1, shape.chains):
                    total = total + tirx.BufferLoad(sums[chain][v], [row * lanes + lane])
                return finish(row, lane + v * lanes, total)

            return lanes_loop(lanes, element)

        whole = self.depth // self.group
        main = whole // shape.chains
        reduce_k = lambda i: sequence(*(turn(i * shape.chains + n, n) for n in range(shape.chains)))
        return sequence(
            *(tirx.AllocBuffer(buffer) for chain in sums for buffer in chain),
            *(begin(chain) for chain in range(shape.chains)),
            loop("reduce_k", main, reduce_k) if main else None,
            *(turn(const(k4), k4 % shape.chains) for k4 in range(main * shape.chains, self.groups)),
            cells(end),
        )

    def left_words(self, base: dict[tirx.Var, Expr], row0: Expr, row: Expr, k4: Expr, lanes: int) -> Expr:
        """Four bytes of one row of the left operand, unsigned, in every lane: int32x``lanes``."""
        if self.left is not None:
            four = load(self.left, [row, k4 * self.group], self.group)
        else:
            four = self.left_bytes(base, row0 + row, k4 * self.group, self.group)
        return broadcast(tirx.reinterpret("int32", four), lanes)

    def left_bytes(self, base: dict[tirx.Var, Expr], row: Expr, k: Expr, count: int) -> Expr:
        """``count`` neighbouring elements of the left operand."""
        point = {**base, **unflatten(row, self.c.rows)}
        outer = [substitute(i, point) for i in self.operands.lhs.indices[:-1]]
        return load(self.operands.lhs.source, [*outer, k], count)

    def copy_left(self, shape: TileShape, base: dict[tirx.Var, Expr], row0: Expr) -> tirx.Stmt | None:
        """Fill ``left`` with the rows of one tile, unsigned and padded with zeros to whole groups.

        Broadcasts from memory leave the ports of the multiplier free; changing the sign at each use does not.
        """
        left = self.left
        if left is None:
            return None

        def put(row: Expr, k: Expr, count: int) -> tirx.Stmt:
            value = self.converted(self.left_bytes(base, row0 + row, k, count), count)
            return store(left, value, [row, k], count)

        def fill(row: Expr) -> tirx.Stmt:
            whole, rest = divmod(self.depth, COPY)
            parts = [loop("copy_k", whole, lambda i: put(row, i * COPY, COPY))] if whole else []
            parts += [put(row, const(whole * COPY + k), size) for k, size in binary_pieces(rest, COPY)]
            zero = tirx.const(0, str(left.dtype))
            pads = range(self.depth, self.groups * self.group)
            return sequence(*parts, *(tirx.BufferStore(left, zero, [row, const(k)]) for k in pads))

        return loop("copy_row", shape.rows, fill)

    def panel(
        self, shape: TileShape, base: dict[tirx.Var, Expr], panel: Expr
    ) -> tuple[tirx.Stmt | None, Words, Callable[[int], Expr]]:
        """What prepares the panel, its words at ``(k4, vector)``, and where the sums of a vector start."""
        lanes = shape.lanes
        zero = broadcast(tirx.const(0, self.sum_dtype), lanes)
        if not self.tiling.pack:
            source = self.operands.rhs.source

            def stored(k4: Expr, vector: int) -> Expr:
                four = load(source, [panel, k4, vector * lanes * self.group], lanes * self.group)
                return tirx.reinterpret(f"int32x{lanes}", four)

            starts = lambda vector: stored(const(self.groups), vector)
            return None, stored, starts if self.operands.is_signed else lambda vector: zero
        packed = tirx.decl_buffer((const(self.groups + 1), const(self.width)), "int32", "packed")
        words = lambda k4, vector: load(packed, [k4, vector * lanes], lanes)
        prepare = sequence(tirx.AllocBuffer(packed), self.pack(shape, base, panel, packed))
        starts = lambda vector: words(const(self.groups), vector)
        return prepare, words, starts if self.operands.is_signed else lambda vector: zero

    def pack(
        self, shape: TileShape, base: dict[tirx.Var, Expr], panel: Expr, packed: tirx.Buffer
    ) -> tirx.Stmt:
        """Copy a panel of the right operand to ``packed``, whose last row gets the starts of the sums."""
        rhs, column_var, k_var = self.operands.rhs, self.c.column.var, self.c.reduce.var
        lanes, last = shape.lanes, self.columns - 1

        def element(k4: Expr, count: int, column: Expr, guarded: bool) -> tirx.Stmt:
            n = panel * self.width + column
            n = tirx.min(n, last) if guarded else n
            point = lambda j: {**base, column_var: n, k_var: k4 * GROUP + j}
            word = word_of([substitute(rhs, point(j)) for j in range(count)])
            return tirx.BufferStore(packed, word, [k4, column])

        def row(k4: Expr, count: int, guarded: bool) -> tirx.Stmt:
            if guarded:
                return loop("column", self.width, lambda column: element(k4, count, column, True))
            return self.each_vector(shape, lambda column: element(k4, count, column, False))

        def rows(guarded: bool) -> tirx.Stmt:
            whole, rest = divmod(self.depth, GROUP)
            main = loop("pack_k", whole, lambda k4: row(k4, GROUP, guarded)) if whole else None
            return sequence(main, row(const(whole), rest, guarded) if rest else None)

        columns = static(self.columns)
        copy = rows(False)
        if columns is None or columns % self.width:
            copy = when((panel + 1) * self.width <= self.columns, copy, rows(True))
        if not self.operands.is_signed:
            return copy
        offset = broadcast(tirx.const(-0x7F7F7F80, "int32"), lanes)
        place = lambda vector: [const(self.groups), vector * lanes]
        zero = broadcast(tirx.const(0, "int32"), lanes)

        def each(body: Callable[[int], tirx.Stmt]) -> tirx.Stmt:
            return sequence(*(body(vector) for vector in range(shape.vectors)))

        def count_up(k4: Expr) -> tirx.Stmt:
            words = lambda vector: load(packed, [k4, vector * lanes], lanes)
            add = lambda vector: self.dot(load(packed, place(vector), lanes), offset, words(vector))
            return each(lambda vector: store(packed, add(vector), place(vector), lanes))

        return sequence(
            copy,
            each(lambda vector: store(packed, zero, place(vector), lanes)),
            loop("column_sum", self.groups, count_up),
            each(lambda v: store(packed, zero - load(packed, place(v), lanes), place(v), lanes)),
        )


def word_of(values: list[Expr]) -> Expr:
    """Up to four bytes as an int32, the first one lowest."""
    word = None
    for position, value in enumerate(values):
        byte = (value.astype("int32") & tirx.const(255, "int32")) << tirx.const(8 * position, "int32")
        word = byte if word is None else word | byte
    return word
