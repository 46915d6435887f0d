"""Running sums, products, extrema and their like: vectors across the axes behind the scanned one, else rows side by
side.

A running total is one chain of dependent operations. Over an axis that is not the last, every lane of a vector is a
chain of its own. Over the last one, four rows run interleaved; where rows are few and long, each is cut into segments
that are summed first and then scanned side by side, from the total of those before, on all cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tvm import sym, tirx

from torch_tvm.schedules.cpu.loops.producers.steps import PARALLEL_THRESHOLD
from torch_tvm.schedules.cpu.loops.program import CALL_COST, is_expensive, weight
from torch_tvm.schedules.scan_steps import ScanSteps, flat_view, read_steps
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import const, elements, flat_sequence, lanes_loop, loop, pieces, static
from torch_tvm.workloads.scan import ScanWorkload

CHAINS = 4
"""Rows or segments that one core scans side by side: as many additions as their latency leaves room for."""

SEGMENTED_LENGTH = 1024
"""Elements of a row from which on it is worth cutting."""

Body = Callable[[tirx.Expr], tirx.Stmt]


class Scan:
    """A kernel that :class:`ScanWorkload` describes: ``out[i, k, j] = f(out[i, k - 1, j], x[i, k, j])``.

    ``for k: out[i, k] = out[i, k - 1] + x[i, k]`` becomes ``parallel i: for k: vectorized j: total[j] += x[i, k, j];
    out[i, k, j] = total[j]`` with totals in registers, in the dtype that the scan accumulates in.
    """

    name = "scan"

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        workload = ScanWorkload.from_attr(func.attrs)
        if workload is None:
            raise Refusal("not a scan")
        axis = workload.axis
        source, *targets = [p for p in func.params if isinstance(p.ty, tirx.BufferType)]
        flat = {buffer: flat_view(buffer) for buffer in (source, *targets)}
        kernel = _Kernel(
            read_steps(func, source, workload.is_associative),
            flat[source],
            tuple(flat[target] for target in targets),
            before=elements(source.shape[:axis]),
            length=source.shape[axis],
            after=elements(source.shape[axis + 1 :]),
            cpu=cpu,
        )
        views = [tirx.DeclBuffer(view, data=buffer.data) for buffer, view in flat.items()]
        return func.with_body(flat_sequence([*views, kernel.body()])).without_attr(ScanWorkload.ATTRIBUTE)


def _cost(steps: ScanSteps) -> int:
    """Elementary operations for an element."""
    calls = sum(is_expensive(update) for update in steps.updates)
    return len(steps.updates) + sum(weight(update) for update in steps.updates) + CALL_COST * calls


@dataclass
class _Kernel:
    """``before`` rows of ``length`` by ``after`` elements, scanned along the middle."""

    steps: ScanSteps
    source: tirx.Buffer
    targets: tuple[tirx.Buffer, ...]
    before: tirx.Expr
    length: tirx.Expr
    after: tirx.Expr
    cpu: CpuModel
    analyzer: sym.Analyzer = field(default_factory=sym.Analyzer)

    def body(self) -> tirx.Stmt:
        if static(self.after) != 1:
            return self._columns()
        rows, length = static(self.before), static(self.length)
        is_few = rows is not None and rows < CHAINS * self.cpu.cores
        is_one = len(self.steps.totals) == 1
        may_cut = self.steps.is_associative and is_one and str(self.targets[0].dtype) != "float64"
        if is_few and may_cut and (length is None or length >= SEGMENTED_LENGTH):
            return loop("row", self.before, self._segments)
        return self._interleaved_rows()

    # --- pieces ------------------------------------------------------------------------------------

    def _totals(self, width: int, start: Callable[[tirx.Expr], tirx.Expr] | None = None) -> tuple:
        """Running totals for ``width`` chains, and the statements that allocate and start them."""
        buffers, statements = [], []
        for total, value in zip(self.steps.totals, self.steps.start, strict=True):
            buffer = tirx.decl_buffer((width,), str(total.dtype), "total", scope="global")
            first = start or (lambda _, value=value: value)
            fill = lambda i, b=buffer, f=first: tirx.BufferStore(b, f(i), [i])
            statements += [
                tirx.AllocBuffer(buffer),
                loop("chain", width, fill, kind="unrolled"),
            ]
            buffers.append(buffer)
        return buffers, statements

    def _take(self, totals: Sequence[tirx.Buffer], chain: tirx.Expr, place: tirx.Expr, k: tirx.Expr) -> tirx.Stmt:
        """Element ``k`` of ``chain``, which stands at ``place``."""
        place = self.analyzer.simplify(place)
        loads = [tirx.BufferLoad(total, [chain]) for total in totals]
        at = lambda expr: self.steps.at(expr, loads, tirx.BufferLoad(self.source, [place]), k)
        updates = [
            tirx.BufferStore(total, at(update), [chain])
            for total, update in zip(totals, self.steps.updates, strict=True)
        ]
        stores = [
            tirx.BufferStore(target, at(result), [place])
            for target, result in zip(self.targets, self.steps.results, strict=True)
        ]
        return flat_sequence([*updates, *stores])

    def _parallel(self, count: tirx.Expr, work: tirx.Expr, body: Body) -> tirx.Stmt:
        """``body`` for every number below ``count``, on all cores where ``work`` operations are worth it."""
        work, cores = self.analyzer.simplify(work), self.cpu.cores
        serial = lambda: loop("item", count, body)
        if cores == 1 or static(count) == 1 or (static(work) or PARALLEL_THRESHOLD) < PARALLEL_THRESHOLD:
            return serial()
        chunk = self.analyzer.simplify(tirx.floordiv(count + (cores - 1), cores))

        def task(number: tirx.Expr) -> tirx.Stmt:
            iterations = tirx.max(tirx.min(chunk, count - number * chunk), const(0))
            return loop("item", iterations, lambda i: body(number * chunk + i))

        threads = loop("task", cores, task, kind="parallel")
        if static(work) is not None:
            return threads
        return tirx.IfThenElse(work >= PARALLEL_THRESHOLD, threads, serial())

    # --- over an axis that is not the last ----------------------------------------------------------

    def _columns(self) -> tirx.Stmt:
        lanes = max(2, self.cpu.vector_bits // 32)
        statements: list[tirx.Stmt] = []
        done: tirx.Expr = const(0)
        for width in dict.fromkeys((2 * lanes, lanes, 1)):
            blocks = self.analyzer.simplify(tirx.floordiv(self.after - done, width))
            statements.append(self._column_blocks(done, blocks, width, lanes))
            done = self.analyzer.simplify(done + blocks * width)
        return flat_sequence(statements)

    def _column_blocks(self, first: tirx.Expr, blocks: tirx.Expr, width: int, lanes: int) -> tirx.Stmt:
        if static(blocks) == 0:
            return flat_sequence([])

        def block(number: tirx.Expr) -> tirx.Stmt:
            row = tirx.floordiv(number, blocks)
            column = first + tirx.floormod(number, blocks) * width
            totals, start = self._totals(width)

            def step(k: tirx.Expr) -> tirx.Stmt:
                base = (row * self.length + k) * self.after + column
                vectors = [
                    lanes_loop(size, lambda lane, o=offset: self._take(totals, lane + o, base + o + lane, k))
                    for offset, size in pieces(width, lanes)
                ]
                return flat_sequence(vectors)

            return flat_sequence([*start, loop("k", self.length, step)])

        count = self.analyzer.simplify(self.before * blocks)
        return self._parallel(count, count * width * self.length * _cost(self.steps), block)

    # --- over the last axis ---------------------------------------------------------------------------

    def _interleaved_rows(self) -> tirx.Stmt:
        blocks = self.analyzer.simplify(tirx.floordiv(self.before, CHAINS))
        rest = self.analyzer.simplify(self.before - blocks * CHAINS)
        return flat_sequence([self._row_blocks(const(0), blocks, CHAINS), self._row_blocks(blocks * CHAINS, rest, 1)])

    def _row_blocks(self, first: tirx.Expr, blocks: tirx.Expr, width: int) -> tirx.Stmt:
        if static(blocks) == 0:
            return flat_sequence([])

        def block(number: tirx.Expr) -> tirx.Stmt:
            begin = (first + number * width) * self.length
            return self._chains(begin, self.length, self.length, width)

        return self._parallel(blocks, blocks * width * self.length * 2 * _cost(self.steps), block)

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
        step = lambda k: flat_sequence(
            [self._take(totals, const(chain), begin + apart * chain + k, k) for chain in range(width)]
        )
        return flat_sequence([*allocation, loop("k", length, step)])

    def _segments(self, row: tirx.Expr) -> tirx.Stmt:
        """One row cut into segments, :data:`CHAINS` for each core; the few elements left over come last."""
        count = CHAINS * self.cpu.cores
        begin = row * self.length
        size = self.analyzer.simplify(tirx.floordiv(self.length, count))
        starts = tirx.decl_buffer((count + 1,), str(self.steps.totals[0].dtype), "start", scope="global")
        zero = tirx.BufferStore(starts, self.steps.start[0], [const(0)])
        work = self.length * _cost(self.steps)
        sums = self._parallel(const(count), work, lambda s: self._segment_sum(starts, s, begin, size))
        add = lambda s: tirx.BufferStore(
            starts, self._added(tirx.BufferLoad(starts, [s]), tirx.BufferLoad(starts, [s + 1])), [s + 1]
        )
        scanned = self._parallel(
            const(self.cpu.cores),
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
        last = self._chains(begin + size * count, left, left, 1, lambda _: tirx.BufferLoad(starts, [const(count)]))
        prefix = loop("segment", count, add)
        return flat_sequence([tirx.AllocBuffer(starts), zero, sums, prefix, scanned, last])

    def _added(self, total: tirx.Expr, element: tirx.Expr) -> tirx.Expr:
        return self.steps.at(self.steps.updates[0], [total], element, const(0))

    def _segment_sum(self, starts: tirx.Buffer, segment: tirx.Expr, begin: tirx.Expr, size: tirx.Expr) -> tirx.Stmt:
        """The sum of one segment, in vectors, into the place after its own."""
        lanes = 4 * max(2, self.cpu.vector_bits // 64)
        (totals,), allocation = self._totals(lanes)
        first = begin + segment * size
        element = lambda place: tirx.BufferLoad(self.source, [self.analyzer.simplify(place)])
        add = lambda lane, place: tirx.BufferStore(
            totals, self._added(tirx.BufferLoad(totals, [lane]), element(place)), [lane]
        )
        first_total = tirx.BufferLoad(totals, [const(0)])
        fold = lambda lane: tirx.BufferStore(
            totals, self._added(first_total, tirx.BufferLoad(totals, [lane])), [const(0)]
        )
        whole = self.analyzer.simplify(tirx.floordiv(size, lanes))
        vectors = loop("k", whole, lambda i: lanes_loop(lanes, lambda lane: add(lane, first + i * lanes + lane)))
        rest = loop(
            "k",
            self.analyzer.simplify(size - whole * lanes),
            lambda i: add(const(0), first + whole * lanes + i),
        )
        folded = loop("lane", lanes - 1, lambda i: fold(i + 1))
        end = tirx.BufferStore(starts, tirx.BufferLoad(totals, [const(0)]), [segment + 1])
        return flat_sequence([*allocation, vectors, rest, folded, end])
