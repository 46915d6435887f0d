"""Reading and writing at positions that tensors give."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lowering.rows import Cases, Row, Sample, row
from torch import Tensor as T


def _positions(s: Sample, *shape: int, size: int, dtype: torch.dtype = torch.int64) -> T:
    return s.ints(*shape, low=0, high=size, dtype=dtype)


def _unique(s: Sample, rows: int, count: int, size: int) -> T:
    return torch.stack([torch.randperm(size, generator=s.generator)[:count] for _ in range(rows)])


def index(x: T, i: T, j: T) -> tuple[T, ...]:
    return x[i], x[:, i], x[i, :, j], x[i, j], x[:, i, j], x[i[:, None], j], x[None, i]


def _index(s: Sample) -> Cases:
    return [(s.floats(5, 6, 7), torch.tensor([0, 3, -1]), torch.tensor([2, -2, 1]))]


def gather_kin(x: T, i: T) -> tuple[T, ...]:
    return x.gather(1, i), x.gather(0, i % x.shape[0])


def scatter_reduce(x: T, i: T, y: T, mode: str, include_self: bool) -> T:
    return x.scatter_reduce(1, i, y, mode, include_self=include_self)


def _scatter(s: Sample) -> Cases:
    return [
        (s.floats(4, 6), 1, _unique(s, 4, 3, 6), s.floats(4, 5)),
        (s.ints(4, 6), 0, _unique(s, 6, 2, 4).t(), s.ints(2, 6)),
        (s.floats(5), 0, torch.tensor([3, 1]), s.floats(2)),
    ]


def _reduced(s: Sample) -> Cases:
    i, y = _positions(s, 4, 3, size=6), s.floats(4, 5)
    y[0, 0] = float("nan")
    bools = s.bools(4, 6), i, s.bools(4, 5)
    return [
        *((s.floats(4, 6), i, y, m, f) for m in ("sum", "prod", "amax", "amin", "mean") for f in (True, False)),
        *((*bools, m, f) for m in ("sum", "prod", "amax", "amin") for f in (True, False)),
    ]


def _index_put(s: Sample) -> Cases:
    x, i = s.floats(5, 6), torch.tensor([0, 2, -2])
    return [
        (x, (i,), s.floats(3, 6), False),
        (x, (i, i + 1), s.floats(1), True),
        (x, (None, i), s.floats(5, 3), False),
        (x, (torch.tensor([1, 1, 1]),), s.floats(3, 6), True),
        (x, (s.bools(5, 6),), s.floats(), False),
        (x, (s.bools(5),), s.floats(6), True),
        (s.ints(4), (torch.tensor([3]),), s.ints(1), False),
    ]


ROWS: list[Row] = [
    row(
        "aten.embedding",
        lambda i, w: F.embedding(i, w),
        lambda s: [
            (_positions(s, 2, 3, size=10), s.floats(10, 4)),
            (_positions(s, 5, size=10, dtype=torch.int32), s.floats(10, 3)),
            (_positions(s, 0, size=10), s.floats(10, 4)),
        ],
        dynamic=lambda s, n: (_positions(s, n, n, size=10), s.floats(10, 4)),
    ),
    row(
        "aten.index_select",
        lambda x, dim, i: x.index_select(dim, i),
        lambda s: [(s.floats(4, 6), 1, _positions(s, 3, size=6)), (s.ints(4, 6), 0, torch.tensor(2))],
    ),
    row(
        "aten.index.Tensor",
        index,
        _index,
        dynamic=lambda s, n: (s.floats(n, n, 7), torch.tensor([0, 3, -1]), torch.tensor([2, -2, 1])),
    ),
    row(
        "aten.gather",
        gather_kin,
        lambda s: [
            (s.floats(5, 6), _positions(s, 5, 3, size=6)),
            (s.ints(5, 6), _positions(s, 2, 6, size=5)),
        ],
    ),
    row(
        "aten.gather",
        lambda x, i: x.gather(1, i),
        lambda s: [(s.floats(5, 6), _positions(s, 5, 3, size=6))],
        id="gather-dynamic",
        dynamic=lambda s, n: (s.floats(n, 4), _positions(s, n, 3, size=4)),
    ),
    row(
        "aten.take",
        torch.take,
        lambda s: [(s.floats(4, 5), torch.tensor([[0, -1], [7, -20]]))],
    ),
    row(
        "aten.one_hot",
        F.one_hot,
        lambda s: [(_positions(s, 2, 3, size=10), 10)],
        dynamic=lambda s, n: (_positions(s, n, size=5), 5),
    ),
    row(
        "aten.bucketize.Tensor",
        lambda v, e: (torch.bucketize(v, e), torch.bucketize(v, e, right=True, out_int32=True)),
        lambda s: [
            (torch.tensor([[0.0, 1, 2.5], [float("nan"), -1, 9]]), torch.tensor([0.0, 1, 2, 3])),
            (s.special(), torch.tensor([0.0, 1, float("nan"), 2, float("nan"), -3])),
            (s.special(torch.bfloat16), s.special(torch.bfloat16)),
            (s.ints(3, 0), s.ints(5)),
            (s.ints(), s.ints(0)),
        ],
        dynamic=lambda s, n: (s.floats(n, 4), s.floats(n)),
    ),
    row(
        "aten.repeat_interleave.Tensor",
        lambda repeats, size: torch.repeat_interleave(repeats, output_size=size),
        lambda s: [
            (torch.tensor([2, 0, 1, 3]), 6),
            (torch.tensor([0, 5], dtype=torch.int32), 5),
            (torch.tensor([0, 0]), 0),
            (s.ints(0), 0),
        ],
    ),
    row(
        "aten.searchsorted.Tensor",
        lambda e, v: (torch.searchsorted(e, v), torch.searchsorted(e, v, side="right", out_int32=True)),
        lambda s: [(s.floats(2, 7).sort(-1).values, s.floats(2, 4)), (s.ints(9).sort().values, s.ints(3))],
    ),
    row("aten.scatter.src", torch.scatter, _scatter),
    row(
        "aten.scatter.value",
        torch.scatter,
        lambda s: [(s.floats(4, 6), 1, _positions(s, 4, 3, size=6), 2.5)],
        dynamic=lambda s, n: (s.floats(n, 3, 6), 2, _positions(s, n, 3, n, size=6), 2.5),
    ),
    row(
        "aten.scatter_add",
        torch.scatter_add,
        lambda s: [
            (s.floats(4, 6), 0, _positions(s, 9, 6, size=4), s.floats(9, 6)),
            (s.ints(4), 0, _positions(s, 7, size=4), s.ints(7)),
        ],
        dynamic=lambda s, n: (s.floats(4), 0, _positions(s, n, size=4), s.floats(n)),
    ),
    row(
        "aten.scatter.reduce",
        lambda x, i, y: (x.scatter(1, i, y, reduce="add"), x.scatter(1, i, y, reduce="multiply")),
        lambda s: [(s.floats(4, 6), _positions(s, 4, 3, size=6), s.floats(4, 5))],
    ),
    row("aten.scatter_reduce.two", scatter_reduce, _reduced),
    row(
        "aten.index_put",
        lambda x, i, v, accumulate=False: torch.ops.aten.index_put(x, i, v, accumulate),
        _index_put,
        dynamic=lambda s, n: (s.floats(n, 3), (torch.tensor([0, -1]),), s.floats(2, 3)),
    ),
    row(
        "aten.index_add",
        lambda x, i, y: (x.index_add(0, i, y), x.index_add(0, i, y, alpha=2)),
        lambda s: [(s.floats(5, 6), torch.tensor([0, 2, 2]), s.floats(3, 6))],
    ),
    row(
        "aten.index_copy",
        torch.index_copy,
        lambda s: [(s.floats(5, 6), 1, torch.tensor([4, 2, 0]), s.floats(5, 3))],
    ),
    row(
        "aten.index_fill.int_Scalar",
        torch.index_fill,
        lambda s: [
            (s.floats(5, 6), 1, torch.tensor([4, -6, 0]), 2.5),
            (s.ints(5), 0, torch.tensor([-1]), 7),
            (s.floats(), 0, torch.tensor([0]), 7),
            (s.floats(), 0, s.ints(0), 7),
        ],
    ),
    row(
        "aten.index_fill.int_Tensor",
        torch.index_fill,
        lambda s: [
            (s.floats(5, 6), 0, torch.tensor([-1, 1]), s.floats()),
            (s.bools(4), 0, s.ints(1) % 4, s.ints()),
        ],
    ),
    row(
        "aten.max_unpool2d",
        lambda x, i: torch._C._nn.max_unpool2d(x, i, [6, 8]),  # a trace of F.max_unpool2d fails in PyTorch
        lambda s: [(s.floats(2, 3, 4), _unique(s, 2, 12, 48).reshape(2, 3, 4))],
    ),
    row(
        "aten.max_unpool3d",
        lambda x, i: torch._C._nn.max_unpool3d(x, i, [4, 6, 2], [2, 2, 2], [0, 0, 0]),
        lambda s: [(s.floats(1, 2, 2, 3, 1), _unique(s, 2, 6, 48).reshape(1, 2, 2, 3, 1))],
    ),
    row(
        "aten._unsafe_index.Tensor",
        lambda x, i: torch.ops.aten._unsafe_index(x, [None, i]),
        lambda s: [(s.floats(3, 4), _positions(s, 5, size=4))],
    ),
    row(
        "aten.take_along_dim",
        lambda x, i: (torch.take_along_dim(x, i, 1), torch.take_along_dim(x, i)),
        lambda s: [
            (s.floats(3, 4), _positions(s, 1, 5, size=4)),
            (s.floats(1, 4), _positions(s, 3, 2, size=4)),
        ],
    ),
    row(
        "aten.scatter.value_reduce",
        lambda x, i: (x.scatter(1, i, 2.0, reduce="add"), x.scatter(1, i, 2.0, reduce="multiply")),
        lambda s: [(s.floats(4, 6), _positions(s, 4, 3, size=6))],
    ),
]
