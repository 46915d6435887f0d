"""Loops and sequences of statements, made with functions for their bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tvm import sym, tirx
from tvm.ir import Expr, Range, Var
from tvm.tirx.stmt import ForKind

from torch_tvm.tir.expressions import substitute
from torch_tvm.tir.sizes import INDEX, SizeLike, as_size, const, static

KINDS = {
    "serial": ForKind.SERIAL,
    "parallel": ForKind.PARALLEL,
    "vectorized": ForKind.VECTORIZED,
    "unrolled": ForKind.UNROLLED,
}

Body = Callable[[Expr], tirx.Stmt]

Point = dict[Var, Expr]
"""Values for variables, most of them axes."""


@dataclass(frozen=True)
class Axis:
    """A loop variable and its extent (from 0, maybe symbolic)."""

    var: Var
    extent: Expr

    @property
    def size(self) -> int | None:
        """The constant extent, or None when it is symbolic."""
        return static(self.extent)


def analyzer_for(axes: Iterable[Axis]) -> sym.Analyzer:
    """An analyzer that knows the ranges of ``axes``."""
    analyzer = sym.Analyzer()
    for axis in axes:
        analyzer.bind(axis.var, Range(const(0), axis.extent))
    return analyzer


def unflatten(position: Expr, axes: Sequence[Axis]) -> Point:
    """The value of each axis at a position in their row-major product."""
    values: Point = {axis.var: const(0) for axis in axes if axis.size == 1}
    kept = [axis for axis in axes if axis.size != 1]
    for axis in reversed(kept[1:]):
        values[axis.var] = position % axis.extent
        position = position // axis.extent
    if kept:
        values[kept[0].var] = position
    return values


def sequence(*stmts: tirx.Stmt | None) -> tirx.Stmt:
    """The statements one after the other (None is skipped); what a sequence among them allocates ends with it."""
    kept = [stmt for stmt in stmts if stmt is not None]
    if not kept:
        return tirx.Evaluate(const(0))
    return kept[0] if len(kept) == 1 else tirx.SeqStmt(kept)


def flat_sequence(stmts: Iterable[tirx.Stmt]) -> tirx.Stmt:
    """The same with sequences among ``stmts`` taken apart: what they allocate is there for all that follows."""
    return sequence(*(part for stmt in stmts for part in (stmt.seq if isinstance(stmt, tirx.SeqStmt) else [stmt])))


def statements(body: tirx.Stmt) -> Iterator[tirx.Stmt]:
    """The statements of a sequence and of sequences in it, in order; ``body`` itself where it is none."""
    if isinstance(body, tirx.SeqStmt):
        for statement in body.seq:
            yield from statements(statement)
    else:
        yield body


def loop(name: str, extent: SizeLike, body: Body, *, start: SizeLike = 0, kind: str = "serial") -> tirx.Stmt:
    """``for name in range(start, start + extent)``; a loop of one iteration is its body, one of none is nothing."""
    iterations = static(extent)
    if iterations == 0:
        return sequence()
    if iterations == 1:
        return body(as_size(start))
    var = tirx.Var(name, INDEX)
    return tirx.For(var, as_size(start), as_size(extent), KINDS[kind], body(var))


def lanes_loop(lanes: SizeLike, body: Body) -> tirx.Stmt:
    """A loop over the lanes of one vector."""
    return loop("lane", lanes, body, kind="vectorized")


def nest(axes: Sequence[Axis], mapping: Point, body: Callable[[Point], tirx.Stmt]) -> tirx.Stmt:
    """Serial loops over ``axes`` around ``body``, which gets ``mapping`` extended by the loop variables."""
    if not axes:
        return body(mapping)
    first, *rest = axes
    inner = lambda var: nest(rest, {**mapping, first.var: var}, body)
    return loop(first.var.name, substitute(first.extent, mapping), inner)


def when(condition: Expr | bool | None, then: tirx.Stmt, otherwise: tirx.Stmt | None = None) -> tirx.Stmt:
    """``if condition``; None or True runs ``then`` unconditionally."""
    if condition is None or condition is True:
        return then
    return tirx.IfThenElse(condition, then, otherwise)


def select_case(which: Expr, bounds: Sequence[int], cases: Sequence[Body]) -> tirx.Stmt:
    """Run ``cases[k]`` with ``which - bounds[k]`` for the k with ``bounds[k] <= which < bounds[k + 1]``."""
    result = cases[-1](which - const(bounds[-1]) if bounds[-1] else which)
    for bound, start, case in reversed(list(zip(bounds[1:], bounds[:-1], cases[:-1], strict=True))):
        result = tirx.IfThenElse(which < const(bound), case(which - const(start) if start else which), result)
    return result
