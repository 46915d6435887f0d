"""Kernels that are loops already, such as scans, scatters and recurrent layers: correct on a GPU, not fast.

    for row in parallel(n): body        becomes        blockIdx.x = row: body

Statements outside of a parallel loop run on one thread. Statements that follow each other are kernels that do.
"""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Var
from tvm.s_tir import SBlock, SBlockRealize
from tvm.tirx.stmt import ForKind

from torch_tvm.schedules.storage import in_root_block
from torch_tvm.support.errors import Refusal


def bind_plain_loops(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """``func`` with its loops on GPU threads. Raises :class:`Refusal` for blocks and for calls of functions."""
    body = func.body.block.body if isinstance(func.body, SBlockRealize) else func.body
    while isinstance(body, SBlockRealize):
        body = body.block.body
    _check(body)
    return in_root_block(func.with_body(_in_registers(_bound(body))))


def _check(body: tirx.Stmt) -> None:
    def block(_: SBlock) -> None:
        raise Refusal("it has blocks of its own")

    def call(node: tvm.ir.Call) -> None:
        name = getattr(node.op, "name", "")
        if name in ("tirx.tvm_call_packed", "tirx.call_packed", "tirx.call_extern"):
            raise Refusal("it calls a function of the host")

    tvm_ffi.structural_walk(body, [(SBlock, block), (tvm.ir.Call, call)])


def _bound(stmt: tirx.Stmt) -> tirx.Stmt:
    if isinstance(stmt, tirx.SeqStmt) and not any(
        isinstance(s, (tirx.Bind, tirx.AllocBuffer)) for s in stmt.seq
    ):
        return tirx.SeqStmt([_bound(part) for part in stmt.seq])
    if isinstance(stmt, tirx.For) and stmt.kind == ForKind.PARALLEL:
        return _on_blocks(stmt.loop_var, stmt.extent, stmt.body)
    return _on_blocks(tirx.Var("single", "int32"), tirx.const(1, "int32"), stmt)


def _on_blocks(var: tirx.Var, extent: tirx.Expr, body: tirx.Stmt) -> tirx.Stmt:
    thread = tirx.IterVar(tvm.ir.Range(0, extent), var, tirx.IterVar.ThreadIndex, "blockIdx.x")
    return tirx.For(var, tirx.const(0, str(var.ty.dtype)), extent, ForKind.THREAD_BINDING, body, thread)


def _in_registers(body: tirx.Stmt) -> tirx.Stmt:
    """Temporaries of a thread are its own, and it has no vectors."""
    mapping: dict[Var, tirx.Buffer] = {}

    def visit(alloc: tirx.AllocBuffer) -> None:
        buffer = alloc.buffer
        mapping[buffer] = tirx.decl_buffer(buffer.shape, str(buffer.dtype), buffer.name, scope="local")

    def scalar(node: tirx.For) -> tirx.For:
        is_vector = node.kind == ForKind.VECTORIZED
        return (
            tirx.For(node.loop_var, node.min, node.extent, ForKind.SERIAL, node.body) if is_vector else node
        )

    body = tvm_ffi.structural_map(body, (tirx.For, scalar))
    tvm_ffi.structural_walk(body, (tirx.AllocBuffer, visit))
    return tvm_ffi.structural_map(body, (Var, lambda var: mapping.get(var, var))) if mapping else body


__all__ = ["bind_plain_loops"]
