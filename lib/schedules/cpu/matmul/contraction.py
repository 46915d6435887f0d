"""Read a contraction with an elementwise epilogue out of a PrimFunc.

``C[…] = C[…] + lhs * rhs`` followed by blocks that read ``C`` element by element, as LegalizeOps, weight
packing and FuseTIR make them, becomes a :class:`Contraction`: which axes are batch, rows, column and
reduction, what the operands are, and what is stored for each finished sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvm import s_tir, tirx
from tvm.ir import Expr
from tvm.ir.expr import TensorLoad
from tvm.ir.prim.expr import Add, Mul
from tvm.sym import Analyzer
from tvm_ffi.structural import structural_map, structural_walk

from torch_tvm.schedules.cpu.loops.producers import steps
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import (
    Axis,
    compute_dtype,
    const,
    is_zero,
    loads,
    static,
    static_sizes,
    substitute,
    variables,
)
from torch_tvm.workloads.matmul import PackedWeight


@dataclass(frozen=True)
class Store:
    """``buffer[indices] = value``; ``value`` reads the finished sum as ``total``."""

    buffer: tirx.Var
    indices: tuple[Expr, ...]
    value: Expr
    total: tirx.Var
    is_plain: bool

    def at(self, bindings: Mapping[tirx.Var, Expr], total: Expr) -> tirx.Stmt:
        """The store for one point of the spatial axes, given the sum there."""
        indices = [substitute(i, bindings) for i in self.indices]
        return tirx.BufferStore(self.buffer, substitute(self.value, {**bindings, self.total: total}), indices)


@dataclass(frozen=True)
class Contraction:
    """``store(sum over reduce of lhs * rhs)`` for all points of ``batch`` × ``rows`` × ``column``.

    ``lhs`` does not depend on ``column``, ``rhs`` not on ``rows``. Products are summed in ``acc_dtype``. ``packed``
    says how the tensor lies that ``rhs`` reads, where it came packed.
    """

    name: str
    batch: tuple[Axis, ...]
    rows: tuple[Axis, ...]
    column: Axis
    reduce: Axis
    lhs: Expr
    rhs: Expr
    acc_dtype: str
    store: Store
    packed: PackedWeight | None = None


def has_symbol(expr: Expr) -> bool:
    """Whether ``expr`` calls an intrinsic (a transcendental, most of the time) or divides."""
    found: list[bool] = []
    structural_walk(expr, (_CALLS, lambda _: found.append(True)))
    return bool(found)


def read_contraction(func: tirx.PrimFunc) -> Contraction:
    """Match ``func`` or raise :class:`Refusal`."""
    block, epilogue = _two_blocks(func)
    product, target = _sum_of_products(block)
    spatial = [it for it in block.iter_vars if it.iter_type == tirx.IterVar.DataPar]
    reduced = [it for it in block.iter_vars if it.iter_type == tirx.IterVar.CommReduce]
    if len(reduced) != 1:
        raise Refusal(f"{len(reduced)} reduction axes, 1 expected")
    axes = {it.var: Axis(it.var, it.dom.extent) for it in block.iter_vars}
    if any(axis.size == 0 for axis in axes.values()):
        raise Refusal("an axis is empty")
    if len(target.indices) != len(spatial) or any(i not in axes for i in target.indices):
        raise Refusal("the result is not indexed by the spatial axes one by one")
    if not target.indices:
        raise Refusal("the result has no axis")
    column = axes[target.indices[-1]]
    lhs, rhs = _order_operands(product, column)
    in_lhs, in_rhs = variables(lhs), variables(rhs)
    others = [axes[index] for index in target.indices[:-1]]
    is_row = [axis.var in in_lhs and axis.var not in in_rhs for axis in others]
    dtype = str(target.buffer.dtype)
    return Contraction(
        name=block.name_hint,
        batch=tuple(axis for axis, row in zip(others, is_row, strict=True) if not row),
        rows=tuple(axis for axis, row in zip(others, is_row, strict=True) if row),
        column=column,
        reduce=axes[reduced[0].var],
        lhs=lhs,
        rhs=rhs,
        acc_dtype=compute_dtype(dtype),
        store=_read_store(target, epilogue),
        packed=_packed(rhs, block),
    )


def _packed(rhs: Expr, block: s_tir.SBlock) -> PackedWeight | None:
    """How the right operand is packed, if it reads one tensor that is."""
    found = PackedWeight.from_attr(block.annotations)
    sources = loads(rhs)
    is_there = found is not None and len(sources) == 1 and static_sizes(sources[0].source.shape) == found.shape
    return found if is_there else None


def _two_blocks(func: tirx.PrimFunc) -> tuple[s_tir.SBlock, s_tir.SBlock | None]:
    """The reduction block and the one block that all blocks after it fold into."""
    sch = steps.start(func)
    reductions = [block for block in steps.blocks(sch) if steps.is_reduction(sch, block)]
    if len(reductions) != 1:
        raise Refusal(f"{len(reductions)} reduction blocks, 1 expected")
    steps.inline_producers(sch)
    found = [sch.get(block) for block in steps.blocks(sch)]
    if len(found) > 2 or not any(it.iter_type == tirx.IterVar.CommReduce for it in found[0].iter_vars):
        raise Refusal("blocks that cannot be inlined stand beside the reduction")
    return found[0], found[1] if len(found) == 2 else None


def _sum_of_products(block: s_tir.SBlock) -> tuple[Mul, tirx.BufferStore]:
    store = block.body
    if not isinstance(store, tirx.BufferStore) or not isinstance(store.value, Add):
        raise Refusal("the reduction is no sum")
    before, product = store.value.a, store.value.b
    if not isinstance(before, TensorLoad) or not before.source.same_as(store.buffer) or not isinstance(product, Mul):
        raise Refusal("the reduction is no sum of products")
    if not isinstance(block.init, tirx.BufferStore) or not is_zero(block.init.value):
        raise Refusal("the sum does not start at zero")
    return product, store


def _order_operands(product: Mul, column: Axis) -> tuple[Expr, Expr]:
    in_a, in_b = column.var in variables(product.a), column.var in variables(product.b)
    if in_a == in_b:
        raise Refusal("the last axis is not in exactly one operand")
    return (product.b, product.a) if in_a else (product.a, product.b)


def _read_store(target: tirx.BufferStore, epilogue: s_tir.SBlock | None) -> Store:
    total = tirx.Var("total", str(target.buffer.dtype))
    if epilogue is None:
        return Store(target.buffer, tuple(target.indices), total, total, True)
    store = epilogue.body
    if not isinstance(store, tirx.BufferStore) or any(
        it.iter_type != tirx.IterVar.DataPar for it in epilogue.iter_vars
    ):
        raise Refusal("the epilogue is not elementwise")
    reads = [load for load in loads(store.value) if load.source.same_as(target.buffer)]
    bindings = _match_indices(reads, target.indices)
    extents = {it.var: it.dom.extent for it in epilogue.iter_vars}
    for read in reads:
        for index, size in zip(read.indices, target.buffer.ty.shape, strict=True):
            if isinstance(index, tirx.Var) and not Analyzer().can_prove_equal(extents[index], size):
                raise Refusal("the epilogue reads the result at the beginning of another shape")
    for it in epilogue.iter_vars:
        if it.var not in bindings:
            if static(it.dom.extent) != 1:
                raise Refusal("the epilogue broadcasts the result")
            bindings[it.var] = const(0)
    value = structural_map(
        store.value, (TensorLoad, lambda load: total if load.source.same_as(target.buffer) else load)
    )
    return Store(
        store.buffer,
        tuple(substitute(i, bindings) for i in store.indices),
        substitute(value, bindings),
        total,
        not has_symbol(value),
    )


def _match_indices(reads: Sequence[TensorLoad], indices: Sequence[Expr]) -> dict[tirx.Var, Expr]:
    """Epilogue iterators in terms of the contraction's, from how the epilogue reads the result."""
    bindings: dict[tirx.Var, Expr] = {}
    for read in reads:
        for outer, inner in zip(read.indices, indices, strict=True):
            if isinstance(outer, tirx.Var):
                if not bindings.setdefault(outer, inner).same_as(inner):
                    raise Refusal("the epilogue reads the result at two places")
            elif not is_zero(outer):
                raise Refusal("the epilogue does not read the result element by element")
    if len(set(bindings.values())) != len(bindings):
        raise Refusal("the epilogue reads a diagonal of the result")
    return bindings


_CALLS = type(tirx.exp(tirx.const(1.0, "float32")))
