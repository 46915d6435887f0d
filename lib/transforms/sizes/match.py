"""One spelling of a size in the kernels that are fused: FuseTIR takes ``n // 2 + 3`` and ``n // 2 + 1 + 2`` for two."""

from __future__ import annotations

from collections.abc import Iterator

import tvm
import tvm_ffi
from tvm import relax, sym, tirx
from tvm.ir import Expr, Var
from tvm.tirx.buffer import is_buffer_var

from torch_tvm.tir import buffer_like, static_shape, substitute, with_buffers
from torch_tvm.transforms.base import Level, Transform


class MatchSizes(Transform):
    """In a fused function a kernel has the sizes of an operand as the operand's type does; it comes before FuseTIR::

    lv: Tensor((n // 2 + 3,)) = pad(x)               lv: Tensor((n // 2 + 3,)) = pad(x)
    add(Buffer((n // 2 + 1 + 2,)), …)          →     add(Buffer((n // 2 + 3,)), …)
    """

    level = Level.FUSION

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        changed: dict[tvm.ir.GlobalVar, tirx.PrimFunc] = {}
        for function in mod.functions.values():
            for gvar, operands in _fused_calls(function):
                kernel = changed.get(gvar, mod[gvar])
                if isinstance(kernel, tirx.PrimFunc):
                    changed[gvar] = _matched(kernel, operands)
        changed = {gvar: kernel for gvar, kernel in changed.items() if not kernel.same_as(mod[gvar])}
        if not changed:
            return mod
        return tvm.IRModule({**dict(mod.functions_items()), **changed}, attrs=mod.attrs)


def _fused_calls(function: tvm.ir.BaseFunc) -> Iterator[tuple[tvm.ir.GlobalVar, list[Expr]]]:
    """The kernels that a fused function calls, with their operands."""
    if not isinstance(function, relax.Function) or not function.attrs or "Primitive" not in function.attrs:
        return
    for block in function.body.blocks:
        for binding in block.bindings:
            call = getattr(binding, "value", None)
            if isinstance(call, relax.Call) and getattr(call.op, "name", "") == "relax.call_tir":
                yield call.args[0], list(call.args[1])


def _matched(kernel: tirx.PrimFunc, operands: list[Expr]) -> tirx.PrimFunc:
    pairs = list(zip(kernel.params, operands, strict=False))
    tensors = [(p, v) for p, v in pairs if is_buffer_var(p) and _has_unknown_sizes(v) and not len(p.strides)]
    if not tensors:
        return kernel
    names = {value: param for param, value in pairs if not is_buffer_var(param) and isinstance(value, Var)}
    for param, value in tensors:
        names |= {b: a for a, b in zip(param.shape, value.ty.shape, strict=True) if {type(a), type(b)} == {Var}}
    analyzer = sym.Analyzer()
    renamed: dict[Var, Var] = {}
    for param, value in tensors:
        shape = [substitute(size, names) for size in value.ty.shape]
        same = lambda a, b: tvm_ffi.structural_equal(analyzer.simplify(a), analyzer.simplify(b))
        if tvm_ffi.structural_equal(shape, list(param.shape)) or not all(map(same, shape, param.shape)):
            continue
        renamed[param] = buffer_like(param, shape=shape, layout=None if param.ty.layout is None else "default")
    return with_buffers(kernel, renamed) if renamed else kernel


def _has_unknown_sizes(value: Expr) -> bool:
    is_told = isinstance(value.ty, relax.TensorType) and isinstance(value.ty.shape, relax.ShapeExpr)
    return is_told and static_shape(value) is None


__all__ = ["MatchSizes"]
