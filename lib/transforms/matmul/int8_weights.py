"""int8 weights in the order that ``vpdpbusd`` reads them, and the product with them.

    y = matmul(x, w)                            # x: int8 or uint8 [..., K], w: int8 [K, N], summed in int32
becomes
    p = pack(w)                                 # int8 [ceil(N / NR), ceil(K / 4) + 1, NR * 4]
    y[…, n] = sum_k int32(x[…, k]) * int32(p[n // NR, k // 4, n % NR * 4 + k % 4])

Elements after the last k are zero, columns after the last repeat it. The last row of a panel holds
``-128 * sum_k w[k, n]`` as the four bytes of an int32: where the sums of a signed left operand start
(:mod:`torch_tvm.schedules.cpu.matmul.int8`).
"""

from __future__ import annotations

from tvm import te, tirx
from tvm.ir import Expr

from torch_tvm.schedules.instructions.dots import GROUP
from torch_tvm.tir import ceil_div


def pack_int8_panels(w: te.Tensor, width: int, is_transposed: bool) -> te.Tensor:
    """``w`` (int8, [N, K] if ``is_transposed``, else [K, N]) packed for panels of ``width`` columns."""
    columns, depth = (int(s) for s in (w.shape if is_transposed else reversed(w.shape)))
    groups = ceil_div(depth, GROUP)
    element = lambda n, k: w[n, k] if is_transposed else w[k, n]
    k = te.reduce_axis((0, depth), "k")
    start = te.compute(
        (columns,),
        lambda n: te.sum(element(n, k).astype("int32") * tirx.const(-128, "int32"), axis=k),
        name="start",
    )

    def packed(panel: tirx.Var, group: tirx.Var, byte: tirx.Var) -> Expr:
        n = tirx.min(panel * width + byte // GROUP, tirx.const(columns - 1, "int64"))
        position = group * GROUP + byte % GROUP
        inside = tirx.min(position, tirx.const(depth - 1, "int64"))
        value = tirx.Select(position < depth, element(n, inside), tirx.const(0, "int8"))
        shift = (byte % GROUP * 8).astype("int32")
        return tirx.Select(group < groups, value, (start[n] >> shift).astype("int8"))

    return te.compute((ceil_div(columns, width), groups + 1, width * GROUP), packed, name="pack")


def int8_matmul(x: te.Tensor, packed: te.Tensor, columns: int) -> te.Tensor:
    """``x`` [..., K] times a weight that :func:`pack_int8_panels` packed: int32 [..., columns]."""
    width = int(packed.shape[2]) // GROUP
    k = te.reduce_axis((0, x.shape[-1]), "k")

    def element(*point: tirx.Var) -> Expr:
        *rows, n = point
        right = packed[n // width, k // GROUP, n % width * GROUP + k % GROUP]
        return te.sum(x[(*rows, k)].astype("int32") * right.astype("int32"), axis=k)

    return te.compute((*x.shape[:-1], columns), element, name="matmul")
