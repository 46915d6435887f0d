"""Products with packed weights: how each kind of them keeps its elements, and what it multiplies.

    y = matmul(x, w)                            # w: [K, N]
becomes
    p = pack(w)                                 # as torch_tvm.workloads.matmul.PackedWeight says
    y[…, n] = sum_k left(x[…, k]) * right(p[place of (k, n)])

Weights kept as bfloat16 (under ``accuracy="fast"``): a product with few rows reads every weight once, so its time is
that of reading them from memory; in bfloat16 that is half of it. The values become float32 in registers (a shift by 16
bits, on any processor) and products are summed in float32: the only error is the rounding of each weight, 2^-9 relative
at most. Where the processor multiplies bfloat16 (``vdpbf16ps``), products of any number of rows round both operands,
two elements of a column side by side.

Bytes are summed in int32, four of a column side by side as ``vpdpbusd`` reads them. The last row of a panel holds
``-128 * sum_k w[k, n]`` as the four bytes of an int32: where the sums of a signed left operand start
(:mod:`torch_tvm.schedules.cpu.matmul.int8`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import te, tirx
from tvm.ir import Expr

from torch_tvm.schedules.cpu.matmul.bfloat16_bits import rounded_bits, widened
from torch_tvm.schedules.cpu.matmul.tiling import panel_vectors
from torch_tvm.schedules.instructions.dots import GROUP, PAIR
from torch_tvm.schedules.target import CpuModel
from torch_tvm.workloads.matmul import PackedWeight

Map = Callable[[Expr], Expr]

MOST_ROWS = 4
"""Rows up to which reading the weights takes longer than computing with them."""


def _same(element: Expr) -> Expr:
    return element


def _as_int32(element: Expr) -> Expr:
    return element.astype("int32")


def is_memory_bound(rows: int | None, depth: int, columns: int, cpu: CpuModel) -> bool:
    """Whether a float32 product waits for its weights: few rows, and weights that no level 2 cache holds."""
    return rows is not None and rows <= MOST_ROWS and depth * columns * 4 > cpu.l2


@dataclass(frozen=True)
class Kind:
    """``stored`` is what packed weights hold of an element, ``left`` and ``right`` are what elements count as."""

    word: int = 1
    stored: Map = _same
    left: Map = _same
    right: Map = _same


PLAIN = Kind()
ROUNDED = Kind(stored=rounded_bits, right=widened)
PAIRS = Kind(PAIR, stored=rounded_bits, left=lambda x: widened(rounded_bits(x)), right=widened)
QUADS = Kind(GROUP, left=_as_int32, right=_as_int32)


def packed_weight(kind: Kind, depth: int, columns: int, dtype: str, cpu: CpuModel) -> PackedWeight:
    """The panels for a matrix [depth, columns] whose products are summed in ``dtype``."""
    width = panel_vectors(columns, cpu, dtype) * cpu.lanes(dtype)
    return PackedWeight(depth, columns, width, kind.word, has_starts=kind is QUADS)


def pack(w: te.Tensor, kind: Kind, weight: PackedWeight, is_transposed: bool) -> te.Tensor:
    """``w`` ([N, K] if ``is_transposed``, else [K, N]) as ``weight`` says."""
    packing = weight.packing(is_transposed)
    if not weight.has_starts:
        return packing.compute(w, kind.stored)
    k = te.reduce_axis((0, weight.depth), "k")
    start = te.compute(
        (weight.columns,),
        lambda n: te.sum(_as_int32(w[n, k] if is_transposed else w[k, n]) * tirx.const(-128, "int32"), axis=k),
        name="start",
    )

    def packed(panel: tirx.Var, group: tirx.Var, byte: tirx.Var) -> Expr:
        n = tirx.min(panel * weight.width + byte // GROUP, tirx.const(weight.columns - 1, "int64"))
        shift = (byte % GROUP * 8).astype("int32")
        value = packing.element(w, [panel, group, byte], kind.stored)
        return tirx.if_then_else(group < weight.groups, value, (start[n] >> shift).astype("int8"))

    return te.compute(weight.shape, packed, name="pack")


def product(x: te.Tensor, packed: te.Tensor, kind: Kind, weight: PackedWeight) -> te.Tensor:
    """``x`` [..., K] times a weight that :func:`pack` packed: [..., N]."""
    k = te.reduce_axis((0, x.shape[-1]), "k")

    def element(*point: tirx.Var) -> Expr:
        *rows, n = point
        return te.sum(kind.left(x[(*rows, k)]) * kind.right(packed[weight.place(k, n)]), axis=k)

    return te.compute((*x.shape[:-1], weight.columns), element, name="matmul", attrs=weight.to_attr())
