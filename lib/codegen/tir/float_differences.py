"""Differences of floats that TVM's simplifier leaves as they are.

It computes with floats as with real numbers: ``x - x`` becomes 0, also for an infinity or NaN, and ``x + y - y``
becomes ``x``, whatever the sum was rounded to. It knows no such thing of ``x + y * -1``, which is the same number; LLVM
makes a difference of that again.
"""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import tirx

from torch_tvm.tir.expressions import variables


def keep_differences(mod: tvm.IRModule) -> tvm.IRModule:
    """The module with differences that the simplifier may cancel written as sums.

    Before → after::

        y[i] = x[i] - x[i]
        y[i] = x[i] + x[i] * -1.0
    """
    result = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
    for gvar, func in mod.functions_items():
        if isinstance(func, tirx.PrimFunc):
            body = tvm_ffi.structural_map(func.body, (tirx.Sub, _kept))
            if not body.same_as(func.body):
                result.update_func(gvar, func.with_body(body))
    return result


def _kept(difference: tirx.Sub) -> tvm.ir.Expr:
    dtype = difference.ty.dtype
    if not _is_float(dtype) or not _may_cancel(difference.a, difference.b):
        return difference
    return difference.a + difference.b * tirx.const(-1.0, str(dtype))


def _may_cancel(a: tvm.ir.Expr, b: tvm.ir.Expr) -> bool:
    """Whether the two read the same, be it at other places: loops that are unrolled may make one place of them; or
    whether one is a sum.
    """
    if any(isinstance(side, (tirx.Add, tirx.Sub)) for side in (a, b)):
        return True
    read = [{var for var in variables(side) if _is_float(getattr(var.ty, "dtype", ""))} for side in (a, b)]
    return bool(read[0]) and read[0] == read[1]


def _is_float(dtype: object) -> bool:
    return str(dtype).startswith(("float", "bfloat"))


__all__ = ["keep_differences"]
