"""Reductions, statistics, norms."""

from __future__ import annotations

from typing import Any

import torch
from lowering.rows import Cases, Inputs, Row, Sample, row
from torch import Tensor as T


def over(*options: Any, ints: bool = True, special: bool = True) -> Inputs:
    """Tensors of ranks 0 to 4 with each of ``options`` (a dimension list and so on) that fits a rank of 3."""

    def inputs(s: Sample) -> Cases:
        cases: Cases = [(s.floats(3, 5, 7), *option) for option in options]
        first = options[0]
        cases += [
            (s.floats(4, 3, 5).permute(2, 0, 1), *first),
            (s.floats(2, 5, 6, dtype=torch.bfloat16), *first),
            (s.floats(2, 300, 4), *first),
        ]
        if ints:
            cases += [(s.ints(3, 4, 5), *first), (s.ints(3, 4, 5, dtype=torch.int32), *first)]
        if special:
            cases += [(s.special().reshape(2, 8).expand(3, 2, 8), *first)]
        return cases

    return inputs


def whole(s: Sample) -> Cases:
    return [
        (s.floats(3, 5, 7),),
        (s.floats(),),
        (s.floats(9, 700).t(),),
        (s.floats(11, dtype=torch.float16),),
    ]


def whole_with_ints(s: Sample) -> Cases:
    return [*whole(s), (s.ints(3, 5),), (s.special(),)]


def tests(s: Sample) -> Cases:
    return [
        (s.bools(3, 4), 1),
        (s.ints(3, 4, low=0, high=2), 0),
        (s.floats(2, 3, 5), -1),
        (s.bools(0, 3), 0),
        (s.special().reshape(2, 8), 1),
    ]


def distinct(s: Sample) -> Cases:
    return [
        (s.distinct(3, 5, 7), 1),
        (s.distinct(40, 3), 0),
        (s.ints(6, 20), 1),
        (s.special().reshape(4, 4), 1),
        (s.floats(), 0),
        (s.bools(5, 6), 1),
        (s.distinct(5, 9, dtype=torch.bfloat16), -1),
    ]


def numeric(s: Sample) -> Cases:
    return [case for case in distinct(s) if case[0].dtype != torch.bool]


def flattened(s: Sample) -> Cases:
    return [(s.distinct(3, 5, 7),), (s.special(),), (s.ints(30),), (s.floats(),)]


def by_size(s: Sample, n: int) -> tuple[T]:
    return (s.floats(n, 4, 5),)


_DIMS = over(([1],), ([0, 2],), ([-1],))

