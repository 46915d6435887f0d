"""Values rounded to bfloat16 where a program says so.

TVM computes bfloat16 in float32 and drops a conversion there and back, ``float32(bfloat16(x))``. So a conversion rounds
the bits first; what is dropped then changes nothing. Under ``accuracy="strict"`` the result of every op is rounded.
"""

from __future__ import annotations

import tvm
from tvm import relax, te, tirx, topi
from tvm_ffi.structural import structural_map


def legalize_astype(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """``relax.astype`` as a kernel.

    Before::

        bfloat16(x)

    After::

        bfloat16(float32(x) rounded to the bits that bfloat16 has)
    """
    dtype = str(call.attrs.dtype)
    if dtype != "bfloat16":
        return builder.call_te(topi.cast, call.args[0], dtype, primfunc_name_hint="cast")

    def cast(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *i: tirx.Cast(dtype, rounded(_single(x(*i)))), name="compute")

    return builder.call_te(cast, call.args[0], primfunc_name_hint="cast")


@tirx.transform.prim_func_pass(opt_level=0, name="RoundEachOp")
def round_each_op(func: tirx.PrimFunc, _mod: object, _ctx: object) -> tirx.PrimFunc:
    """Every conversion from float32 to bfloat16 rounds, as that of :func:`legalize_astype`; before kernels are fused."""

    def visit(cast: tirx.Cast) -> tvm.ir.Expr:
        if str(cast.ty.dtype) != "bfloat16" or str(cast.value.ty.dtype) != "float32":
            return cast
        value = tirx.Var("value", "float32")
        return tirx.Cast("bfloat16", tirx.Let(value, cast.value, rounded(value)))

    return func.with_body(structural_map(func.body, (tirx.Cast, visit)))


def rounded(x: tvm.ir.Expr) -> tvm.ir.Expr:
    """A float32 with the nearest value that bfloat16 has, the even one of two; NaN stays NaN."""
    bits = tirx.reinterpret("uint32", x)
    word = lambda value: tirx.const(value, "uint32")
    last = tirx.bitwise_and(bits >> word(16), word(1))
    near = tirx.bitwise_and(bits + word(0x7FFF) + last, word(0xFFFF0000))
    return tirx.Select(tirx.isnan(x), x, tirx.reinterpret("float32", near))


def _single(value: tvm.ir.Expr) -> tvm.ir.Expr:
    return value if str(value.ty.dtype) == "float32" else tirx.Cast("float32", value)


__all__ = ["legalize_astype", "round_each_op", "rounded"]
