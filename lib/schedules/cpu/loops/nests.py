"""Loops and sequences of statements, made with functions for their bodies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.ir import Var

from torch_tvm.schedules.cpu.loops.program import Axis, constant, substitute

Mapping = dict[Var, tirx.Expr]


def sequence(statements: Sequence[tirx.Stmt]) -> tirx.Stmt:
    """One statement for several (or for none); sequences in it are flattened, so their allocations stay
    visible."""
    flat: list[tirx.Stmt] = []
    for statement in statements:
        flat.extend(statement.seq if isinstance(statement, tirx.SeqStmt) else [statement])
    if not flat:
        return tirx.Evaluate(constant(0))
    return flat[0] if len(flat) == 1 else tirx.SeqStmt(flat)


def for_loop(
    extent: tirx.Expr | int,
    body: Callable[[Var], tirx.Stmt],
    kind: tirx.ForKind = tirx.ForKind.SERIAL,
    name: str = "i",
) -> tirx.Stmt:
    """``for name in range(extent): body(name)``; a loop of one turn is its body."""
    extent = constant(extent) if isinstance(extent, int) else extent
    if isinstance(extent, tirx.IntImm) and int(extent) == 1:
        return body(constant(0))
    if isinstance(extent, tirx.IntImm) and int(extent) == 0:
        return sequence([])
    var = Var(name, "int64")
    return tirx.For(var, constant(0), extent, kind, body(var))


def nest(axes: Sequence[Axis], mapping: Mapping, body: Callable[[Mapping], tirx.Stmt]) -> tirx.Stmt:
    """Serial loops over ``axes`` around ``body``, which gets ``mapping`` extended by the loop variables."""
    if not axes:
        return body(mapping)
    first, *rest = axes
    inner = lambda var: nest(rest, {**mapping, first.var: var}, body)
    return for_loop(substitute(first.extent, mapping), inner, name=first.var.name)


def pieces(width: int, lanes: int, together: int = 1) -> list[tuple[int, int]]:
    """``width`` elements as (offset, lanes) vectors, the last one narrower if need be.

    ``together`` vectors are one piece as long as there are so many.
    """
    whole = width // (lanes * together) * lanes * together
    return [
        *((begin, lanes * together) for begin in range(0, whole, lanes * together)),
        *((begin, min(lanes, width - begin)) for begin in range(whole, width, lanes)),
    ]
