"""How many floating-point operations a scheduled kernel executes, read from its TIR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, sym, tirx
from tvm.ir import TensorLoad, Var

from torch_tvm.support.attributes import HIDDEN
from torch_tvm.tir import is_float

_ARITHMETIC = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Max, tirx.Min)


def count_operations(func: tirx.PrimFunc, shapes: Sequence[Sequence[int]]) -> float:
    """Floating-point operations of one call whose tensor arguments have these shapes.

    A fused multiply-add counts as two, a vector as its lanes, a library function as one. Where an extent or a
    condition depends on a loop variable, it is taken in the middle of that loop, as if tails and borders were like the
    rest.
    """
    sizes: dict[Any, int] = {}
    buffers = [param for param in func.params if isinstance(param.ty, tirx.BufferType)]
    for buffer, shape in zip(buffers, shapes, strict=False):
        for declared, size in zip(buffer.shape, shape, strict=False):
            if isinstance(declared, tirx.Var):
                sizes.setdefault(declared, int(size))
    return _Counter(sizes).statement(func.body)


class _Counter:
    """Walks statements with the values of the variables that are known."""

    def __init__(self, values: Mapping[Any, int]) -> None:
        self._values = {var: tirx.const(value, str(var.ty.dtype)) for var, value in values.items()}
        self._chunks: dict[Any, tirx.IntImm] = {}
        self._threads = 1
        self._analyzer = sym.Analyzer()

    def statement(self, node: Any) -> float:
        if isinstance(node, tirx.SeqStmt):
            return sum(self.statement(part) for part in node.seq)
        if isinstance(node, tirx.For):
            extent, first = self._value(node.extent), self._value(node.min) or 0
            middle = first + (extent or 0) // 2
            self._values[node.loop_var] = tirx.const(middle, str(node.loop_var.ty.dtype))
            if node.kind == tirx.ForKind.PARALLEL:
                self._threads = extent or 1
            return (1 if extent is None else max(0, extent)) * self.statement(node.body)
        if isinstance(node, tirx.While):
            return self._chunk(node)
        if isinstance(node, tirx.IfThenElse):
            return self._branches(node)
        if isinstance(node, tirx.Bind):
            value = self._value(node.value) if _is_integer(node.value) else None
            if value is not None:
                self._values[node.var] = tirx.const(value, str(node.var.ty.dtype))
            return _of_expression(node.value)
        if isinstance(node, s_tir.SBlockRealize):
            for axis, value in zip(node.block.iter_vars, node.iter_values, strict=True):
                self._values[axis.var] = value
            return self.statement(node.block.body)
        if isinstance(node, (tirx.BufferStore, tirx.Evaluate)):
            return _of_expression(node.value)
        return self.statement(node.body) if hasattr(node, "body") else 0.0

    def _chunk(self, node: tirx.While) -> float:
        """``while chunk < chunks``: all threads together take every chunk once, and each is like the one amid them."""
        chunks = self._value(node.condition.b) or 1
        self._chunks[node.condition.a.source] = tirx.const(chunks // 2, "int32")
        return chunks / self._threads * self.statement(node.body)

    def _branches(self, node: tirx.IfThenElse) -> float:
        condition = self._value(node.condition)
        taken = self.statement(node.then_case) if condition != 0 else 0.0
        other = self.statement(node.else_case) if node.else_case is not None and not condition else 0.0
        return max(taken, other)

    def _value(self, expr: Any) -> int | None:
        if isinstance(expr, tirx.IntImm):
            return int(expr)
        if isinstance(expr, int):
            return expr
        known = [
            (Var, lambda var: self._values.get(var, var)),
            (tvm.ir.Call, _shown),
            (TensorLoad, lambda load: self._chunks.get(load.source, load)),
        ]
        for _ in range(8):
            expr = self._analyzer.simplify(tvm_ffi.structural_map(expr, known))
            if isinstance(expr, tirx.IntImm):
                return int(expr)
        return None


def _shown(call: tvm.ir.Call) -> Any:
    """The count behind a call that hides it from LLVM."""
    is_hidden = isinstance(call.args[0], tvm.ir.StringImm) and call.args[0].value == HIDDEN
    return call.args[1] if is_hidden else call


def _is_integer(expr: Any) -> bool:
    return str(getattr(expr.ty, "dtype", "")).startswith(("int", "uint", "bool"))


def _of_expression(expr: Any) -> float:
    total = 0.0

    def arithmetic(node: Any) -> None:
        nonlocal total
        total += _lanes(node)

    def call(node: Any) -> None:
        nonlocal total
        name = getattr(node.op, "name", "")
        total += 2 * _lanes(node) if name == "tirx.fma" else 0 if name in _FREE else _lanes(node)

    tvm_ffi.structural_walk(expr, [(_ARITHMETIC, arithmetic), (tvm.ir.Call, call)])
    return total


_FREE = {"tirx.if_then_else", "tirx.reinterpret", "tirx.likely", "tirx.isnan", "tirx.isinf"}


def _lanes(node: Any) -> int:
    """Lanes of a floating value, 0 for others."""
    dtype = str(getattr(node.ty, "dtype", ""))
    return tvm.DataType(dtype).lanes if is_float(dtype) else 0


__all__ = ["count_operations"]
