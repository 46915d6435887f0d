"""Maxima over windows start from minus infinity; TVM's start from the least finite number, and give that for windows
that hold nothing but infinities.
"""

from __future__ import annotations

from collections.abc import Callable

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.relax.transform.legalize_ops import nn

from torch_tvm.tir import is_float

LEGALIZE = {
    "relax.nn.max_pool1d": nn._nn_max_pool1d,
    "relax.nn.max_pool2d": nn._nn_max_pool2d,
    "relax.nn.max_pool3d": nn._nn_max_pool3d,
}
"""What TVM makes of each op."""


def _from_infinity(
    legalize: Callable[[relax.BlockBuilder, relax.Call], relax.Expr],
) -> Callable[[relax.BlockBuilder, relax.Call], relax.Expr]:
    def legalized(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        kernel = legalize(builder, call)
        dtype = str(call.ty.dtype)
        if kernel.same_as(call) or not is_float(dtype):
            return kernel
        assert isinstance(kernel, relax.Call), kernel
        least = tirx.min_value(dtype).value
        function = builder.get()[kernel.args[0]]
        lowest = lambda value: tirx.const(float("-inf"), dtype) if value.value == least else value
        body = tvm_ffi.structural_map(function.body, (tvm.tirx.FloatImm, lowest))
        builder.update_func(kernel.args[0], function.with_body(body))
        return kernel

    return legalized


legalize_max_pools = {name: _from_infinity(legalize) for name, legalize in LEGALIZE.items()}
"""The ops' kernels for ``relax.transform.LegalizeOps``."""
