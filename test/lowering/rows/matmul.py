"""Matrix products of every combination of ranks."""

from __future__ import annotations

import importlib

import torch
import torch.nn.functional as F
from lowering.rows import Cases, Row, Sample, row


def _pairs(*shapes: tuple[tuple[int, ...], tuple[int, ...]]):
    def inputs(s: Sample) -> Cases:
        return [(s.floats(*a), s.floats(*b)) for a, b in shapes]

    return inputs


def _matmul(s: Sample) -> Cases:
    shapes = [
        ((5,), (5,)),
        ((5,), (5, 3)),
        ((4, 5), (5,)),
        ((2, 1, 3, 5), (4, 5, 2)),
        ((2, 4, 5), (5,)),
        ((5,), (3, 5, 2)),
    ]
    return [(s.floats(*a), s.floats(*b)) for a, b in shapes] + [
        (s.floats(3, 4, dtype=torch.bfloat16), s.floats(2, 4, 5, dtype=torch.bfloat16)),
        (s.ints(2, 3, 4), s.ints(4, 5)),
        (s.floats(2, 3, 0), s.floats(0, 4)),
        (s.floats(2, 5, 3).transpose(1, 2), s.floats(5, 4)),
    ]


def _mm(s: Sample) -> Cases:
    return [*_pairs(((4, 7), (7, 3)), ((0, 4), (4, 2)))(s), (s.ints(3, 4), s.ints(4, 2))]


def _linear(s: Sample) -> Cases:
    return [
        (s.floats(2, 3, 5), s.floats(7, 5), s.floats(7)),
        (s.floats(4, 5), s.floats(7, 5), None),
        (s.floats(5), s.floats(7, 5), s.floats(7)),
        (s.floats(0, 5), s.floats(3, 5), s.floats(3)),
        (
            s.floats(3, 8, dtype=torch.float16),
            s.floats(5, 8, dtype=torch.float16),
            s.floats(5, dtype=torch.float16),
        ),
    ]


def _addmm(s: Sample) -> Cases:
    nan = torch.full((3, 5), float("nan"))
    x, y = s.floats(3, 4), s.floats(4, 5)
    return [
        *(
            (s.floats(6, dtype=d), s.floats(5, 4, dtype=d) * 200, s.floats(4, 6, dtype=d) * 200, 2, 0.01)
            for d in (torch.float16, torch.bfloat16)
        ),
        (s.floats(3, 5), x, y, 1, 1),
        (s.floats(5), x, y, 0.5, -2.0),
        (nan, x, y, 0, 1),
    ]


def addmm(c: torch.Tensor, x: torch.Tensor, y: torch.Tensor, beta: float, alpha: float) -> torch.Tensor:
    return torch.addmm(c, x, y, beta=beta, alpha=alpha)


def baddbmm(c: torch.Tensor, x: torch.Tensor, y: torch.Tensor, beta: float, alpha: float) -> torch.Tensor:
    return torch.baddbmm(c, x, y, beta=beta, alpha=alpha)


def _einsum(s: Sample) -> Cases:
    a, c = s.floats(2, 3, 4), s.floats(2, 4, 5)
    return [
        ("bij,bjk->bik", (a, c)),
        ("bij,bjk->ki", (a, c)),
        ("bij,bjk", (a, c)),
        ("i,j->ij", (s.floats(3), s.floats(4))),
        ("bhqd,bhkd->bhqk", (s.floats(2, 2, 3, 4), s.floats(2, 2, 5, 4))),
        ("ij,jk,kl->il", (s.floats(3, 4), s.floats(4, 2), s.floats(2, 5))),
        ("bij->bj", (a,)),
        ("ij,jk->ik", (s.floats(2, 1), s.floats(3, 4))),
        ("ijk,jkl->il", (s.floats(2, 3, 4), s.floats(1, 4, 5))),
    ]


