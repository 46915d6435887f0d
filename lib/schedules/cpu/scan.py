"""Cumulative sums and products: vectors across the axes behind the scanned one, else rows side by side.

A running total is one chain of dependent additions. Over an axis that is not the last, every lane of a vector is a
chain of its own. Over the last one, four rows run interleaved; where rows are few and long, each is cut into segments
that are summed first and then scanned side by side, from the total of those before, on all cores.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tvm import sym, tirx

from torch_tvm.schedules.cpu.fusion import linear_size
from torch_tvm.schedules.cpu.nests import for_loop, pieces, sequence
from torch_tvm.schedules.cpu.program import constant
from torch_tvm.schedules.cpu.steps import PARALLEL_THRESHOLD
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.attributes import SCAN
from torch_tvm.support.errors import Refusal

CHAINS = 4
"""Rows or segments that one core scans side by side: as many additions as their latency leaves room for."""

SEGMENTED_LENGTH = 1024
"""Elements of a row from which on it is worth cutting."""

Combine = Callable[[tirx.Expr, tirx.Expr], tirx.Expr]
Body = Callable[[tirx.Expr], tirx.Stmt]


class Scan:
    """A kernel that :data:`SCAN` describes: ``out[i, k, j] = out[i, k - 1, j] + x[i, k, j]``.

    ``for k: out[i, k] = out[i, k - 1] + x[i, k]`` becomes ``parallel i: for k: vectorized j: total[j] += x[i, k, j];
    out[i, k, j] = total[j]`` with totals in registers, in the dtype that the scan accumulates in.
    """

    name = "scan"

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        if not func.attrs or SCAN not in func.attrs:
            raise Refusal("not a scan")
        fields = json.loads(func.attrs[SCAN])
        source, target = [p for p in func.params if isinstance(p.ty, tirx.BufferType)][:2]
        axis = int(fields["axis"])
        kernel = _Kernel(
            *(_flat(buffer) for buffer in (source, target)),
            before=_product(source.shape[:axis]),
            length=source.shape[axis],
            after=_product(source.shape[axis + 1 :]),
            dtype=str(fields["accumulate"]),
            is_sum=str(fields["combine"]) == "sum",
            cpu=cpu,
        )
        views = [
            tirx.DeclBuffer(flat, data=buffer.data)
            for buffer, flat in ((source, kernel.source), (target, kernel.target))
        ]
        return func.with_body(sequence([*views, kernel.body()])).without_attr(SCAN)


def _flat(buffer: tirx.Buffer) -> tirx.Buffer:
    return tirx.decl_buffer((_product(buffer.shape),), str(buffer.dtype), f"{buffer.name}_flat")


def _product(sizes: Sequence[tirx.Expr]) -> tirx.Expr:
    return sym.Analyzer().simplify(linear_size(sizes))


def _static(value: tirx.Expr) -> int | None:
    return int(value) if isinstance(value, tirx.IntImm) else None


@dataclass
class _Kernel:
    """``before`` rows of ``length`` by ``after`` elements, scanned along the middle."""

    source: tirx.Buffer
    target: tirx.Buffer
    before: tirx.Expr
    length: tirx.Expr
    after: tirx.Expr
    dtype: str
    is_sum: bool
    cpu: CpuModel
    analyzer: sym.Analyzer = field(default_factory=sym.Analyzer)

    def body(self) -> tirx.Stmt:
        if _static(self.after) != 1:
            return self._columns()
        rows, length = _static(self.before), _static(self.length)
        is_few = rows is not None and rows < CHAINS * self.cpu.cores
        may_cut = self.is_sum and str(self.target.dtype) != "float64"
        if is_few and may_cut and (length is None or length >= SEGMENTED_LENGTH):
            return for_loop(self.before, self._segments, name="row")
        return self._interleaved_rows()

    # --- pieces ------------------------------------------------------------------------------------

    def _totals(self, width: int, start: Callable[[tirx.Expr], tirx.Expr] | None = None) -> tuple:
        """Running totals for ``width`` chains, and the statements that allocate and start them."""
        totals = tirx.decl_buffer((width,), self.dtype, "total", scope="global")
        first = start or (lambda _: tirx.const(0 if self.is_sum else 1, self.dtype))
        fill = for_loop(
            width, lambda i: tirx.BufferStore(totals, first(i), [i]), tirx.ForKind.UNROLLED, name="chain"
        )
        return totals, [tirx.AllocBuffer(totals), fill]

    def _take(self, totals: tirx.Buffer, chain: tirx.Expr, place: tirx.Expr) -> tirx.Stmt:
        """The next element of ``chain``, which stands at ``place``."""
        total, element = tirx.BufferLoad(totals, [chain]), self._element(place)
        combined = total + element if self.is_sum else total * element
        result = tirx.BufferLoad(totals, [chain])
        if str(self.target.dtype) != self.dtype:
            result = tirx.Cast(str(self.target.dtype), result)
        return sequence(
            [
                tirx.BufferStore(totals, combined, [chain]),
                tirx.BufferStore(self.target, result, [self.analyzer.simplify(place)]),
            ]
        )

    def _element(self, place: tirx.Expr) -> tirx.Expr:
        element = tirx.BufferLoad(self.source, [self.analyzer.simplify(place)])
        return element if str(self.source.dtype) == self.dtype else tirx.Cast(self.dtype, element)

    def _parallel(self, count: tirx.Expr, work: tirx.Expr, body: Body) -> tirx.Stmt:
        """``body`` for every number below ``count``, on all cores where ``work`` operations are worth it."""
        work, cores = self.analyzer.simplify(work), self.cpu.cores
        serial = lambda: for_loop(count, body, name="item")
        if cores == 1 or _static(count) == 1 or (_static(work) or PARALLEL_THRESHOLD) < PARALLEL_THRESHOLD:
            return serial()
        chunk = self.analyzer.simplify(tirx.floordiv(count + (cores - 1), cores))

        def task(number: tirx.Expr) -> tirx.Stmt:
            turns = tirx.max(tirx.min(chunk, count - number * chunk), constant(0))
            return for_loop(turns, lambda i: body(number * chunk + i), name="item")

        threads = for_loop(cores, task, tirx.ForKind.PARALLEL, name="task")
        if _static(work) is not None:
            return threads
        return tirx.IfThenElse(work >= PARALLEL_THRESHOLD, threads, serial())

    # --- over an axis that is not the last ----------------------------------------------------------

    def _columns(self) -> tirx.Stmt:
        lanes = max(2, self.cpu.vector_bits // 32)
        statements, done = [], constant(0)
        for width in dict.fromkeys((2 * lanes, lanes, 1)):
            blocks = self.analyzer.simplify(tirx.floordiv(self.after - done, width))
            statements.append(self._column_blocks(done, blocks, width, lanes))
            done = self.analyzer.simplify(done + blocks * width)
        return sequence(statements)

    def _column_blocks(self, first: tirx.Expr, blocks: tirx.Expr, width: int, lanes: int) -> tirx.Stmt:
        if _static(blocks) == 0:
            return sequence([])

        def block(number: tirx.Expr) -> tirx.Stmt:
            row = tirx.floordiv(number, blocks)
            column = first + tirx.floormod(number, blocks) * width
            totals, start = self._totals(width)

            def step(k: tirx.Expr) -> tirx.Stmt:
                base = (row * self.length + k) * self.after + column
                vectors = [
                    for_loop(
                        size,
                        lambda lane, o=offset: self._take(totals, lane + o, base + o + lane),
                        tirx.ForKind.VECTORIZED,
                        name="lane",
                    )
                    for offset, size in pieces(width, lanes)
                ]
                return sequence(vectors)

            return sequence([*start, for_loop(self.length, step, name="k")])

        count = self.analyzer.simplify(self.before * blocks)
        return self._parallel(count, count * width * self.length * 2, block)

    # --- over the last axis ---------------------------------------------------------------------------

    def _interleaved_rows(self) -> tirx.Stmt:
        blocks = self.analyzer.simplify(tirx.floordiv(self.before, CHAINS))
        rest = self.analyzer.simplify(self.before - blocks * CHAINS)
        return sequence(
            [self._row_blocks(constant(0), blocks, CHAINS), self._row_blocks(blocks * CHAINS, rest, 1)]
        )

    def _row_blocks(self, first: tirx.Expr, blocks: tirx.Expr, width: int) -> tirx.Stmt:
        if _static(blocks) == 0:
            return sequence([])

        def block(number: tirx.Expr) -> tirx.Stmt:
            begin = (first + number * width) * self.length
            return self._chains(begin, self.length, self.length, width)

        return self._parallel(blocks, blocks * width * self.length * 4, block)

    def _chains(
        self,
        begin: tirx.Expr,
        apart: tirx.Expr,
        length: tirx.Expr,
        width: int,
        start: Callable[[tirx.Expr], tirx.Expr] | None = None,
    ) -> tirx.Stmt:
        """``width`` chains of ``length`` side by side, ``apart`` from each other."""
        totals, allocation = self._totals(width, start)
        step = lambda k: sequence(
            [self._take(totals, constant(chain), begin + apart * chain + k) for chain in range(width)]
        )
        return sequence([*allocation, for_loop(length, step, name="k")])

    def _segments(self, row: tirx.Expr) -> tirx.Stmt:
        """One row cut into segments, :data:`CHAINS` for each core; the few elements left over come last."""
        count = CHAINS * self.cpu.cores
        begin = row * self.length
        size = self.analyzer.simplify(tirx.floordiv(self.length, count))
        starts = tirx.decl_buffer((count + 1,), self.dtype, "start", scope="global")
        zero = tirx.BufferStore(starts, tirx.const(0, self.dtype), [constant(0)])
        work = self.length * 2
        sums = self._parallel(constant(count), work, lambda s: self._segment_sum(starts, s, begin, size))
        add = lambda s: tirx.BufferStore(
            starts, tirx.BufferLoad(starts, [s]) + tirx.BufferLoad(starts, [s + 1]), [s + 1]
        )
        scanned = self._parallel(
            constant(self.cpu.cores),
            work,
            lambda core: self._chains(
                begin + core * (CHAINS * size),
                size,
                size,
                CHAINS,
                lambda chain: tirx.BufferLoad(starts, [core * CHAINS + chain]),
            ),
        )
        left = self.analyzer.simplify(self.length - size * count)
        last = self._chains(
            begin + size * count, left, left, 1, lambda _: tirx.BufferLoad(starts, [constant(count)])
        )
        prefix = for_loop(count, add, name="segment")
        return sequence([tirx.AllocBuffer(starts), zero, sums, prefix, scanned, last])

    def _segment_sum(
        self, starts: tirx.Buffer, segment: tirx.Expr, begin: tirx.Expr, size: tirx.Expr
    ) -> tirx.Stmt:
        """The sum of one segment, in vectors, into the place after its own."""
        lanes = 4 * max(2, self.cpu.vector_bits // 64)
        totals, allocation = self._totals(lanes)
        first = begin + segment * size
        add = lambda lane, place: tirx.BufferStore(
            totals, tirx.BufferLoad(totals, [lane]) + self._element(place), [lane]
        )
        whole = self.analyzer.simplify(tirx.floordiv(size, lanes))
        vectors = for_loop(
            whole,
            lambda i: for_loop(
                lanes, lambda lane: add(lane, first + i * lanes + lane), tirx.ForKind.VECTORIZED, name="lane"
            ),
            name="k",
        )
        rest = for_loop(
            self.analyzer.simplify(size - whole * lanes),
            lambda i: add(constant(0), first + whole * lanes + i),
            name="k",
        )
        total = tirx.BufferLoad(totals, [constant(0)])
        for lane in range(1, lanes):
            total = total + tirx.BufferLoad(totals, [constant(lane)])
        return sequence([*allocation, vectors, rest, tirx.BufferStore(starts, total, [segment + 1])])
