"""One spelling of the sizes of kernels: FuseTIR takes ``n // 2 + 3`` and ``n // 2 + 1 + 2`` for two sizes."""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import sym, tirx
from tvm.ir import Var
from tvm.tirx.buffer import is_buffer_var

from torch_tvm.tir import static_sizes
from torch_tvm.transforms.base import Level, Transform


class SimplifySizes(Transform):
    """The sizes of a kernel's operands and results are simplified; it comes before FuseTIR::

    pad(x, Buffer((n + 1 + 1,)))  →  pad(x, Buffer((n + 2,)))
    """

    level = Level.FUSION

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        changed = {}
        for name, function in mod.functions_items():
            if isinstance(function, tirx.PrimFunc):
                new = _simplified(function)
                if new is not function:
                    changed[name] = new
        if not changed:
            return mod
        return tvm.IRModule({**dict(mod.functions_items()), **changed}, attrs=mod.attrs)


def _simplified(func: tirx.PrimFunc) -> tirx.PrimFunc:
    analyzer = sym.Analyzer()
    renamed: dict[Var, Var] = {}
    for buffer in filter(is_buffer_var, func.params):
        if static_sizes(buffer.shape) is not None or len(buffer.strides):
            continue
        shape = [analyzer.simplify(size) for size in buffer.shape]
        if not all(tvm_ffi.structural_equal(a, b) for a, b in zip(shape, buffer.shape, strict=True)):
            renamed[buffer] = tirx.decl_buffer(
                shape,
                str(buffer.dtype),
                buffer.name,
                elem_offset=buffer.elem_offset,
                data_alignment=buffer.data_alignment,
                offset_factor=buffer.offset_factor,
                layout=None if buffer.ty.layout is None else "default",
            )
    if not renamed:
        return func
    body = tvm_ffi.structural_map(func.body, (Var, lambda var: renamed.get(var, var)))
    return tirx.PrimFunc([renamed.get(p, p) for p in func.params], body, func.ret_type, func.attrs)


__all__ = ["SimplifySizes"]