ROWS: list[Row] = [
    row("aten.sum.dim_IntList", torch.sum, _DIMS, dynamic=lambda s, n: (s.floats(n, 4, 5), [0, 1])),
    row(
        "aten.sum.dim_IntList",
        lambda x: x.sum([0, 2], keepdim=True),
        over(
            (),
        ),
        id="sum.dim_IntList-keepdim",
    ),
    row(
        "aten.sum.dim_IntList",
        lambda x: x.sum(1, dtype=torch.int64),
        over((), special=False),
        id="sum.dim_IntList-dtype",
    ),
    row(
        "aten.sum.dim_IntList",
        lambda x: x.sum(1),
        lambda s: [(s.floats(3, 0),), (s.floats(0, 3),), (s.bools(3, 4),)],
        id="sum.dim_IntList-empty",
    ),
    row("aten.sum", torch.sum, whole_with_ints, dynamic=by_size),
    row(
        "aten.mean.dim",
        torch.mean,
        over(([1],), ([0, 2],), ([-1], True), ints=False),
        dynamic=lambda s, n: (s.floats(n, 4, 5), [0, 1]),
    ),
    row("aten.mean.dim", lambda x: x.mean(1), lambda s: [(s.floats(3, 0),)], id="mean.dim-empty", folds=True),
    row("aten.mean", torch.mean, whole, dynamic=by_size),
    row("aten.prod.dim_int", torch.prod, over((1,), (-1, True))),
    row(
        "aten.prod",
        torch.prod,
        lambda s: [(s.floats(3, 5),), (s.ints(4, low=1, high=4),), (s.floats(),), (s.floats(0),)],
    ),
    row("aten.any.dim", torch.any, tests),
    row("aten.all.dim", torch.all, tests),
    row("aten.any", torch.any, lambda s: [(s.bools(5, 3),), (s.floats(0),), (s.special(),)]),
    row("aten.all", torch.all, lambda s: [(s.bools(5, 3),), (s.floats(0),), (s.special(),)]),
    row("aten.any.dims", lambda x: torch.any(x, (0, 2)), lambda s: [(s.bools(3, 4, 2),)]),
    row(
        "aten.aminmax",
        lambda x: tuple(torch.aminmax(x, dim=1)),
        lambda s: [(s.floats(3, 7),), (s.special().reshape(4, 4),)],
    ),
    row(
        "aten.count_nonzero",
        torch.count_nonzero,
        lambda s: [
            (s.ints(5, 6, low=-1, high=2), 1),
            (s.special(), 0),
            (s.ints(30, low=0, high=3),),
            (s.floats(), 0),
        ],
    ),
    row(
        "aten.count_nonzero.dim_IntList",
        torch.count_nonzero,
        lambda s: [(s.ints(5, 6, 2, low=-1, high=2), [0, 2])],
    ),
    row(
        "aten.amax",
        torch.amax,
        over(([1],), ([0, 2], True), ([],)),
        dynamic=lambda s, n: (s.floats(n, 4, 5), [0]),
    ),
    row("aten.amin", torch.amin, over(([1],), ([0, 2], True), ([],))),
    row("aten.max", torch.max, whole_with_ints),
    row("aten.min", torch.min, whole_with_ints),
    row("aten.max.dim", torch.max, distinct, dynamic=lambda s, n: (s.distinct(n, 5), 0)),
    row("aten.min.dim", torch.min, distinct),
    row("aten.max.dim", lambda x, d: torch.max(x, d, keepdim=True), distinct, id="max.dim-keepdim"),
    row("aten.argmax", torch.argmax, numeric, dynamic=lambda s, n: (s.distinct(n, 5), 0)),
    row("aten.argmin", torch.argmin, numeric),
    row("aten.argmax", lambda x: torch.argmax(x), flattened, id="argmax-all"),
    row(
        "aten.var.correction",
        lambda x, d: torch.var(x, d, correction=0),
        over(([1],), ([0, 2],), ints=False),
        dynamic=lambda s, n: (s.floats(n, 4), [0]),
    ),
    row("aten.var.dim", lambda x, d: torch.var(x, d, True), over(([1],), ([0, 2],), ints=False)),
    row("aten.var", lambda x: torch.var(x, False), whole),
    row(
        "aten.std.correction",
        lambda x, d: torch.std(x, d, correction=2, keepdim=True),
        over(([1],), ([0, 2],), ints=False),
    ),
    row("aten.std.dim", lambda x, d: torch.std(x, d, False), over(([1],), ints=False)),
    row("aten.std", lambda x: torch.std(x, True), lambda s: [(s.floats(5, 4),), (s.floats(2000),)]),
    row(
        "aten.var_mean.correction",
        lambda x, d: torch.var_mean(x, d, correction=1),
        over(([1],), ([0, 2],), ints=False),
    ),
    row(
        ["aten.var_mean", "aten.var_mean.dim", "aten.std_mean.dim"],
        lambda x, d: (
            *torch.var_mean(x, unbiased=False),
            *torch.var_mean(x, d),
            *torch.std_mean(x, d, False),
        ),
        over(([1],), ([0, 2],), ints=False),
    ),
    row(
        "aten.linalg_vector_norm",
        lambda x, d: torch.linalg.vector_norm(x, 2, d),
        over(([1],), ([0, 2],), ints=False),
    ),
    row(
        "aten.linalg_vector_norm",
        lambda x, p: torch.linalg.vector_norm(x, p, 1, True),
        lambda s: [(s.floats(3, 5, 2), p) for p in (0, 1, 3.5, float("inf"), -float("inf"))],
        id="linalg_vector_norm-orders",
    ),
    row(
        "aten._weight_norm",
        torch._weight_norm,
        lambda s: [
            (s.floats(4, 3, 5), s.floats(4, 1, 1), 0),
            (s.floats(3, 7), s.floats(1, 7), 1),
            (s.floats(3, 40, 9), s.floats(1)[0], -1),
        ],
    ),
    row(
        "aten.norm.Scalar",
        lambda x, p: torch.ops.aten.norm.Scalar(x, p),
        lambda s: [
            (s.floats(3, 5, 2), 2),
            (s.floats(0), 1),
            (s.floats(), 3.5),
            (s.floats(7), float("inf")),
            (s.floats(9).bfloat16(), 2),
        ],
    ),
    row("aten.logsumexp", torch.logsumexp, over(([1],), ([0, 2], True), ints=False)),
]
