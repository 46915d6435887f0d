"""Kernels that work on each channel by itself, rewritten for blocks of channels.

``y[n, c, *p] = f(x[n, c, *g(p)], …)``: resampling, padding, pooling and reductions over space of any kind, in any
number of stages. What is ``[N, C, *S]`` becomes ``[N, blocks, *S, lanes]``, and so does all between operands and
result.
"""

from __future__ import annotations

from collections.abc import Sequence

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, Range, TensorLoad, Var
from tvm.s_tir import SBlock, SBlockRealize
from tvm.s_tir.analysis import get_sblock_access_region
from tvm.tirx.buffer import is_buffer_var
from tvm.tirx.stmt import ForKind
from tvm_ffi.structural import structural_map, structural_walk

from torch_tvm.support.errors import Refusal
from torch_tvm.tir import ceil_div, const, sequence, static_sizes

Buffers = dict[Var, Var]


def on_blocks(func: tirx.PrimFunc, images: Sequence[bool], lanes: int) -> tirx.PrimFunc:
    """``func`` on blocks of ``lanes`` channels; ``images`` says which of its operands have channels.

    :class:`Refusal` when it mixes channels. The lanes behind the last channel hold whatever comes of those of the
    operands.
    """
    if not all(is_buffer_var(parameter) for parameter in func.params):
        raise Refusal("the kernel takes sizes")
    *operands, result = func.params
    root = func.body.block
    found = [operand for operand, image in zip(operands, images, strict=True) if image]
    blocked = {old: _blocked(old, found[0], lanes) for old in (*found, *root.alloc_buffers, result)}
    stages: list[SBlockRealize] = []
    structural_walk(root.body, (SBlockRealize, stages.append))
    if not stages or not all(stage.block.iter_vars for stage in stages):
        raise Refusal("the kernel is written as loops")
    body = sequence(*(_nest(stage, blocked, func.params, lanes) for stage in stages))
    allocated = [blocked[buffer] for buffer in root.alloc_buffers]
    block = SBlock([], [], [], "root", body, alloc_buffers=allocated)
    params = [blocked.get(parameter, parameter) for parameter in func.params]
    return tirx.PrimFunc(params, SBlockRealize([], tirx.const(True, "bool"), block), func.ret_type, func.attrs)


def _blocked(buffer: Var, model: Var, lanes: int) -> Var:
    if len(buffer.ty.shape) < 2 or not tvm_ffi.structural_equal(buffer.ty.shape[1], model.ty.shape[1]):
        raise Refusal("the kernel leaves out channels")
    batch, *sizes = buffer.ty.shape
    if static_sizes(sizes) is None:
        raise Refusal("the kernel's sizes are not constant")
    shape = [batch, const(ceil_div(int(sizes[0]), lanes)), *sizes[1:], const(lanes)]
    return tirx.decl_buffer(shape, str(buffer.dtype), buffer.name, layout=None)


def _nest(stage: SBlockRealize, blocked: Buffers, params: Sequence[Var], lanes: int) -> tirx.Stmt:
    """The loops of one block: that over channels becomes one over blocks and, innermost, one over their lanes."""
    old = stage.block
    counted = _channel(old, blocked, lanes)
    (channel,) = (axis for axis in old.iter_vars if axis.var.same_as(counted))
    kind = channel.var.ty.dtype
    block, lane = Var("block", channel.var.ty), Var("lane", channel.var.ty)

    def at(indices: Sequence[Expr]) -> list[Expr]:
        return [indices[0], block, *indices[2:], lane]

    def load(load: TensorLoad) -> Expr:
        return tirx.BufferLoad(blocked[load.source], at(load.indices)) if load.source in blocked else load

    def store(store: tirx.BufferStore) -> tirx.Stmt:
        return tirx.BufferStore(blocked[store.buffer], store.value, at(store.indices))

    number = block * tirx.const(lanes, str(kind)) + lane
    changes = [
        (Var, lambda var: number if var.same_as(channel.var) else var),
        (TensorLoad, load),
        (tirx.BufferStore, store),
    ]
    body = structural_map(old.body, changes)
    init = None if old.init is None else structural_map(old.init, changes)
    blocks = ceil_div(int(channel.dom.extent), lanes)
    inside = lambda extent, var: tirx.IterVar(
        Range(tirx.const(0, str(kind)), tirx.const(extent, str(kind))), var, tirx.IterVar.DataPar
    )
    axes = [inside(blocks, block) if axis.same_as(channel) else axis for axis in old.iter_vars]
    axes.append(inside(lanes, lane))
    bare = SBlock(axes, [], [], old.name_hint, body, init)
    touched = {buffer: buffer for buffer in (*blocked.values(), *params)}
    reads, writes, *_ = get_sblock_access_region(bare, touched)
    loops = [Var(f"{axis.var.name}_loop", axis.var.ty) for axis in axes]
    result: tirx.Stmt = SBlockRealize(
        loops, tirx.const(True, "bool"), SBlock(axes, reads, writes, old.name_hint, body, init)
    )
    for var, axis in zip(reversed(loops), reversed(axes), strict=True):
        result = tirx.For(var, axis.dom.min, axis.dom.extent, ForKind.SERIAL, result)
    return result


def _channel(block: SBlock, blocked: Buffers, lanes: int) -> Var:
    """The axis of ``block`` that counts channels: it stands alone wherever a blocked buffer has them."""
    places: list[Sequence[Expr]] = []
    uses: list[Var] = []
    for stmt in (block.body, block.init):
        if stmt is not None:
            structural_walk(
                stmt,
                [
                    (TensorLoad, lambda x: places.append(x.indices) if x.source in blocked else None),
                    (tirx.BufferStore, lambda x: places.append(x.indices)),
                    (Var, uses.append),
                ],
            )
    channel = places[0][1]
    axes = [axis.var for axis in block.iter_vars if axis.iter_type == tirx.IterVar.DataPar]
    is_axis = any(channel.same_as(var) for var in axes)
    if not isinstance(channel, Var) or not is_axis or not all(channel.same_as(i[1]) for i in places):
        raise Refusal("the kernel mixes channels")
    (extent,) = (axis.dom.extent for axis in block.iter_vars if axis.var.same_as(channel))
    if int(extent) % lanes and sum(channel.same_as(var) for var in uses) != len(places):
        raise Refusal("the kernel asks which channel it works on")
    return channel
