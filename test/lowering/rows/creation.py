"""Creation, casts, triangles, scans and sorting."""

from __future__ import annotations

import torch
from lowering.rows import Cases, Row, Sample, row
from torch import Tensor as T

_ALL = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int32,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.bool,
)


def casts(s: Sample) -> Cases:
    sources = [s.floats(11), s.ints(7, low=0, high=100), s.bools(5), s.floats(9, dtype=torch.bfloat16)]
    positive = [source.abs() if source.is_floating_point() else source for source in sources]
    return [(source, dtype) for source in positive for dtype in _ALL if source.dtype != dtype]


def one_row(s: Sample) -> Cases:
    return [(s.floats(7, 4),)]


def matrices(s: Sample) -> Cases:
    return [
        (s.floats(4, 6), 0),
        (s.floats(2, 5, 3), 1),
        (s.ints(5, 5), -2),
        (s.floats(3, 0), 0),
        (s.bools(4, 4), 0),
    ]


def lines(s: Sample) -> Cases:
    return [
        (s.floats(3, 50), 1),
        (s.floats(4, 3, 5), 0),
        (s.floats(5, 4).t(), -1),
        (s.ints(3, 7), 1),
        (s.bools(9), 0),
        (s.floats(6, dtype=torch.bfloat16), 0),
        (s.floats(), 0),
        (s.floats(3, 0), 1),
        (s.special()[:-3], 0),
    ]


def sortable(s: Sample) -> Cases:
    return [
        (s.distinct(3, 7), 1, False),
        (s.distinct(6, 4), 0, True),
        (s.ints(5, 9, low=0, high=4), 1, False),
        (s.special(), 0, False),
        (s.special(), 0, True),
        (s.bools(8), 0, True),
        (s.distinct(9, dtype=torch.float64), 0, False),
        (s.distinct(9, dtype=torch.bfloat16), 0, False),
        (s.floats(), 0, False),
        (s.floats(0, 3), 0, False),
    ]


def top(s: Sample) -> Cases:
    return [
        (s.distinct(3, 17), 5, 1, True),
        (s.distinct(9, 4), 2, 0, False),
        (s.distinct(40), 40, -1, True),
        (s.distinct(6, 5, dtype=torch.int64), 1, 1, True),
    ]


def likes(s: Sample) -> Cases:
    return [
        (s.floats(3, 4),),
        (s.ints(5),),
        (s.floats(),),
        (s.floats(0, 2, dtype=torch.bfloat16),),
        (s.floats(4, 0, dtype=torch.bfloat16),),
        (s.bools(3),),
    ]


def by_size(s: Sample, n: int) -> tuple[T]:
    return (s.floats(n, 4),)


def extrema(s: Sample) -> Cases:
    return [
        (s.floats(3, 5, 7), 1),
        (s.floats(4, 9), -1),
        (s.floats(2, 8, dtype=torch.float64), 0),
        (s.ints(5, 6, low=-2, high=3), 0),
        (s.ints(33, dtype=torch.int32), 0),
        (s.bools(4, 5), 1),
        (s.special(), 0),
        (s.special().flip(0), 0),
        (s.special()[:, None], 0),
        (s.floats(5, 6, dtype=torch.bfloat16), 1),
        (s.floats(), 0),
        (s.floats(3, 0), 0),
    ]


