"""The form in which kernels are handed on: parameters at any address, the body in a root block.

TVM promises LLVM that every parameter starts at a multiple of 64 bytes, and LLVM then emits loads and stores that
fault at other addresses. A view such as ``x[1:]`` starts anywhere: so parameters promise no more than the size of one
element. Unaligned vector instructions cost nothing extra where the address happens to be aligned.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Var
from tvm.s_tir import SBlock, SBlockRealize

from torch_tvm.tir import bits_of, buffer_like, with_buffers


def allow_any_address(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """``func`` with the alignment of its buffer parameters lowered to that of one element."""
    mapping: dict[Var, tirx.Buffer] = {}
    for param in func.params:
        if isinstance(param.ty, tirx.BufferType):
            mapping[param] = buffer_like(param, data_alignment=max(1, bits_of(param.dtype) // 8))
    return with_buffers(func, mapping)


def in_root_block(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """``func`` with its body in a root block: Relax passes look at kernels and expect one."""
    if isinstance(func.body, SBlockRealize):
        return func
    block = SBlock([], [], [], "root", func.body)
    return func.with_body(SBlockRealize([], tirx.const(True, "bool"), block))
