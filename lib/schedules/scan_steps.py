"""What the loop of a kernel that :class:`ScanWorkload` describes does for one element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad, Var

from torch_tvm.tir import elements


@dataclass(frozen=True)
class ScanSteps:
    """One iteration of the loop over ``k``: ``totals`` begin as ``start`` and become ``updates``; ``results`` are
    stored.

    ``is_associative`` says that the totals of some elements may stand for them: see :meth:`joined`.
    """

    source: tirx.Buffer
    k: Var
    totals: tuple[tirx.Buffer, ...]
    start: tuple[tirx.Expr, ...]
    updates: tuple[tirx.Expr, ...]
    results: tuple[tirx.Expr, ...]
    is_associative: bool

    def at(self, expr: tirx.Expr, totals: Sequence[tirx.Expr], element: tirx.Expr, k: tirx.Expr) -> tirx.Expr:
        """``expr`` with the totals, the element and its number along the axis in their places."""

        def visit(load: TensorLoad, _: object) -> tirx.Expr:
            if load.source.same_as(self.source):
                return element
            return next(t for b, t in zip(self.totals, totals, strict=True) if b.same_as(load.source))

        return tvm_ffi.structural_mutate(
            expr, [(TensorLoad, visit), (Var, lambda var, _: k if var.same_as(self.k) else var)]
        )

    def joined(self, update: tirx.Expr, totals: Sequence[tirx.Expr], others: Sequence[tirx.Expr]) -> tirx.Expr:
        """``update`` with the totals of what follows: the last stands for an element, the first for its number."""
        return self.at(update, totals, others[-1], others[0])


def read_steps(func: tirx.PrimFunc, source: tirx.Buffer, is_associative: bool) -> ScanSteps:
    """What the kernel's own loop does: each total is stored once before it and once in it."""
    stores: list[tirx.BufferStore] = []
    loops: list[tirx.For] = []
    tvm_ffi.structural_walk(func.body, [(tirx.BufferStore, stores.append), (tirx.For, loops.append)])
    (k,) = [loop.loop_var for loop in loops if loop.kind == tirx.ForKind.SERIAL]
    local = [store for store in stores if store.buffer not in func.params]
    half = len(local) // 2
    by_buffer = lambda buffer: next(s.value for s in local[:half] if s.buffer.same_as(buffer))
    totals = tuple(store.buffer for store in local[half:])
    start = tuple(by_buffer(buffer) for buffer in totals)
    results = tuple(store.value for store in stores if store.buffer in func.params)
    updates = tuple(store.value for store in local[half:])
    return ScanSteps(source, k, totals, start, updates, results, is_associative)


def flat_view(buffer: tirx.Buffer) -> tirx.Buffer:
    """The elements of a buffer one after the other."""
    return tirx.decl_buffer((elements(buffer.shape),), str(buffer.dtype), f"{buffer.name}_flat")


__all__ = ["ScanSteps", "flat_view", "read_steps"]
