"""Products of int8 and uint8 matrices with ``vpdpbusd``: four products of bytes are added to an int32 at once.

    C[b, m, n] = epilogue(sum_k int32(A[b, m, k]) * int32(B[b, k, n]))      # A: int8 or uint8, B: int8

The loop nest is that of :mod:`torch_tvm.schedules.cpu.matmul.rule`; an iteration of the reduction takes four elements:

    for k4 in range(ceil(K / 4)):
        sums[row, :] = vpdpbusd(sums[row, :], four bytes of A[row], panel[k4, :])    # four bytes a column

The instruction wants A unsigned. For int8, ``a ^ 0x80`` is ``a + 128``, and sums start at ``-128 * sum_k B[k, n]``
in place of zero. Weights that :mod:`torch_tvm.transforms.matmul.packed_products` packed hold these starts as a last
row; other operands are packed here, panel by panel. Sums of int32 wrap around as in ATen, so results are exact.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace

from tvm import tirx
from tvm.ir import Expr, TensorLoad

from torch_tvm.schedules.cpu.matmul.contraction import Contraction, read_contraction
from torch_tvm.schedules.cpu.matmul.register_tile import RegisterTile, Requests
from torch_tvm.schedules.cpu.matmul.rule import MatmulEmitter, Task
from torch_tvm.schedules.cpu.matmul.tiling import MatmulTiling, choose_tiling, tile_rows
from torch_tvm.schedules.instructions.dots import GROUP
from torch_tvm.schedules.instructions.instruction import PackedDot
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import (
    INDEX,
    SizeLike,
    binary_pieces,
    broadcast,
    ceil_div,
    const,
    exact,
    load,
    loop,
    sequence,
    store,
    substitute,
    unflatten,
    variables,
    when,
)

COPY = 64
"""Elements of the left operand that are copied at once."""

Words = Callable[[Expr, int], Expr]
Start = Callable[[int], Expr]


@dataclass(frozen=True)
class Operands:
    """The loads behind both operands; ``packed_width`` is NR of packed weights, or 0."""

    lhs: TensorLoad
    rhs: TensorLoad
    is_signed: bool
    packed_width: int


class PackedDotMatmul:
    """Products by packed dot products: the target multiplies and adds ``word`` elements at once, of ``dtype`` on the
    right.

    ``is_absent`` is what a kernel without such an operand is refused with.
    """

    name: str
    word: int
    dtype: str
    is_absent: str

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        if not any(str(getattr(param, "dtype", "")) == self.dtype for param in func.params):
            raise Refusal(self.is_absent)
        dot = cpu.required_dot(self.word)
        contraction = read_contraction(func)
        operands = self.operands(contraction)
        tiling = choose_int8_tiling(contraction, operands, cpu)
        return func.with_body(dot.defined_in(self.emitter(contraction, operands, tiling, dot).emit()))

    def operands(self, c: Contraction) -> Operands:
        """What the product multiplies, or :class:`Refusal`."""
        raise NotImplementedError

    def emitter(self, c: Contraction, operands: Operands, tiling: MatmulTiling, dot: PackedDot) -> Int8Emitter:
        raise NotImplementedError


class Int8Matmul(PackedDotMatmul):
    """Products of 8-bit integers summed in int32, where the target has ``vpdpbusd``; see the module's text."""

    name, word, dtype = "int8_matmul", GROUP, "int8"
    is_absent = "no operand is int8"

    def operands(self, c: Contraction) -> Operands:
        return read_operands(c)

    def emitter(self, c: Contraction, operands: Operands, tiling: MatmulTiling, dot: PackedDot) -> Int8Emitter:
        return Int8Emitter(c, operands, tiling, dot)


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
    """The loop nest of a product with a group of elements of the reduction, one word, in an iteration."""

    group = GROUP
    sum_dtype = "int32"

    def __init__(self, contraction: Contraction, operands: Operands, tiling: MatmulTiling, dot: PackedDot) -> None:
        super().__init__(contraction, tiling)
        self.operands, self.dot = operands, dot
        self.depth = exact(contraction.reduce.size)
        self.groups = ceil_div(self.depth, self.group)

    def must_copy(self) -> bool:
        """Whether the left operand cannot be read in place."""
        return self.operands.is_signed or self.depth % self.group != 0

    def left_dtype(self) -> str:
        """The dtype of the copy of the left operand."""
        return str(self.operands.lhs.source.dtype)

    def converted(self, value: Expr, count: int) -> Expr:
        """``count`` elements of the left operand as its copy holds them."""
        return value ^ broadcast(tirx.const(-128, "int8"), count) if self.operands.is_signed else value

    def task(self, t: Task) -> tirx.Stmt:
        """The row tiles of one task."""
        prepare, words, start = self.panel(t)
        keep = tirx.decl_buffer((const(t.shape.rows), const(self.width)), self.sum_dtype, "scratch")
        size = (const(t.shape.rows), const(self.groups * self.group))
        left = tirx.decl_buffer(size, self.left_dtype(), "left") if self.must_copy() else None

        def tile_at(tile: Expr) -> tirx.Stmt:
            row0 = tirx.Var("row", INDEX)

            def finish(row: Expr, column: Expr, total: Expr) -> tirx.Stmt:
                if self.tiling.scratch:
                    return tirx.BufferStore(keep, total, [row, column])
                return self.store(t, row0 + row, column, total)

            last = self.second_pass(t, row0, keep, const(0)) if self.tiling.scratch else None
            return sequence(
                tirx.Bind(row0, self.first_row(t, tile)),
                self.copy_left(t, left, row0) if left is not None else None,
                self.sums(t, left, row0, words, start, finish),
                last,
            )

        return sequence(
            tirx.AllocBuffer(keep) if self.tiling.scratch else None,
            tirx.AllocBuffer(left) if left is not None else None,
            prepare,
            loop("tile", t.tiles, tile_at),
        )

    def sums(
        self,
        t: Task,
        left: tirx.Buffer | None,
        row0: Expr,
        words: Words,
        start: Start,
        finish: Callable[[Expr, Expr, Expr], tirx.Stmt],
    ) -> tirx.Stmt:
        """One tile of sums in registers, from ``start`` to ``finish``."""
        lanes = t.shape.lanes
        tile = RegisterTile(replace(t.shape, k_unroll=1), self.sum_dtype)
        zero = self.zeros(lanes)

        def begin(chain: int) -> tirx.Stmt:
            value = (lambda vector: zero) if chain else start
            return tile.cells(lambda row, v: store(tile.sums[chain][v], value(v), [row * lanes], lanes))

        def add(chain: int, group: Expr) -> tirx.Stmt:
            def cell(row: Expr, v: int) -> tirx.Stmt:
                sums, place = tile.sums[chain][v], [row * lanes]
                word = self.left_word(t, left, row0, row, group, lanes)
                return store(sums, self.dot(load(sums, place, lanes), word, words(group, v)), place, lanes)

            return tile.cells(cell)

        return tile.emit(self.groups, begin, add, finish, Requests())

    def zeros(self, lanes: int) -> Expr:
        return broadcast(tirx.const(0, self.sum_dtype), lanes)

    def left_word(self, t: Task, left: tirx.Buffer | None, row0: Expr, row: Expr, group: Expr, lanes: int) -> Expr:
        """A word of one row of the left operand, of bytes unsigned, in every lane: int32x``lanes``."""
        if left is not None:
            word = load(left, [row, group * self.group], self.group)
        else:
            word = self.left_elements(t, row0 + row, group * self.group, self.group)
        return broadcast(tirx.reinterpret("int32", word), lanes)

    def left_elements(self, t: Task, row: Expr, k: Expr, count: int) -> Expr:
        """``count`` neighbouring elements of the left operand."""
        point = {**t.base, **unflatten(row, self.c.rows)}
        outer = [substitute(i, point) for i in self.operands.lhs.indices[:-1]]
        return load(self.operands.lhs.source, [*outer, k], count)

    def copy_left(self, t: Task, left: tirx.Buffer, row0: Expr) -> tirx.Stmt:
        """Fill ``left`` with the rows of one tile, unsigned and padded with zeros to whole groups.

        Broadcasts from memory leave the ports of the multiplier free; changing the sign at each use does not.
        """

        def put(row: Expr, k: Expr, count: int) -> tirx.Stmt:
            value = self.converted(self.left_elements(t, row0 + row, k, count), count)
            return store(left, value, [row, k], count)

        def fill(row: Expr) -> tirx.Stmt:
            whole, rest = divmod(self.depth, COPY)
            parts = [loop("copy_k", whole, lambda i: put(row, i * COPY, COPY))] if whole else []
            parts += [put(row, const(whole * COPY + k), size) for k, size in binary_pieces(rest, COPY)]
            zero = tirx.const(0, str(left.dtype))
            pads = range(self.depth, self.groups * self.group)
            return sequence(*parts, *(tirx.BufferStore(left, zero, [row, const(k)]) for k in pads))

        return loop("copy_row", t.shape.rows, fill)

    def panel(self, t: Task) -> tuple[tirx.Stmt | None, Words, Start]:
        """What prepares the panel, its words at ``(group, vector)``, and where the sums of a vector start."""
        lanes = t.shape.lanes
        packed = tirx.decl_buffer((const(self.groups + 1), const(self.width)), "int32", "packed")

        def stored(group: Expr, vector: int) -> Expr:
            place: list[SizeLike] = [t.panel, group, vector * lanes * self.group]
            elements = load(self.operands.rhs.source, place, lanes * self.group)
            return tirx.reinterpret(f"int32x{lanes}", elements)

        def copied(group: Expr, vector: int) -> Expr:
            return load(packed, [group, vector * lanes], lanes)

        words = copied if self.tiling.pack else stored
        prepare = sequence(tirx.AllocBuffer(packed), self.pack(t, packed)) if self.tiling.pack else None
        if self.operands.is_signed:
            return prepare, words, lambda vector: words(const(self.groups), vector)
        return prepare, words, lambda vector: self.zeros(lanes)

    def pack(self, t: Task, packed: tirx.Buffer) -> tirx.Stmt:
        """Copy a panel of the right operand to ``packed``, whose last row gets the starts of the sums."""
        copy = self.copy_panel(t, packed, is_guarded=False)
        if not self.is_whole:
            fits = (t.panel + 1) * self.width <= self.columns
            copy = when(fits, copy, self.copy_panel(t, packed, is_guarded=True))
        return sequence(copy, self.count_starts(t, packed)) if self.operands.is_signed else copy

    def copy_panel(self, t: Task, packed: tirx.Buffer, *, is_guarded: bool) -> tirx.Stmt:
        """The words of a panel; one that ``is_guarded`` repeats the last column."""
        whole, rest = divmod(self.depth, GROUP)

        def element(group: Expr, count: int, column: Expr) -> tirx.Stmt:
            n = t.panel * self.width + column
            n = tirx.min(n, self.columns - 1) if is_guarded else n
            point = lambda j: {**t.base, self.c.column.var: n, self.c.reduce.var: group * GROUP + j}
            word = word_of([substitute(self.operands.rhs, point(j)) for j in range(count)])
            return tirx.BufferStore(packed, word, [group, column])

        def row(group: Expr, count: int) -> tirx.Stmt:
            of_column = lambda column: element(group, count, column)
            return loop("column", self.width, of_column) if is_guarded else self.each_vector(t.shape, of_column)

        main = loop("pack_k", whole, lambda group: row(group, GROUP)) if whole else None
        return sequence(main, row(const(whole), rest) if rest else None)

    def count_starts(self, t: Task, packed: tirx.Buffer) -> tirx.Stmt:
        """``-128`` times the sum of each column, in the last row of ``packed``."""
        lanes, zero = t.shape.lanes, self.zeros(t.shape.lanes)
        offset = broadcast(tirx.const(-0x7F7F7F80, "int32"), lanes)
        place = lambda vector: [const(self.groups), vector * lanes]
        so_far = lambda vector: load(packed, place(vector), lanes)

        def each(value: Callable[[int], Expr]) -> tirx.Stmt:
            return sequence(*(store(packed, value(v), place(v), lanes) for v in range(t.shape.vectors)))

        def add(group: Expr) -> tirx.Stmt:
            words = lambda vector: load(packed, [group, vector * lanes], lanes)
            return each(lambda vector: self.dot(so_far(vector), offset, words(vector)))

        return sequence(
            each(lambda vector: zero), loop("column_sum", self.groups, add), each(lambda v: zero - so_far(v))
        )


def word_of(values: list[Expr]) -> Expr:
    """Up to four bytes as an int32, the first one lowest."""
    return functools.reduce(
        operator.or_,
        (
            (value.astype("int32") & tirx.const(255, "int32")) << tirx.const(8 * position, "int32")
            for position, value in enumerate(values)
        ),
    )
