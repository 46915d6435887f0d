"""Fourier transforms of a vector register's worth of vectors at a time: each lane has its own.

    for block in parallel(outer × blocks of lanes):
        a = x[block]                            # planes of real and imaginary parts, a vector for each element
        for radix: a, b = b, pass(a)            # Stockham: no element is ever out of order
        out[block] = a

Elements of different vectors never meet, so no pass shuffles. Where the vectors are rows, squares of elements are
transposed in registers on the way in and out. (Stockham, High-speed convolution and correlation, 1966.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from torch_tvm.schedules.cpu.fourier.butterflies import Block, Number
from torch_tvm.schedules.cpu.register_transpose import transpose_registers
from torch_tvm.tir import as_size, broadcast, ceil_div, const, load, loop, sequence, static, store
from torch_tvm.workloads.fourier import FourierWorkload, factors

Body = Callable[[Expr], tirx.Stmt]


@dataclass(frozen=True)
class Planes:
    """Real and imaginary parts of ``length`` vectors of ``lanes`` elements."""

    re: tirx.Buffer
    im: tirx.Buffer
    lanes: int

    def get(self, at: Expr) -> Number:
        return Number(*(load(plane, [at * self.lanes], self.lanes) for plane in (self.re, self.im)))

    def set(self, at: Expr, value: Number) -> list[tirx.Stmt]:
        places = ((self.re, value.re), (self.im, value.im))
        return [store(plane, part, [at * self.lanes], self.lanes) for plane, part in places]


@dataclass(frozen=True)
class Kernel:
    """The kernel of a workload over flat buffers of pairs."""

    workload: FourierWorkload
    source: tirx.Buffer
    roots: tirx.Buffer
    twiddles: tirx.Buffer | None
    target: tirx.Buffer
    outer: Expr
    count: Expr
    lanes: int
    widest: int

    @property
    def dtype(self) -> str:
        return str(self.source.dtype)

    @property
    def length(self) -> int:
        return self.workload.length

    def body(self) -> tirx.Stmt:
        """Blocks of vectors; a last block that is not full moves back until it fits, or is done one by one."""
        count = static(self.count)
        lanes = self.lanes
        if count is not None:
            while lanes > count:
                lanes //= 2
            blocks = ceil_div(count, lanes)
            first = lambda block: tirx.min(block * lanes, const(count - lanes)) if count % lanes else block * lanes
            return self._blocks(const(blocks), lanes, first)
        whole = tirx.floordiv(self.count, lanes)
        rest = self.count - whole * lanes
        return sequence(
            self._blocks(whole, lanes, lambda block: block * lanes),
            self._blocks(rest, 1, lambda block: whole * lanes + block),
        )

    def _blocks(self, blocks: Expr, lanes: int, first: Callable[[Expr], Expr]) -> tirx.Stmt:
        def task(number: Expr) -> tirx.Stmt:
            outer, block = tirx.Var("outer", "int64"), tirx.Var("first", "int64")
            return sequence(
                tirx.Bind(outer, tirx.floordiv(number, blocks)),
                tirx.Bind(block, first(tirx.floormod(number, blocks))),
                self._block(outer, block, lanes),
            )

        total = self.outer * blocks
        size = static(total)
        work = None if size is None else size * lanes * self.length
        kind = "serial" if work is not None and work < SERIAL_WORK else "parallel"
        return loop("task", total, task, kind=kind)

    def _block(self, outer: Expr, first: Expr, lanes: int) -> tirx.Stmt:
        size = const(self.length * lanes)
        plane = lambda name: tirx.decl_buffer((size,), self.dtype, name)
        planes = [Planes(plane(f"{name}_re"), plane(f"{name}_im"), lanes) for name in "ab"]
        allocations = [tirx.AllocBuffer(buffer) for p in planes for buffer in (p.re, p.im)]
        passes = []
        here, there = planes
        done = 1
        for radix in radices(self.length, self.widest):
            passes.append(self._pass(here, there, radix, self.length // done, done))
            here, there = there, here
            done *= radix
        return sequence(
            *allocations,
            self._read(planes[0], outer, first, lanes),
            *passes,
            self._write(here, outer, first, lanes),
        )

    # -- one pass ----------------------------------------------------------------------------------------

    def _pass(self, source: Planes, target: Planes, radix: int, length: int, stride: int) -> tirx.Stmt:
        """Transforms of length ``length``, ``stride`` of them interleaved, become ``radix`` times
        as many shorter ones.
        """
        groups = length // radix
        lanes = source.lanes

        def group(p: Expr) -> tirx.Stmt:
            roots: list[Number] = []
            binds = Block(self.dtype, lanes, self.workload.is_inverse)
            if groups > 1:
                for k in range(1, radix):
                    at = p * (k * stride)
                    parts = (self._spread(load(self.roots, [at * 2 + part]), lanes) for part in (0, 1))
                    roots.append(binds.number(*parts))

            def step(q: Expr) -> tirx.Stmt:
                block = Block(self.dtype, lanes, self.workload.is_inverse)
                taken = [source.get(q + (p + i * groups) * stride) for i in range(radix)]
                results = block.transform([block.number(z.re, z.im) for z in taken])
                if roots:
                    results = [
                        results[0], *(block.times(z, w) for z, w in zip(results[1:], roots, strict=True)),
                    ]  # fmt: skip
                stores = [stmt for k, z in enumerate(results) for stmt in target.set(q + (p * radix + k) * stride, z)]
                return tirx.SeqStmt([*block.statements, *stores])

            return sequence(*binds.statements, loop("q", stride, step))

        return loop("p", groups, group)

    @staticmethod
    def _spread(value: Expr, lanes: int) -> Expr:
        return broadcast(value, lanes)

    # -- in and out ------------------------------------------------------------------------------------

    def _read(self, planes: Planes, outer: Expr, first: Expr, lanes: int) -> tirx.Stmt:
        base = outer * (self.count * self.length)
        if self.workload.rows_in and lanes > 1:
            row = lambda r: (base + (first + r) * self.length) * 2
            return self._transposed(planes, lanes, row, self.source, is_read=True)

        def element(j: Expr) -> tirx.Stmt:
            if lanes == 1:
                place = self._place(self.workload.rows_in, base, j, first) * 2
                value = Number(*(load(self.source, [place + part]) for part in (0, 1)))
                return tirx.SeqStmt(planes.set(j, value))
            place = (base + j * self.count + first) * 2
            low, high = (load(self.source, [place + half * lanes], lanes) for half in (0, 1))
            picks = lambda part: [tirx.IntImm("int32", 2 * lane + part) for lane in range(lanes)]
            return tirx.SeqStmt(planes.set(j, Number(*(tirx.Shuffle([low, high], picks(p)) for p in (0, 1)))))

        return loop("j", self.length, element)

    def _write(self, planes: Planes, outer: Expr, first: Expr, lanes: int) -> tirx.Stmt:
        base = outer * (self.count * self.length)
        if self.workload.rows_out and lanes > 1:
            row = lambda r: (base + (first + r) * self.length) * 2
            return self._transposed(planes, lanes, row, self.target, is_read=False)

        def element(k: Expr) -> tirx.Stmt:
            block = Block(self.dtype, lanes, self.workload.is_inverse)
            value = self._finished(block, planes.get(k), k, first)
            if lanes == 1:
                place = self._place(self.workload.rows_out, base, k, first) * 2
                stores = [store(self.target, part, [place + i]) for i, part in enumerate((value.re, value.im))]
                return tirx.SeqStmt([*block.statements, *stores])
            place = (base + k * self.count + first) * 2
            stores = []
            for half in (0, 1):
                picks = [half * lanes // 2 + lane // 2 + lane % 2 * lanes for lane in range(lanes)]
                mixed = tirx.Shuffle([value.re, value.im], [tirx.IntImm("int32", pick) for pick in picks])
                stores.append(store(self.target, mixed, [place + half * lanes], lanes))
            return tirx.SeqStmt([*block.statements, *stores])

        return loop("k", self.length, element)

    def _place(self, rows: bool, base: Expr, element: Expr, vector: Expr) -> Expr:
        return base + (vector * self.length + element if rows else element * self.count + vector)

    def _finished(self, block: Block, value: Number, k: Expr, first: Expr) -> Number:
        """A result, scaled and multiplied by its twiddle factor."""
        lanes = block.lanes
        value = block.number(value.re, value.im)
        if self.workload.scale != 1:
            factor = block.constant(self.workload.scale)
            value = block.number(value.re * factor, value.im * factor)
        if self.twiddles is None:
            return value
        place = (k * self.count + first) * 2
        if lanes == 1:
            twiddle = block.number(*(load(self.twiddles, [place + part]) for part in (0, 1)))
        else:
            low, high = (load(self.twiddles, [place + half * lanes], lanes) for half in (0, 1))
            picks = lambda part: [tirx.IntImm("int32", 2 * lane + part) for lane in range(lanes)]
            twiddle = block.number(*(tirx.Shuffle([low, high], picks(p)) for p in (0, 1)))
        return block.times(value, twiddle)

    def _transposed(
        self, planes: Planes, lanes: int, row: Callable[[int], Expr], memory: tirx.Buffer, *, is_read: bool
    ) -> tirx.Stmt:
        """Rows of pairs to planes or back, ``lanes`` × ``lanes`` reals at a time: by shuffles, or one by one where a
        row is shorter than that.
        """
        transfer = _Transfer(planes, memory, row, lanes, self.dtype, self.workload.scale, is_read)
        width = 2 * self.length
        if width < lanes:
            return loop("j", self.length, transfer.pair)
        last = width - lanes
        assert lanes >= 2 and last % 2 == 0
        start = lambda s: tirx.min(s * lanes, const(last)) if width % lanes else s * lanes
        return loop("square", ceil_div(width, lanes), lambda s: transfer.square(start(as_size(s))))


@dataclass(frozen=True)
class _Transfer:
    """Elements on their way from ``memory``, where vector ``r`` begins at ``row(r)``, to ``planes``, or back times
    ``scale``."""

    planes: Planes
    memory: tirx.Buffer
    row: Callable[[int], Expr]
    lanes: int
    dtype: str
    scale: float
    is_read: bool

    def square(self, start: Expr) -> tirx.Stmt:
        """As many reals of each vector as there are vectors, from the even number ``start`` on."""
        element = tirx.Var("element", "int64")
        plane = lambda c: self.planes.im if c % 2 else self.planes.re
        at = lambda c, lane: [(element + c // 2) * self.lanes + lane]
        in_memory = lambda r, lane: [self.row(r) + start + lane]
        if self.is_read:
            load = lambda r, lane: tirx.BufferLoad(self.memory, in_memory(r, lane))
            store = lambda c, lane, value: tirx.BufferStore(plane(c), value, at(c, lane))
        else:
            factor = tirx.const(self.scale, self.dtype)
            scaled = lambda value: value if self.scale == 1 else value * factor
            load = lambda c, lane: scaled(tirx.BufferLoad(plane(c), at(c, lane)))
            store = lambda r, lane, value: tirx.BufferStore(self.memory, value, in_memory(r, lane))
        bound = tirx.Bind(element, tirx.floordiv(start, 2))
        return sequence(bound, transpose_registers(self.lanes, self.dtype, load, store))

    def pair(self, j: Expr) -> tirx.Stmt:
        """Element ``j`` of every vector."""
        moves = []
        for part, plane in enumerate((self.planes.re, self.planes.im)):
            for r in range(self.lanes):
                there, here = [self.row(r) + j * 2 + part], [j * self.lanes + r]
                if self.is_read:
                    moves.append(tirx.BufferStore(plane, tirx.BufferLoad(self.memory, there), here))
                else:
                    value = tirx.BufferLoad(plane, here) * tirx.const(self.scale, self.dtype)
                    moves.append(tirx.BufferStore(self.memory, value, there))
        return tirx.SeqStmt(moves)


def radices(length: int, widest: int) -> list[int]:
    """The factors of a length as passes take them: twos together, odd ones first."""
    primes = factors(length)
    assert primes is not None
    twos = primes.count(2)
    odd = [prime for prime in primes if prime > 2]
    found = []
    while twos:
        take = 3 if widest >= 8 and (twos == 3 or twos > 4) else min(2, twos)
        found.append(1 << take)
        twos -= take
    return [*found, *odd]


SERIAL_WORK = 1 << 14
"""Numbers below which one thread does it all."""
