"""Binary search, one step after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import tvm
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.script import allocate

Scalar: TypeAlias = tvm.ir.Expr


def first_where(holds: Callable[[Scalar], Scalar], begin: Any, end: Any, scope: str = "global") -> Scalar:
    """The first position from ``begin`` on where a condition holds that holds from there on; ``end`` where none does.

    The steps are those of ATen's ``cus_lower_bound``, so that a condition that comes and goes gives the same position.
    """
    bounds = allocate(2, "int64", scope)
    bounds[0], bounds[1] = begin, end
    with T.While(bounds[0] < bounds[1]):
        middle = tirx.floordiv(bounds[0] + bounds[1], 2)
        with T.If(holds(middle)):
            with T.Then():
                bounds[1] = middle
            with T.Else():
                bounds[0] = middle + 1
    return bounds[0]


__all__ = ["first_where"]
