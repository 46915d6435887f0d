"""Kernels that are loops already, such as scans, scatters and recurrent layers: correct on a GPU, not fast.

    for row in parallel(n): body        becomes        row = blockIdx.x * 64 + threadIdx.x: body

Loops that follow each other are launches of their own, and what they share is memory of the device. Statements outside
of a parallel loop run on one thread.
"""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad, Var
from tvm.s_tir import SBlock, SBlockRealize
from tvm.tirx.stmt import ForKind

from torch_tvm.schedules.gpu.model import GpuModel
from torch_tvm.schedules.storage import in_root_block
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import flat_sequence, loads, statements, static_sizes

THREADS = 64
"""Threads of a block at most: the loops are long, and few run at once."""


def bind_plain_loops(func: tirx.PrimFunc, gpu: GpuModel) -> tirx.PrimFunc:
    """``func`` with its loops on GPU threads. Raises :class:`Refusal` for blocks and for calls of functions."""
    body = func.body.block.body if isinstance(func.body, SBlockRealize) else func.body
    while isinstance(body, SBlockRealize):
        body = body.block.body
    _check(body)
    return in_root_block(func.with_body(_bound(body, min(THREADS, gpu.threads // 4))))


def _check(body: tirx.Stmt) -> None:
    blocks: list[SBlock] = []
    called: list[str] = []
    note = lambda node: called.append(getattr(node.op, "name", ""))
    tvm_ffi.structural_walk(body, [(SBlock, blocks.append), (tvm.ir.Call, note)])
    if blocks:
        raise Refusal("it has blocks of its own")
    if {"tirx.tvm_call_packed", "tirx.call_packed", "tirx.call_extern"} & set(called):
        raise Refusal("it calls a function of the host")


def _bound(stmt: tirx.Stmt, threads: int) -> tirx.Stmt:
    """A launch for each parallel loop, and one of a single thread for what lies between them."""
    if isinstance(stmt, tirx.AttrStmt) and stmt.attr_key == "pragma_scope":
        return _bound(stmt.body, threads)
    if isinstance(stmt, tirx.For) and stmt.kind == ForKind.PARALLEL:
        return _on_threads(stmt.loop_var, stmt.extent, stmt.body, threads)
    if isinstance(stmt, tirx.SeqStmt) and _comes_apart(stmt):
        return _launches(stmt, threads)
    if isinstance(stmt, (tirx.For, tirx.IfThenElse)) and _has_parallel_loop(stmt) and not _reads_memory(stmt):
        if isinstance(stmt, tirx.For):
            return tirx.For(stmt.loop_var, stmt.min, stmt.extent, ForKind.SERIAL, _bound(stmt.body, threads))
        otherwise = None if stmt.else_case is None else _bound(stmt.else_case, threads)
        return tirx.IfThenElse(stmt.condition, _bound(stmt.then_case, threads), otherwise)
    return _on_threads(tirx.Var("single", "int32"), tirx.const(1, "int32"), stmt, threads)


def _launches(sequence: tirx.SeqStmt, threads: int) -> tirx.Stmt:
    """Statements that follow each other, with what they share in memory of the device."""
    shared: dict[Var, tirx.Buffer] = {}
    for stmt in statements(sequence):
        if isinstance(stmt, tirx.AllocBuffer):
            buffer = stmt.buffer
            shared[buffer] = tirx.decl_buffer(buffer.shape, str(buffer.dtype), buffer.name)
    renamed = lambda stmt: tvm_ffi.structural_map(stmt, (Var, lambda var: shared.get(var, var)))
    host = (tirx.DeclBuffer, tirx.Bind)
    parts: list[tirx.Stmt] = []
    for stmt in statements(sequence):
        if isinstance(stmt, tirx.AllocBuffer):
            parts.append(tirx.AllocBuffer(shared[stmt.buffer]))
        elif isinstance(stmt, host):
            parts.append(renamed(stmt))
        else:
            parts.append(_bound(renamed(stmt), threads))
    return flat_sequence(parts)


def _has_parallel_loop(stmt: tirx.Stmt) -> bool:
    loops: list[tirx.For] = []
    tvm_ffi.structural_walk(stmt, (tirx.For, loops.append))
    return any(loop.kind == ForKind.PARALLEL for loop in loops)


def _comes_apart(sequence: tirx.SeqStmt) -> bool:
    """Whether each statement can be a launch: the host knows all names, and what they share is worth memory of the
    device.
    """
    names = [stmt for stmt in statements(sequence) if isinstance(stmt, tirx.Bind)]
    if any(loads(stmt.value) for stmt in names):
        return False
    shares = names or any(isinstance(stmt, tirx.AllocBuffer) for stmt in statements(sequence))
    return _has_parallel_loop(sequence) or not shares


def _reads_memory(stmt: tirx.For | tirx.IfThenElse) -> bool:
    """Whether the device alone knows what decides about a statement."""
    return bool(loads(stmt.extent if isinstance(stmt, tirx.For) else stmt.condition))


def _on_threads(var: tirx.Var, extent: tirx.Expr, body: tirx.Stmt, count: int) -> tirx.Stmt:
    """Each iteration of a loop on a thread of its own, ``count`` of them in a block; few iterations
    on as many blocks.
    """
    workspaces, body = _workspaces(var, extent, body)
    body = _in_registers(body)
    dtype = str(var.ty.dtype)
    is_few = isinstance(extent, tirx.IntImm) and int(extent) < count
    if is_few:
        bound = _thread(var, extent, "blockIdx.x", body)
    else:
        block, item = tirx.Var("block", dtype), tirx.Var("item", dtype)
        threads = tirx.const(count, dtype)
        value = block * threads + item
        inside = tvm_ffi.structural_map(body, (Var, lambda other: value if other.same_as(var) else other))
        guarded = tirx.IfThenElse(value < extent, inside, None)
        blocks = tirx.floordiv(extent + (count - 1), threads)
        bound = _thread(block, blocks, "blockIdx.x", _thread(item, threads, "threadIdx.x", guarded))
    return tirx.SeqStmt([*workspaces, bound]) if workspaces else bound


def _thread(var: tirx.Var, extent: tirx.Expr, axis: str, body: tirx.Stmt) -> tirx.Stmt:
    thread = tirx.IterVar(tvm.ir.Range(0, extent), var, tirx.IterVar.ThreadIndex, axis)
    return tirx.For(var, tirx.const(0, str(var.ty.dtype)), extent, ForKind.THREAD_BINDING, body, thread)


def _workspaces(var: tirx.Var, extent: tirx.Expr, body: tirx.Stmt) -> tuple[list[tirx.AllocBuffer], tirx.Stmt]:
    """Temporaries whose size is not known, which no thread can hold, in memory of the device: a
    part for each thread.
    """
    moved: dict[Var, tirx.Buffer] = {}

    def visit(alloc: tirx.AllocBuffer) -> None:
        buffer = alloc.buffer
        if static_sizes(list(buffer.shape)) is None:
            shape = [extent, *buffer.shape]
            moved[buffer] = tirx.decl_buffer(shape, str(buffer.dtype), buffer.name)

    tvm_ffi.structural_walk(body, (tirx.AllocBuffer, visit))
    if not moved:
        return [], body
    bound: set[Var] = {var}
    tvm_ffi.structural_walk(
        body,
        [(tirx.Bind, lambda bind: bound.add(bind.var)), (tirx.For, lambda loop: bound.add(loop.loop_var))],
    )
    for buffer in moved.values():
        if any(set(tirx.analysis.undefined_vars(size)) & bound for size in buffer.shape[1:]):
            raise Refusal("the size of a temporary is known to the thread alone")

    def load(node: TensorLoad) -> tvm.ir.Expr:
        found = moved.get(node.source)
        return node if found is None else tirx.BufferLoad(found, [var, *node.indices])

    def store(node: tirx.BufferStore) -> tirx.Stmt:
        found = moved.get(node.buffer)
        return node if found is None else tirx.BufferStore(found, node.value, [var, *node.indices])

    def dropped(node: tirx.AllocBuffer) -> tirx.Stmt:
        return tirx.Evaluate(tirx.const(0, "int32")) if node.buffer in moved else node

    body = tvm_ffi.structural_map(body, [(TensorLoad, load), (tirx.BufferStore, store), (tirx.AllocBuffer, dropped)])
    return [tirx.AllocBuffer(buffer) for buffer in moved.values()], body


def _in_registers(body: tirx.Stmt) -> tirx.Stmt:
    """Temporaries of a thread are its own, and it has no vectors and nothing to fetch before it is read."""
    mapping: dict[Var, tirx.Buffer] = {}

    def visit(alloc: tirx.AllocBuffer) -> None:
        buffer = alloc.buffer
        if static_sizes(list(buffer.shape)) is None:
            return
        mapping[buffer] = tirx.decl_buffer(buffer.shape, str(buffer.dtype), buffer.name, scope="local")

    def scalar(node: tirx.For) -> tirx.For:
        is_vector = node.kind == ForKind.VECTORIZED
        return tirx.For(node.loop_var, node.min, node.extent, ForKind.SERIAL, node.body) if is_vector else node

    def kept(node: tirx.Evaluate) -> tirx.Stmt:
        is_hint = getattr(getattr(node.value, "op", None), "name", "") == "tirx.prefetch"
        return tirx.Evaluate(tirx.const(0, "int32")) if is_hint else node

    body = tvm_ffi.structural_map(body, [(tirx.For, scalar), (tirx.Evaluate, kept)])
    tvm_ffi.structural_walk(body, (tirx.AllocBuffer, visit))
    return tvm_ffi.structural_map(body, (Var, lambda var: mapping.get(var, var))) if mapping else body


__all__ = ["bind_plain_loops"]
