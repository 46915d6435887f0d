"""Weights kept as bfloat16 under ``accuracy="fast"``, where reading them is the work.

A product with few rows reads every weight once, so its time is that of reading them from memory; in bfloat16
that is half of it. The values become float32 in registers (a shift by 16 bits, on any processor) and
products are summed in float32: the only error is the rounding of each weight, 2^-9 relative at most.

    p = pack(round(w))                        # [ceil(N / NR), K, NR], the upper halves as uint16
    y[m, n] = sum_k x[m, k] * widen(p[n // NR, k, n % NR])
"""

from __future__ import annotations

from tvm import te, tirx
from tvm.ir import Expr

from torch_tvm.schedules.target import CpuModel

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

    return te.compute((-(-columns // width), depth, width), element, name="pack")


def rounded_bits(value: Expr) -> Expr:
    """A float32 as the bits of the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = tirx.reinterpret("uint32", value)
    one = tirx.const(1, "uint32")
    half = tirx.const(0x7FFF, "uint32") + ((bits >> tirx.const(16, "uint32")) & one)
    nan = (bits & tirx.const(0x7FFFFFFF, "uint32")) > tirx.const(0x7F800000, "uint32")
    rounded = tirx.Select(nan, bits | tirx.const(0x400000, "uint32"), bits + half)
    return (rounded >> tirx.const(16, "uint32")).astype("uint16")


def widened(bits: Expr) -> Expr:
    """The bits of a bfloat16 as a float32, exactly."""
    return tirx.reinterpret("float32", bits.astype("uint32") << tirx.const(16, "uint32"))


def rounded_matmul(x: te.Tensor, packed: te.Tensor, columns: int) -> te.Tensor:
    """``x`` [..., K] times a weight that :func:`pack_rounded_panels` packed: float32 [..., columns]."""
    width = int(packed.shape[2])
    k = te.reduce_axis((0, packed.shape[1]), "k")

    def element(*point: tirx.Var) -> Expr:
        *rows, n = point
        return te.sum(x[(*rows, k)] * widened(packed[n // width, k, n % width]), axis=k)

    return te.compute((*x.shape[:-1], columns), element, name="matmul")
