"""Running sums and extrema along few long lines: many threads take a part of a line each.

    for line: for k: total += A[line, k]; C[line, k] = total

becomes

    for line, part, on threads: totals[line, part] = sum of the part
    for line, on threads: totals[line] = what comes before each part
    for line, part, on threads: for k in the part: totals[line, part] += A[line, k]; C[line, k] = totals[line, part]

Each line of many is a thread's: see :mod:`torch_tvm.schedules.gpu.plain_loops`. Products are not cut, as that of a part may
overflow where that of the whole is 0.
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
        kernel = _Kernel(steps, source, tuple(targets), axis, part)
        return bind_plain_loops(func.with_body(kernel.body()).without_attr(ScanWorkload.ATTRIBUTE), gpu)


@dataclass(frozen=True)
class _Kernel:
    """``part`` are the elements that a thread takes of a line along ``axis``."""

    steps: ScanSteps
    source: tirx.Buffer
    targets: tuple[tirx.Buffer, ...]
    axis: int
    part: int

    def body(self) -> tirx.Stmt:
        shape = self.source.shape
        before, after, length = (
            elements(shape[: self.axis]),
            elements(shape[self.axis + 1 :]),
            shape[self.axis],
        )
        parts = ceil_div(length, self.part)
        views = {buffer: flat_view(buffer) for buffer in (self.source, *self.targets)}
        source, targets = views[self.source], [views[target] for target in self.targets]
        kinds = [str(total.dtype) for total in self.steps.totals]
        ends = [tirx.decl_buffer((before * parts * after,), kind, "ends") for kind in kinds]

        def in_part(task: Expr, totals: list[tirx.Buffer], stores: bool) -> tirx.Stmt:
            """The elements of one part in order, and its totals after each of them where they are stored."""
            row, part = tirx.floordiv(task, parts * after), tirx.floormod(tirx.floordiv(task, after), parts)
            column, first = tirx.floormod(task, after), part * self.part

            def step(i: Expr) -> tirx.Stmt:
                place = (row * length + first + i) * after + column
                element = tirx.BufferLoad(source, [place])
                return self._updated(totals, (element, first + i), targets if stores else [], place)

            return loop("k", tirx.min(const(self.part), length - first), step)

        def summed(task: Expr) -> tirx.Stmt:
            totals, fresh = self._totals(self.steps.start)
            return flat_sequence([*fresh, in_part(task, totals, False), *_copied(totals, ends, task)])

        def before_each(line: Expr) -> tirx.Stmt:
            totals, fresh = self._totals(self.steps.start)
            here, room = self._totals(self.steps.start)
            row, column = tirx.floordiv(line, after), tirx.floormod(line, after)

            def step(part: Expr) -> tirx.Stmt:
                at = (row * parts + part) * after + column
                kept = [
                    tirx.BufferStore(h, tirx.BufferLoad(e, [at]), [const(0)])
                    for h, e in zip(here, ends, strict=True)
                ]
                return flat_sequence([*kept, *_copied(totals, ends, at), self._joined(totals, here)])

            return flat_sequence([*fresh, *room, loop("part", parts, step)])

        def scanned(task: Expr) -> tirx.Stmt:
            totals, fresh = self._totals([tirx.BufferLoad(end, [task]) for end in ends])
            return flat_sequence([*fresh, in_part(task, totals, True)])

        return flat_sequence(
            [
                *(tirx.DeclBuffer(view, data=buffer.data) for buffer, view in views.items()),
                *(tirx.AllocBuffer(end) for end in ends),
                _launch("task", before * parts * after, summed),
                _launch("line", before * after, before_each),
                _launch("task", before * parts * after, scanned),
            ]
        )

    def _totals(self, start: Sequence[Expr]) -> tuple[list[tirx.Buffer], list[tirx.Stmt]]:
        """Totals of a thread, and the statements that make and start them."""
        kinds = [str(total.dtype) for total in self.steps.totals]
        buffers = [tirx.decl_buffer((1,), kind, "total", scope="local") for kind in kinds]
        stores = [
            tirx.BufferStore(buffer, value, [const(0)]) for buffer, value in zip(buffers, start, strict=True)
        ]
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
            tirx.BufferStore(t, at(update), [const(0)])
            for t, update in zip(totals, self.steps.updates, strict=True)
        ]
        written = zip(targets, self.steps.results, strict=True) if targets else ()
        results = [tirx.BufferStore(target, at(result), [place]) for target, result in written]
        return flat_sequence([*stores, *results])

    def _joined(self, totals: Sequence[tirx.Buffer], others: Sequence[tirx.Buffer]) -> tirx.Stmt:
        mine, theirs = ([tirx.BufferLoad(buffer, [const(0)]) for buffer in each] for each in (totals, others))
        joined = [self.steps.joined(update, mine, theirs) for update in self.steps.updates]
        return flat_sequence(
            [tirx.BufferStore(t, value, [const(0)]) for t, value in zip(totals, joined, strict=True)]
        )


def _launch(name: str, count: Expr, body: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
    """A parallel loop, also where it has one turn."""
    var = tirx.Var(name, INDEX)
    return tirx.For(var, const(0), count, tirx.ForKind.PARALLEL, body(var))


def _copied(totals: Sequence[tirx.Buffer], ends: Sequence[tirx.Buffer], at: Expr) -> list[tirx.Stmt]:
    return [
        tirx.BufferStore(end, tirx.BufferLoad(t, [const(0)]), [at])
        for t, end in zip(totals, ends, strict=True)
    ]


__all__ = ["Scan"]
