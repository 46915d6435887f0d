"""Bags of rows of a table: embedding_bag.

A bag is a task. Parts of a row are summed in registers over the whole bag, so that memory is read for the rows only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.conversion import convert
from torch_tvm.lowering.ops.indexing.positions import checked
from torch_tvm.lowering.ops.shapes.views import same_size
from torch_tvm.lowering.registry import Lowering, Tensor, lowers, register
from torch_tvm.lowering.script import allocate
from torch_tvm.tir import as_size, bits_of, compute_dtype, const

R = relax.op
Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr

SUM, MEAN, MAX = range(3)

LANES = 16
BLOCK = 128
"""Elements of a row that are summed at a time: they lie in registers."""


LINE = 64
AHEAD = 16
"""Rows before its turn that a row is asked for: tables are larger than caches, and rows lie anywhere."""


@dataclass(frozen=True)
class _Bags:
    """How a bag becomes a row: ``mode`` as in ATen, ``padding`` is an index that counts for nothing (-1: none)."""

    mode: int
    padding: int
    is_weighted: bool
    has_last: bool

    def body(self, ins: list[Any], outs: list[Any]) -> tirx.Stmt:
        table, indices, offsets, *weights = (T.buffer_proxy(buffer) for buffer in ins)
        out = T.buffer_proxy(outs[0])
        bags, width = outs[0].shape
        total = ins[1].shape[0]
        with IRBuilder() as builder:
            with T.parallel(0, bags) as bag:
                begin = tirx.Cast("int64", offsets[bag])
                last = tirx.Cast("int64", offsets[bag + 1 if self.has_last else tirx.min(bag + 1, bags - 1)])
                end = last if self.has_last else tirx.Select(bag + 1 < bags, last, total)
                row = _Row(self, table, indices, weights, out, bag, begin, end, total)
                if isinstance(width, tirx.IntImm):
                    for first in range(0, int(width), BLOCK):
                        row.part(first, min(BLOCK, int(width) - first))
                else:
                    with T.serial(0, width) as column:
                        row.part(column, 1)
            return builder.get()

    def kernel(self, *sources: Any) -> te.Tensor:
        """The table, positions, offsets, weights if there are any, and the number of bags."""
        *tensors, size = sources
        return te.extern(
            [[size[0], tensors[0].shape[1]]],
            tensors,
            self.body,
            dtype=str(tensors[0].dtype),
            in_buffers=[tirx.decl_buffer(t.shape, t.dtype, f"in{n}") for n, t in enumerate(tensors)],
            name="bags",
        )


@dataclass(frozen=True)
class _Row:
    """The row of one bag: that of the indices from ``begin`` to ``end``, of ``total``."""

    how: _Bags
    table: Any
    indices: Any
    weights: list[Any]
    out: Any
    bag: Scalar
    begin: Scalar
    end: Scalar
    total: Scalar

    def part(self, first: Any, block: int) -> None:
        """Its elements ``[first, first + block)``."""
        dtype = compute_dtype(str(self.table.dtype))
        sums, used = allocate(block, dtype, "local"), allocate(1, "int64", "local")
        _each(block, lambda at: _store(sums, at, tirx.const(0, dtype)))
        used[0] = const(0)
        lines = [first + at for at in range(0, block, LINE // (bits_of(str(self.table.dtype)) // 8))]
        with T.serial(0, self.end - self.begin) as step:
            row = self.indices[self.begin + step]
            self._prefetch(step, lines)
            factor = convert(self.weights[0][self.begin + step], dtype) if self.how.is_weighted else None

            def add() -> None:
                value = lambda at: convert(self.table[row, first + at], dtype)
                _each(block, lambda at: _store(sums, at, self._combined(sums[at], value(at), factor, used)))
                used[0] = used[0] + 1

            if self.how.padding < 0:
                add()
            else:
                with T.If(tirx.NE(row, const(self.how.padding))), T.Then():
                    add()
        divisor = tirx.Cast(dtype, tirx.max(used[0], const(1)))
        mean = lambda at: sums[at] / divisor if self.how.mode == MEAN else sums[at]
        _each(block, lambda at: _store(self.out, (self.bag, first + at), convert(mean(at), str(self.out.dtype))))

    def _prefetch(self, step: Scalar, columns: Sequence[Any]) -> None:
        following = self.indices[tirx.min(self.begin + step + AHEAD, self.total - 1)]
        for at in columns:
            place = tirx.address_of(self.table[following, at])
            T.evaluate(tirx.call_intrin("void", "tirx.prefetch", place, 0, 3, 1))

    def _combined(self, old: Scalar, value: Scalar, factor: Scalar | None, used: Any) -> Scalar:
        if self.how.mode == MAX:
            is_new = tirx.any(tirx.EQ(used[0], const(0)), value > old)
            return tirx.Select(is_new, value, old)
        return old + (value if factor is None else value * factor)


def _store(buffer: Any, at: Any, value: Scalar) -> None:
    buffer[at] = value


def _each(count: int, body: Any) -> None:
    """``body`` of each element of a part: whole vectors one after the other, then what is left."""
    for start in range(0, count - count % LANES, LANES):
        with T.vectorized(0, LANES) as lane:
            body(start + lane)
    for at in range(count - count % LANES, count):
        body(const(at))


def _check_offsets(b: Builder, offsets: Expr, total: Any) -> None:
    """Bags follow each other from the first index on, and end where the indices do."""

    def kernel(starts: te.Tensor, sizes: Any) -> te.Tensor:
        count = starts.shape[0]

        def body(ins: Any, outs: Any) -> tirx.Stmt:
            data, out = T.buffer_proxy(ins[0]), T.buffer_proxy(outs[0])
            start = lambda i: tirx.Cast("int64", data[i])
            with IRBuilder() as builder:
                with T.seq_scope():
                    wrong = allocate(1, "int32")
                    wrong[0] = tirx.const(0, "int32")
                    with T.If(count > 0), T.Then():
                        outside = tirx.any(tirx.NE(start(0), const(0)), start(count - 1) > sizes[0])
                        wrong[0] = tirx.Cast("int32", outside)
                    with T.serial(0, count - 1) as i:
                        wrong[0] = tirx.bitwise_or(wrong[0], tirx.Cast("int32", start(i) > start(i + 1)))
                    out[()] = tirx.EQ(wrong[0], tirx.const(0, "int32"))
                return builder.get()

        return te.extern([[]], [starts], body, dtype="bool", name="check_offsets")

    fits = b.te(kernel, offsets, relax.ShapeExpr([as_size(total)]), name="check_offsets")
    b.check(fits, "offsets must begin with 0, not fall, and not go past the end of the indices")


@lowers("torch.aten._embedding_bag")
def embedding_bag(
    b: Builder,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    per_sample_weights: Tensor | None,
    include_last_offset: bool,
    padding_idx: int,
) -> list[Any]:
    """aten::_embedding_bag(Tensor weight, Tensor indices, Tensor offsets, bool scale_grad_by_freq=False, int mode=0,
    bool sparse=False, Tensor? per_sample_weights=None, bool include_last_offset=False, int padding_idx=-1)
    -> (Tensor, Tensor, Tensor, Tensor)"""
    if any(result.is_used for result in b.results[1:]):
        b.unsupported("results that only the backward pass reads")
    (rows, width), total = b.shape(weight), b.shape(indices)[0]
    starts = b.shape(offsets)[0]
    if isinstance(starts, int) and starts == 0:
        b.unsupported("no offsets")
    bags = starts - 1 if include_last_offset else starts
    if per_sample_weights is not None and not same_size(total, b.shape(per_sample_weights)[0]):
        b.unsupported("weights that do not fit the indices")
    if (isinstance(width, int) and width == 0) or (isinstance(bags, int) and bags == 0):
        empty = relax.ShapeExpr([as_size(bags), as_size(width)])
        return [b.emit(R.zeros(empty, b.dtype(weight))), None, None, None]
    _check_offsets(b, offsets, total)
    how = _Bags(mode, padding_idx, per_sample_weights is not None, include_last_offset)
    places = checked(b, indices, rows)
    weights = [] if per_sample_weights is None else [per_sample_weights]
    size = relax.ShapeExpr([as_size(bags)])
    return [b.te(how.kernel, weight, places, offsets, *weights, size, name="bags"), None, None, None]


@lowers("torch.aten.embedding_bag.padding_idx")
def embedding_bag_with_padding(
    b: Builder,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    per_sample_weights: Tensor | None,
    include_last_offset: bool,
    padding_idx: int | None,
) -> list[Any]:
    """aten::embedding_bag.padding_idx(Tensor weight, Tensor indices, Tensor offsets, bool scale_grad_by_freq, int mode,
    bool sparse, Tensor? per_sample_weights, bool include_last_offset, int? padding_idx)
    -> (Tensor, Tensor, Tensor, Tensor)"""
    rows = b.shape(weight)[0]
    padding = -1 if padding_idx is None else padding_idx
    if padding_idx is not None and padding_idx < 0:
        if not isinstance(rows, int):
            b.unsupported("a padding index from the end of a table of unknown size")
        padding = padding_idx % rows
    options = scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset
    return embedding_bag(b, weight, indices, offsets, *options, padding)


def embedding_bag_plain(
    b: Builder,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    per_sample_weights: Tensor | None,
    include_last_offset: bool,
) -> list[Any]:
    """aten::embedding_bag(Tensor weight, Tensor indices, Tensor offsets, bool scale_grad_by_freq=False, int mode=0,
    bool sparse=False, Tensor? per_sample_weights=None, bool include_last_offset=False)
    -> (Tensor, Tensor, Tensor, Tensor)"""
    options = scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset
    return embedding_bag(b, weight, indices, offsets, *options, -1)


_LOWERINGS: dict[str, Lowering] = {
    "torch.aten.embedding_bag": embedding_bag_plain,
    "torch.aten._embedding_bag_forward_only": embedding_bag,
}

for _name, _function in _LOWERINGS.items():
    register(_name, _function, custom=True)
