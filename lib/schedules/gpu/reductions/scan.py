"""Running sums and extrema along few long lines: many threads take a part of a line each.

    for line: for k: total += A[line, k]; C[line, k] = total

becomes

    for line, part, on threads: totals[line, part] = sum of the part
    for line, on threads: totals[line] = what comes before each part
    for line, part, on threads: for k in the part: totals[line, part] += A[line, k]; C[line, k] = totals[line, part]

Each line of many is a thread's: see :mod:`torch_tvm.schedules.gpu.plain_loops`. Products are not cut, as that of a part
may overflow where that of the whole is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from torch_tvm.schedules.gpu.model import GpuModel
from torch_tvm.schedules.gpu.plain_loops import bind_plain_loops
from torch_tvm.schedules.scan_steps import ScanSteps, flat_view, read_steps
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import INDEX, ceil_div, const, elements, flat_sequence, loop, static
from torch_tvm.workloads.scan import ScanWorkload

SHORT = 256
"""Elements of a line that are left to one thread."""

UNKNOWN_PART = 512
"""Elements of a part of a line whose length nobody knows."""


class Scan:
    """The rule for kernels that :class:`ScanWorkload` describes."""

    name = "scan"

    def apply(self, func: tirx.PrimFunc, gpu: GpuModel) -> tirx.PrimFunc:
        workload = ScanWorkload.from_attr(func.attrs)
        if workload is None:
            raise Refusal("not a scan")
        if not workload.is_associative:
            raise Refusal("the total of a part does not stand for its elements")
        source, *targets = [param for param in func.params if isinstance(param.ty, tirx.BufferType)]
        axis, shape = workload.axis, source.shape
        length, lines = static(shape[axis]), static(elements([*shape[:axis], *shape[axis + 1 :]]))
        if length is not None and length < SHORT:
            raise Refusal(f"lines of fewer than {SHORT} elements")
        if lines is not None and lines >= gpu.blocks * gpu.threads:
            raise Refusal("lines enough for a thread each")
        steps = read_steps(func, source, workload.is_associative)
        part = UNKNOWN_PART if length is None else max(16, math.isqrt(length))
        body = _kernel(steps, source, targets, axis, part)
        return bind_plain_loops(func.with_body(body).without_attr(ScanWorkload.ATTRIBUTE), gpu)


def _kernel(steps: ScanSteps, source: tirx.Buffer, targets: Sequence[tirx.Buffer], axis: int, part: int) -> tirx.Stmt:
    """``part`` are the elements that a thread takes of a line along ``axis``."""
    shape = source.shape
    before, after, length = elements(shape[:axis]), elements(shape[axis + 1 :]), shape[axis]
    count = before * ceil_div(length, part) * after
    views = {buffer: flat_view(buffer) for buffer in (source, *targets)}
    ends = [tirx.decl_buffer((count,), str(total.dtype), "ends") for total in steps.totals]
    flat = [views[target] for target in targets]
    parts = _Parts(steps, views[source], flat, ends, after, length, part)
    return flat_sequence(
        [
            *(tirx.DeclBuffer(view, data=buffer.data) for buffer, view in views.items()),
            *(tirx.AllocBuffer(end) for end in ends),
            _launch("task", count, parts.summed),
            _launch("line", before * after, parts.before_each),
            _launch("task", count, parts.scanned),
        ]
    )


@dataclass(frozen=True)
class _Parts:
    """What a thread does with a part of a line: ``part`` elements of ``length``, which lie ``after`` apart.

    ``source`` and ``targets`` are flat; ``ends`` hold the totals of each part, and then those before it.
    """

    steps: ScanSteps
    source: tirx.Buffer
    targets: Sequence[tirx.Buffer]
    ends: Sequence[tirx.Buffer]
    after: Expr
    length: Expr
    part: int

    @property
    def count(self) -> Expr:
        return ceil_div(self.length, self.part)

    def summed(self, task: Expr) -> tirx.Stmt:
        totals, fresh = self._totals(self.steps.start)
        return flat_sequence([*fresh, self._in_part(task, totals, ()), *_copied(totals, self.ends, task)])

    def before_each(self, line: Expr) -> tirx.Stmt:
        totals, fresh = self._totals(self.steps.start)
        here, room = self._totals(self.steps.start)
        row, column = tirx.floordiv(line, self.after), tirx.floormod(line, self.after)

        def step(part: Expr) -> tirx.Stmt:
            at = (row * self.count + part) * self.after + column
            kept = [
                tirx.BufferStore(h, tirx.BufferLoad(e, [at]), [const(0)]) for h, e in zip(here, self.ends, strict=True)
            ]
            return flat_sequence([*kept, *_copied(totals, self.ends, at), self._joined(totals, here)])

        return flat_sequence([*fresh, *room, loop("part", self.count, step)])

    def scanned(self, task: Expr) -> tirx.Stmt:
        totals, fresh = self._totals([tirx.BufferLoad(end, [task]) for end in self.ends])
        return flat_sequence([*fresh, self._in_part(task, totals, self.targets)])

    def _in_part(self, task: Expr, totals: list[tirx.Buffer], targets: Sequence[tirx.Buffer]) -> tirx.Stmt:
        """The elements of one part in order, and its totals after each of them, stored to ``targets``."""
        row = tirx.floordiv(task, self.count * self.after)
        part = tirx.floormod(tirx.floordiv(task, self.after), self.count)
        column, first = tirx.floormod(task, self.after), part * self.part

        def step(i: Expr) -> tirx.Stmt:
            place = (row * self.length + first + i) * self.after + column
            element = tirx.BufferLoad(self.source, [place])
            return self._updated(totals, (element, first + i), targets, place)

        return loop("k", tirx.min(const(self.part), self.length - first), step)

    def _totals(self, start: Sequence[Expr]) -> tuple[list[tirx.Buffer], list[tirx.Stmt]]:
        """Totals of a thread, and the statements that make and start them."""
        kinds = [str(total.dtype) for total in self.steps.totals]
        buffers = [tirx.decl_buffer((1,), kind, "total", scope="local") for kind in kinds]
        stores = [tirx.BufferStore(buffer, value, [const(0)]) for buffer, value in zip(buffers, start, strict=True)]
        return buffers, [*map(tirx.AllocBuffer, buffers), *stores]

    def _updated(
        self,
        totals: Sequence[tirx.Buffer],
        element: tuple[Expr, Expr],
        targets: Sequence[tirx.Buffer],
        place: Expr,
    ) -> tirx.Stmt:
        """The totals with an element, given with its number, and what is stored of them at its place."""
        loads = [tirx.BufferLoad(total, [const(0)]) for total in totals]
        at = lambda expr: self.steps.at(expr, loads, *element)
        stores = [
            tirx.BufferStore(t, at(update), [const(0)]) for t, update in zip(totals, self.steps.updates, strict=True)
        ]
        written = zip(targets, self.steps.results, strict=True) if targets else ()
        results = [tirx.BufferStore(target, at(result), [place]) for target, result in written]
        return flat_sequence([*stores, *results])

    def _joined(self, totals: Sequence[tirx.Buffer], others: Sequence[tirx.Buffer]) -> tirx.Stmt:
        mine, theirs = ([tirx.BufferLoad(buffer, [const(0)]) for buffer in each] for each in (totals, others))
        joined = [self.steps.joined(update, mine, theirs) for update in self.steps.updates]
        return flat_sequence([tirx.BufferStore(t, value, [const(0)]) for t, value in zip(totals, joined, strict=True)])


def _launch(name: str, count: Expr, body: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
    """A parallel loop, also where it has one iteration."""
    var = tirx.Var(name, INDEX)
    return tirx.For(var, const(0), count, tirx.ForKind.PARALLEL, body(var))


def _copied(totals: Sequence[tirx.Buffer], ends: Sequence[tirx.Buffer], at: Expr) -> list[tirx.Stmt]:
    return [tirx.BufferStore(end, tirx.BufferLoad(t, [const(0)]), [at]) for t, end in zip(totals, ends, strict=True)]


__all__ = ["Scan"]
