"""Kernels that work on each channel by itself, read back as an expression and computed again on blocks of channels.

``y[n, c, *p] = f(x[n, c, *g(p)], …)``: resampling, padding and pooling of any kind, in one stage, perhaps with a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tvm_ffi
from tvm import te, tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.ir.prim.expr import Add
from tvm.s_tir import SBlock
from tvm.tirx.buffer import is_buffer_var
from tvm_ffi.structural import structural_map, structural_walk

from torch_tvm.support.errors import Refusal


@dataclass(frozen=True)
class Channelwise:
    """``value`` at the point ``axes`` of the result, summed over ``sums``; ``images`` of the ``operands`` have channels."""

    operands: tuple[Var, ...]
    images: tuple[bool, ...]
    axes: tuple[tirx.IterVar, ...]
    sums: tuple[tirx.IterVar, ...]
    value: Expr
    name: str

    def compute(self, *tensors: te.Tensor) -> te.Tensor:
        """The kernel on images ``[N, blocks, *spatial, lanes]``; other operands are as they were."""
        model = tensors[self.images.index(True)]
        lanes = int(model.shape[-1])
        taps = [te.reduce_axis((0, axis.dom.extent), name=axis.var.name) for axis in self.sums]

        def element(n: Expr, block: Expr, *rest: Expr) -> Expr:
            *point, lane = rest
            places = {axis.var: place for axis, place in zip(self.axes[2:], point, strict=True)}
            places |= {axis.var: tap.var for axis, tap in zip(self.sums, taps, strict=True)}
            places |= {self.axes[0].var: n, self.axes[1].var: block * lanes + lane}

            def load(old: TensorLoad) -> Expr:
                position = next(i for i, operand in enumerate(self.operands) if operand.same_as(old.source))
                if self.images[position]:
                    return tensors[position](n, block, *old.indices[2:], lane)
                return tensors[position](*old.indices)

            value = structural_map(self.value, [(Var, lambda var: places.get(var, var)), (TensorLoad, load)])
            return te.sum(value, axis=taps) if taps else value

        spatial = [axis.dom.extent for axis in self.axes[2:]]
        return te.compute([*model.shape[:2], *spatial, lanes], element, name="compute")


def read_channelwise(func: tirx.PrimFunc, name: str, images: Sequence[bool]) -> Channelwise:
    """Read a kernel; ``images`` says which of its operands have channels. :class:`Refusal` when it mixes channels."""
    blocks: list[SBlock] = []
    structural_walk(func.body, (SBlock, lambda block: blocks.append(block) if block.iter_vars else None))
    if len(blocks) != 1 or not all(is_buffer_var(parameter) for parameter in func.params):
        raise Refusal("the kernel has several stages or takes sizes")
    (block,) = blocks
    *operands, result = func.params
    store = block.body
    if (
        not isinstance(store, tirx.BufferStore)
        or not store.buffer.same_as(result)
        or len(operands) != len(images)
    ):
        raise Refusal("the kernel does not store one result")
    axes = tuple(it for it in block.iter_vars if it.iter_type == tirx.IterVar.DataPar)
    sums = tuple(it for it in block.iter_vars if it.iter_type == tirx.IterVar.CommReduce)
    if len(axes) < 3 or not _are(store.indices, axes):
        raise Refusal("the kernel does not store at its own axes")
    kernel = Channelwise(tuple(operands), tuple(images), axes, sums, _summand(store, sums), name)
    _check(kernel)
    return kernel


def _summand(store: tirx.BufferStore, sums: Sequence[tirx.IterVar]) -> Expr:
    if not sums:
        return store.value
    value = store.value
    is_sum = (
        isinstance(value, Add) and isinstance(value.a, TensorLoad) and value.a.source.same_as(store.buffer)
    )
    if not is_sum:
        raise Refusal("the kernel reduces by another operator than a sum")
    return value.b


def _check(kernel: Channelwise) -> None:
    """Raise :class:`Refusal` unless images are read in the channel of the result and all sizes are constants."""
    if not all(isinstance(axis.dom.extent, tirx.IntImm) for axis in (*kernel.axes[2:], *kernel.sums)):
        raise Refusal("the kernel's sizes are not constant")
    known = {axis.var for axis in (*kernel.axes, *kernel.sums)} | set(kernel.operands)
    uses: list[Var] = []
    structural_walk(kernel.value, (Var, uses.append))
    if any(var not in known for var in uses):
        raise Refusal("the kernel's sizes are not constant")
    for operand, image in zip(kernel.operands, kernel.images, strict=True):
        if image and not _same(operand.ty.shape[:2], [axis.dom.extent for axis in kernel.axes[:2]]):
            raise Refusal("the kernel leaves out channels or images")
    loads: list[TensorLoad] = []
    structural_walk(kernel.value, (TensorLoad, loads.append))
    is_image = dict(zip(kernel.operands, kernel.images, strict=True))
    inside = 0
    for load in loads:
        if load.source not in is_image:
            raise Refusal("the kernel reads its own result")
        if is_image[load.source]:
            if len(load.indices) != len(kernel.axes) or not _are(load.indices[:2], kernel.axes[:2]):
                raise Refusal("the kernel mixes channels")
            inside += 1
    if sum(var.same_as(kernel.axes[1].var) for var in uses) != inside:
        raise Refusal("the kernel asks which channel it works on")


def _same(sizes: Sequence[Expr], others: Sequence[Expr]) -> bool:
    return len(sizes) == len(others) and all(map(tvm_ffi.structural_equal, sizes, others))


def _are(indices: Sequence[Expr], axes: Sequence[tirx.IterVar]) -> bool:
    return len(indices) == len(axes) and all(i.same_as(a.var) for i, a in zip(indices, axes, strict=True))