ROWS: list[Row] = [
    row("aten.to.dtype", lambda x, dtype: x.to(dtype), casts),
    row(
        "aten.to.dtype",
        lambda x: x.to(torch.int32),
        lambda s: [(s.floats(50, low=-2000, high=2000),)],
        id="to.dtype-truncation",
    ),
    row(
        "aten.to.dtype",
        lambda x: x.to(torch.bool),
        lambda s: [(s.special(),), (s.ints(9, low=-1, high=2),)],
        id="to.dtype-bool",
    ),
    row("aten.arange", lambda x: (torch.arange(x.shape[0]), x), one_row, dynamic=by_size, folds=True),
    row(
        "aten.arange",
        lambda x: x + torch.arange(x.shape[0])[:, None],
        one_row,
        dynamic=by_size,
        id="arange-used",
        folds=True,
    ),
    row("aten.arange.start", lambda x: (torch.arange(2, x.shape[0]), x), one_row, dynamic=by_size, folds=True),
    row(
        "aten.arange.start_step",
        lambda x: (torch.arange(1, x.shape[0], 3), x),
        one_row,
        dynamic=by_size,
        folds=True,
    ),
    row("aten.full", lambda x: (torch.full((x.shape[0], 3), 1.5), x), one_row, dynamic=by_size, folds=True),
    row(
        "aten.zeros",
        lambda x: (torch.zeros(2, x.shape[0], dtype=torch.int32), x),
        one_row,
        dynamic=by_size,
        folds=True,
    ),
    row(
        "aten.ones",
        lambda x: (torch.ones(x.shape[0], dtype=torch.bfloat16), x),
        one_row,
        dynamic=by_size,
        folds=True,
    ),
    row("aten.eye", lambda x: (torch.eye(x.shape[0]), x), one_row, dynamic=by_size, folds=True),
    row("aten.eye.m", lambda x: (torch.eye(x.shape[0], 3), x), one_row, dynamic=by_size, folds=True),
    row(
        "aten.zeros",
        lambda x: torch.where(x < 99, x, torch.empty(x.shape[0], 4)),
        one_row,
        id="empty.memory_format",
        dynamic=by_size,
        folds=True,
    ),
    row(
        "aten.scalar_tensor",
        lambda x: (torch.scalar_tensor(x.shape[0]), x),
        one_row,
        dynamic=by_size,
        folds=True,
    ),
    row("aten.full_like", lambda x: (torch.full_like(x, 2), x), likes),
    row(
        "aten.fill.Scalar",
        lambda x: (torch.fill(x, 2.5), x),
        likes,
        refused={"torchscript": "torch.jit.trace fails with an internal assertion on aten::full_like"},
    ),
    row("aten.zeros_like", lambda x: (torch.zeros_like(x), x), likes, dynamic=by_size),
    row("aten.ones_like", lambda x: (torch.ones_like(x), x), likes),
    row("aten.new_full", lambda x: (x.new_full((2, 3), 5), x), likes),
    row(
        "aten.new_zeros",
        lambda x: (x.new_zeros((x.shape[0], 3)), x),
        lambda s: [(s.floats(3, 4),), (s.ints(2),)],
        dynamic=by_size,
    ),
    row("aten.new_ones", lambda x: (x.new_ones((2, 3)), x), likes),
    row(
        "aten.linspace",
        lambda x, *a: (torch.linspace(*a), x),
        lambda s: [(s.floats(1), 0.0, 1.0, 7), (s.floats(1), 5, -5, 4), (s.floats(1), 1.0, 2.0, 1)],
        folds=True,
    ),
    row("aten.tril", torch.tril, matrices, dynamic=lambda s, n: (s.floats(n, 7), 0)),
    row("aten.triu", torch.triu, matrices),
    row("aten.cumsum", torch.cumsum, lines, dynamic=lambda s, n: (s.floats(n, 7), 0)),
    row(
        "aten.cumsum",
        lambda x: x.cumsum(0, dtype=torch.float64),
        lambda s: [(s.floats(9),)],
        id="cumsum-dtype",
    ),
    row("aten.cumprod", torch.cumprod, lines),
    row(
        "aten.logcumsumexp",
        torch.logcumsumexp,
        lambda s: [
            (s.floats(3, 5, 7), 1),
            (s.floats(4, 9, low=-900, high=900), -1),
            (s.floats(2, 8, dtype=torch.float64), 0),
            (s.special(), 0),
            (s.special().flip(0), 0),
            (s.floats(), 0),
            (s.floats(3, 0), 1),
        ],
        dynamic=lambda s, n: (s.floats(n, 7), 0),
    ),
    row("aten.cummax", torch.cummax, extrema, dynamic=lambda s, n: (s.floats(n, 7), 0)),
    row("aten.cummin", torch.cummin, extrema, dynamic=lambda s, n: (s.floats(3, n), 1)),
    row("aten.sort", torch.sort, sortable, dynamic=lambda s, n: (s.distinct(n, 7), 0, False)),
    row("aten.argsort", torch.argsort, sortable),
    row(
        "aten.kthvalue",
        lambda x, k, d: tuple(torch.kthvalue(x, k, d)),
        lambda s: [(s.distinct(4, 9), 3, 1), (s.distinct(7, 3), 7, 0)],
    ),
    row("aten.topk", torch.topk, top, dynamic=lambda s, n: (s.distinct(n, 7), 3, 0, True)),
]
