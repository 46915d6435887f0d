"""The form in which kernels are handed on: parameters at any address, the body in a root block.

TVM promises LLVM that every parameter starts at a multiple of 64 bytes, and LLVM then emits loads and stores that
fault at other addresses. A view such as ``x[1:]`` starts anywhere: so parameters promise no more than the size of one
element. Unaligned vector instructions cost nothing extra where the address happens to be aligned.
"""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.ir import Var
from tvm.s_tir import SBlock, SBlockRealize

from torch_tvm.tir import bits_of


def allow_any_address(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """``func`` with the alignment of its buffer parameters lowered to that of one element."""
    mapping: dict[Var, tirx.Buffer] = {}
    for param in func.params:
        if isinstance(param.ty, tirx.BufferType):
            size = max(1, bits_of(param.dtype) // 8)
            mapping[param] = tirx.decl_buffer(
                param.shape,
                str(param.dtype),
                param.name,
                strides=param.strides,
                elem_offset=param.elem_offset,
                data_alignment=size,
                offset_factor=param.offset_factor,
            )
    body = tvm_ffi.structural_map(func.body, (Var, lambda var: mapping.get(var, var)))
    params = [mapping.get(param, param) for param in func.params]
    return tirx.PrimFunc(params, body, func.ret_type, func.attrs)


def in_root_block(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """``func`` with its body in a root block: Relax passes look at kernels and expect one."""
    if isinstance(func.body, SBlockRealize):
        return func
    block = SBlock([], [], [], "root", func.body)
    return func.with_body(SBlockRealize([], tirx.const(True, "bool"), block))