def _grouped(x: torch.Tensor, weights: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Experts as PyTorch has them for small floats and rows of 16 bytes, and as ``transformers`` does for others."""
    if x.dtype != torch.float64 and weights.shape[-1] % 8 == 0:
        return torch._grouped_mm(x, weights, offs=ends)
    importlib.import_module("transformers.integrations.moe")  # registers the op
    return torch.ops.transformers.grouped_mm_fallback(x, weights, ends)


ROWS: list[Row] = [
    row(
        "aten.matmul",
        torch.matmul,
        _matmul,
        dynamic=lambda s, n: (s.floats(n, 2, n, 4), s.floats(n, 2, 4, n)),
    ),
    row(
        "aten.matmul",
        lambda v, m, x: (v @ m[0], v @ m, m.mT @ v, x @ v, (x @ v.unsqueeze(1)).squeeze(-1), m[0].mT @ v),
        lambda s: [(s.floats(5), s.floats(3, 5, 2), s.floats(2, 4, 5))],
        id="matmul-vector",
        dynamic=lambda s, n: (s.floats(5), s.floats(n, 5, n), s.floats(2, n, 5)),
    ),
    row(
        "aten.matmul",
        lambda x, y: (
            x.expand(3, -1, -1) @ y,
            torch.bmm(y.mT, x.mT.expand(3, -1, -1)),
            x @ y,
            x.squeeze(0) @ y,
            x.expand(3, -1, -1) @ x.mT.expand(3, -1, -1),
            x.expand(2, 3, -1, -1) @ x.mT.expand(2, 3, -1, -1),
            x.expand(2, 1, -1, -1) @ y,
        ),
        lambda s: [(s.floats(1, 2, 4), s.floats(3, 4, 5))],
        id="matmul-broadcast",
    ),
    row("aten.mm", torch.mm, _mm, dynamic=lambda s, n: (s.floats(n, 4), s.floats(4, 3))),
    row("aten.bmm", torch.bmm, _pairs(((3, 4, 5), (3, 5, 2)))),
    row("aten.mv", torch.mv, _pairs(((4, 5), (5,)))),
    row("aten.outer", torch.outer, lambda s: [(s.floats(3), s.floats(4)), (s.ints(3), s.floats(2))]),
    row(
        "aten.linear",
        F.linear,
        _linear,
        dynamic=lambda s, n: (s.floats(n, 3, 5), s.floats(7, 5), s.floats(7)),
    ),
    row("aten.addmm", addmm, _addmm),
    row("aten.baddbmm", baddbmm, lambda s: [(s.floats(3, 4, 2), s.floats(3, 4, 5), s.floats(3, 5, 2), 0.5, 2)]),
    row("aten.addbmm", torch.addbmm, lambda s: [(s.floats(4, 2), s.floats(3, 4, 5), s.floats(3, 5, 2))]),
    row("aten.addmv", torch.addmv, lambda s: [(s.floats(4), s.floats(4, 5), s.floats(5))]),
    row("aten.addr", torch.addr, lambda s: [(s.floats(4, 5), s.floats(4), s.floats(5))]),
    row("aten.einsum", lambda equation, tensors: torch.einsum(equation, *tensors), _einsum),
    row("aten.vdot", torch.vdot, lambda s: [(s.floats(9), s.floats(9)), (s.ints(5), s.ints(5))]),
    row(
        ["aten._grouped_mm", "transformers.grouped_mm_fallback"],
        _grouped,
        lambda s: [
            (s.floats(12, 8).bfloat16(), s.floats(3, 8, 16).bfloat16(), torch.tensor([4, 4, 12]).int()),
            (s.floats(12, 8), s.floats(3, 8, 16), torch.tensor([4, 4, 12]).int()),
            (s.floats(9, 4), s.floats(2, 4, 5), torch.tensor([2, 7])),
        ],
        refused={"lazy": "as_strided"},
    ),
    row(
        "aten.einsum",
        lambda x: (torch.einsum("i->", x), torch.einsum("i,i->", x, x), torch.einsum("i,j->j", x, x)),
        lambda s: [(s.ints(5).to(torch.int32),)],
        id="einsum-of-integers",
    ),
]
