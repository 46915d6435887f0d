"""What an expression reads and names, and the same with other variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var


def substitute(expr: Any, mapping: Mapping[Var, Expr]) -> Any:
    """``expr`` with variables replaced."""
    return tvm_ffi.structural_map(expr, (Var, lambda var: mapping.get(var, var)))


def buffer_like(buffer: tirx.Buffer, **changes: Any) -> tirx.Buffer:
    """A buffer as ``buffer``, but for ``changes`` of what ``tirx.decl_buffer`` takes."""
    kept = {
        "shape": buffer.shape,
        "dtype": str(buffer.dtype),
        "name": buffer.name,
        "strides": buffer.strides,
        "elem_offset": buffer.elem_offset,  # without it a factor makes a variable that nothing binds
        "data_alignment": buffer.data_alignment,
        "offset_factor": buffer.offset_factor,
    }
    return tirx.decl_buffer(**{**kept, **changes})


def with_buffers(func: tirx.PrimFunc, mapping: Mapping[Var, Var]) -> tirx.PrimFunc:
    """``func`` with other buffers for some of its parameters."""
    params = [mapping.get(param, param) for param in func.params]
    return tirx.PrimFunc(params, substitute(func.body, mapping), func.ret_type, func.attrs)


def loads(*parts: Expr | tirx.Stmt) -> list[TensorLoad]:
    """Every load in expressions and statements, inner ones first."""
    found: list[TensorLoad] = []
    for part in parts:
        tvm_ffi.structural_walk(part, (TensorLoad, found.append))
    return found


def variables(expr: Expr) -> set[Var]:
    """All variables in ``expr``, buffers included."""
    found: set[Var] = set()
    tvm_ffi.structural_walk(expr, (Var, found.add))
    return found


def uses(expr: Expr, wanted: Sequence[Var]) -> bool:
    """Whether one of the variables ``wanted`` appears in ``expr``."""
    return not variables(expr).isdisjoint(wanted)


def broadcast(value: Expr, lanes: int) -> Expr:
    """A vector of ``lanes`` copies."""
    return tirx.Broadcast(value, lanes) if lanes > 1 else value
