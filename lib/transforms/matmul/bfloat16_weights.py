"""Weights kept as bfloat16 under ``accuracy="fast"``, where reading them is the work.

A product with few rows reads every weight once, so its time is that of reading them from memory; in bfloat16
that is half of it. The values become float32 in registers (a shift by 16 bits, on any processor) and
products are summed in float32: the only error is the rounding of each weight, 2^-9 relative at most.

    p = pack(round(w))                        # [ceil(N / NR), K, NR], the upper halves as uint16
    y[m, n] = sum_k x[m, k] * widen(p[n // NR, k, n % NR])

Where the processor multiplies bfloat16 (``vdpbf16ps``), products of any number of rows round both operands:

    p = pack(round(w))                        # [ceil(N / NR), ceil(K / 2), NR * 2]
    y[m, n] = sum_k widen(round(x[m, k])) * widen(p[n // NR, k // 2, n % NR * 2 + k % 2])
"""

from __future__ import annotations

from tvm import te, tirx
from tvm.ir import Expr

from torch_tvm.schedules.cpu.matmul.bfloat16_bits import rounded_bits, widened
from torch_tvm.schedules.instructions.dots import PAIR
from torch_tvm.schedules.target import CpuModel
from torch_tvm.tir import ceil_div

MOST_ROWS = 4
"""Rows up to which reading the weights takes longer than computing with them."""


def is_memory_bound(rows: int | None, depth: int, columns: int, cpu: CpuModel) -> bool:
    """Whether a float32 product waits for its weights: few rows, and weights that no level 2 cache holds."""
    return rows is not None and rows <= MOST_ROWS and depth * columns * 4 > cpu.l2


def pack_rounded_panels(w: te.Tensor, width: int, is_transposed: bool) -> te.Tensor:
    """``w`` (float32, [N, K] if ``is_transposed``, else [K, N]) as uint16 [ceil(N / width), K, width].

    Columns after the last repeat it.
    """
    columns, depth = (int(s) for s in (w.shape if is_transposed else reversed(w.shape)))

    def element(panel: tirx.Var, k: tirx.Var, lane: tirx.Var) -> Expr:
        n = panel * width + lane
        n = n if columns % width == 0 else tirx.min(n, tirx.const(columns - 1, "int64"))
        return rounded_bits(w[n, k] if is_transposed else w[k, n])

    return te.compute((ceil_div(columns, width), depth, width), element, name="pack")


def rounded_matmul(x: te.Tensor, packed: te.Tensor, columns: int) -> te.Tensor:
    """``x`` [..., K] times a weight that :func:`pack_rounded_panels` packed: float32 [..., columns]."""
    width = int(packed.shape[2])
    k = te.reduce_axis((0, packed.shape[1]), "k")

    def element(*point: tirx.Var) -> Expr:
        *rows, n = point
        return te.sum(x[(*rows, k)] * widened(packed[n // width, k, n % width]), axis=k)

    return te.compute((*x.shape[:-1], columns), element, name="matmul")


def pack_pairs(w: te.Tensor, width: int, is_transposed: bool) -> te.Tensor:
    """``w`` (float32, [N, K] if ``is_transposed``, else [K, N]) as uint16 [ceil(N / width), K / 2, width * 2].

    Columns after the last repeat it, an element after the last is zero.
    """
    columns, depth = (int(s) for s in (w.shape if is_transposed else reversed(w.shape)))

    def element(panel: tirx.Var, pair: tirx.Var, position: tirx.Var) -> Expr:
        n = tirx.min(panel * width + position // PAIR, tirx.const(columns - 1, "int64"))
        k = pair * PAIR + position % PAIR
        inside = tirx.min(k, tirx.const(depth - 1, "int64"))
        value = rounded_bits(w[n, inside] if is_transposed else w[inside, n])
        return value if depth % PAIR == 0 else tirx.Select(k < depth, value, tirx.const(0, "uint16"))

    return te.compute((ceil_div(columns, width), ceil_div(depth, PAIR), width * PAIR), element, name="pack")


def paired_matmul(x: te.Tensor, packed: te.Tensor, columns: int) -> te.Tensor:
    """``x`` [..., K] times a weight that :func:`pack_pairs` packed: float32 [..., columns]."""
    width = int(packed.shape[2]) // PAIR
    k = te.reduce_axis((0, x.shape[-1]), "k")

    def element(*point: tirx.Var) -> Expr:
        *rows, n = point
        right = packed[n // width, k // PAIR, n % width * PAIR + k % PAIR]
        return te.sum(widened(rounded_bits(x[(*rows, k)])) * widened(right), axis=k)

    return te.compute((*x.shape[:-1], columns), element, name="matmul")
