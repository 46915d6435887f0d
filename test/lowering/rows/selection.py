"""Results whose size the program finds, counts by bin, bags of rows, and elements of a rank."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lowering.rows import Cases, Row, Sample, row
from torch import Tensor as T


def _masks(s: Sample) -> Cases:
    none = [(torch.zeros(4, 2),), (s.floats(0, 3),), (s.ints(5, 0, 5),)]
    return [(s.bools(3, 4, 5),), (s.ints(7) % 3,), *none, (s.bools(5000),)]


def _selects(x: T, m: T, i: T) -> tuple[T, ...]:
    rows, columns = m[:, 0].clone(), m[0].clone()
    return (
        x[m],
        x[:, columns],
        x[rows],
        x[None, rows],
        x[i, :, i] if x.dim() > 2 else x[i[:1], columns],
        x[m] * x[m],
    )


def _bags(s: Sample) -> Cases:
    table, i, starts = (
        s.floats(10, 37),
        torch.randint(0, 10, (30,), generator=s.generator),
        torch.tensor([0, 5, 5, 30]),
    )
    flat = table, i, starts
    wide = s.floats(10, 150), i.reshape(3, 10), None
    weights = s.floats(30)
    return [
        *((*flat, mode, None, False, None) for mode in ("sum", "mean", "max")),
        *((*flat, mode, None, False, 3) for mode in ("sum", "mean", "max")),
        (*flat, "sum", weights, False, None),
        (*flat, "sum", weights, True, -1),
        (*wide, "mean", None, False, None),
        (*wide, "sum", weights.reshape(3, 10), False, None),
        (table.bfloat16(), i.int(), starts.int(), "sum", None, False, None),
    ]


def _bag(w: T, i: T, o: T | None, mode: str, weights: T | None, last: bool, padding: int | None) -> T:
    return F.embedding_bag(
        i, w, o, mode=mode, per_sample_weights=weights, include_last_offset=last, padding_idx=padding
    )


def _histograms(x: T, weight: T, edges: T) -> tuple[Any, ...]:
    return (
        torch.histogram(x, 5),
        torch.histogram(x, 4, range=(-1.0, 2.0), weight=weight, density=True),
        torch.histogram(x, edges),
        torch.histogram(x, edges, weight=weight),
    )


def _rows_by_bin(x: T, weight: T, edges: T) -> tuple[Any, ...]:
    return (
        torch.histogramdd(x, 3),
        torch.histogramdd(x, [2, 4], range=[-1.0, 1.0, -2.0, 2.0], weight=weight),
        torch.histogramdd(x, [edges, edges + 1], density=True),
    )


def _reduced_at(x: T, i: T, y: T) -> tuple[T, ...]:
    return tuple(
        x.index_reduce(0, i, y, how, include_self=kept)
        for how in ("prod", "mean", "amax", "amin")
        for kept in (True, False)
    )


def _segments(x: T, lengths: T, offsets: T) -> tuple[T, ...]:
    hows = ("sum", "mean", "max", "min", "prod")
    return (
        *(torch.segment_reduce(x, how, lengths=lengths, axis=0) for how in hows),
        *(torch.segment_reduce(x, how, offsets=offsets, axis=0, initial=2) for how in hows),
    )


def _with_nan(s: Sample, *shape: int, dtype: torch.dtype = torch.float32) -> T:
    x = s.floats(*shape, dtype=dtype)
    x.view(-1)[::7] = float("nan")
    x[..., -1] = float("nan")
    return x


def _medians(x: T) -> tuple[Any, ...]:
    along = (x.median(0), x.median(-1, True), x.nanmedian(1), x.nanmedian(0, True))
    return (*along, x.median(), x.nanmedian(), x[0, 0].median(), x[0, 0].nanmedian(0))


def _quantiles(x: T, q: T) -> tuple[T, ...]:
    modes = ("linear", "lower", "higher", "midpoint", "nearest")
    return (
        *(x.quantile(q, 1, interpolation=mode) for mode in modes),
        *(x.nanquantile(q, 0, True, interpolation=mode) for mode in modes),
        x.quantile(q),
        x.nanquantile(q[1], -1),
        x.quantile(0.3, 0),
        x.nanquantile(0.6),
    )


def _ordered(x: T) -> tuple[Any, ...]:
    return x.sort(stable=True, dim=0, descending=True), x.argsort(stable=True), x.msort()


ROWS: list[Row] = [
    row("aten.nonzero", torch.nonzero, lambda s: [*_masks(s), (torch.tensor(2.0),)]),
    row(
        ("aten.nonzero_numpy", "aten.where", "aten.argwhere"),
        lambda x: (*x.nonzero(as_tuple=True), *torch.where(x), torch.argwhere(x)),
        _masks,
    ),
    row(
        "aten.nonzero_static",
        lambda x, size: (
            torch.nonzero_static(x, size=size),
            torch.nonzero_static(x, size=size, fill_value=7),
        ),
        lambda s: [(s.bools(3, 4), 2), (s.ints(4) % 2, 9), (s.bools(3, 2), 0)],
    ),
    row(
        "aten.masked_select",
        torch.masked_select,
        lambda s: [
            (s.floats(3, 4), s.bools(3, 4)),
            (s.ints(3, 1), s.bools(4)),
            (s.floats(2), torch.zeros(2).bool()),
            (s.floats(70000), s.bools(70000)),
        ],
        dynamic=lambda s, n: (s.floats(n, 2), s.bools(n, 2)),
    ),
    row(
        "aten.index.Tensor",
        _selects,
        lambda s: [
            (s.floats(4, 5), s.bools(4, 5), torch.tensor([1, 2])),
            (s.ints(3, 4, 5), s.bools(3, 4), torch.tensor([0, -1])),
        ],
        id="index-mask",
    ),
    row(
        "aten.index_put",
        lambda x, m, v: (
            x.index_put((m,), v),
            x.index_put((m,), v, accumulate=True),
            torch.ops.aten.index_put(x, (None, m), x[:, m]),
        ),
        lambda s: [(s.floats(6, 6), torch.tensor([1, 0, 1, 0, 0, 1]).bool(), s.floats(3, 1))],
        id="index_put-mask",
    ),
    row(
        "aten.repeat_interleave.self_Tensor",
        lambda x, r: (
            torch.repeat_interleave(x, r, 0),
            torch.repeat_interleave(x, r[:1]),
            torch.repeat_interleave(r),
        ),
        lambda s: [(s.floats(4, 2), torch.tensor([2, 0, 1, 3])), (s.ints(2), torch.tensor([0, 0]).int())],
    ),
    row(
        "aten.bincount",
        lambda x, w: (torch.bincount(x), torch.bincount(x, w, minlength=12), torch.bincount(x, x)),
        lambda s: [
            (torch.randint(0, 9, (50,), generator=s.generator), s.floats(50)),
            (
                torch.randint(0, 9, (20,), generator=s.generator).to(torch.uint8),
                s.floats(20, dtype=torch.float64),
            ),
            (torch.randint(0, 300, (40000,), generator=s.generator), s.ints(40000)),
        ],
    ),
    row(
        "aten.histc",
        lambda x: (torch.histc(x), torch.histc(x, 10, -1, 1), torch.histc(x, 7, 2, 2)),
        lambda s: [(s.floats(60),), (s.floats(40000, dtype=torch.float64),), (torch.full((3,), 2.0),)],
    ),
    row(
        ("aten.histogram.bin_ct", "aten.histogram.bins_tensor"),
        _histograms,
        lambda s: [(s.floats(60), s.floats(60, low=0.0), torch.tensor([-2.0, -1, 0.5, 3]))],
    ),
    row(
        (
            "aten._histogramdd_bin_edges",
            "aten._histogramdd_from_bin_cts",
            "aten._histogramdd_from_bin_tensors",
        ),
        _rows_by_bin,
        lambda s: [(s.floats(60, 2), s.floats(60, low=0.0), torch.tensor([-2.0, -1, 0.5, 3]))],
    ),
    row("aten.embedding_bag.padding_idx", _bag, _bags),
    row(
        ("aten._embedding_bag", "aten.embedding_bag", "aten._embedding_bag_forward_only"),
        lambda w, i, o: (
            torch.ops.aten._embedding_bag(w, i, o)[0],
            torch.ops.aten.embedding_bag(w, i, o, False, 1)[0],
            torch.ops.aten._embedding_bag_forward_only(w, i, o)[0],
        ),
        lambda s: [(s.floats(9, 4), torch.tensor([3, 1, 8, 8]), torch.tensor([0, 1]))],
    ),
    row(
        ("aten._unique2", "aten._unique"),
        lambda x: (
            torch.unique(x, return_inverse=True, return_counts=True),
            torch.unique(x),
            torch._unique(x),
        ),
        lambda s: [
            (s.ints(4, 9),),
            (torch.tensor([0.0, float("nan"), -0.0, 1, float("nan"), 1]),),
            (s.bools(9),),
            (s.ints(300, dtype=torch.uint8, low=0),),
            (s.floats(0, 3),),
        ],
    ),
    row(
        "aten.unique_consecutive",
        lambda x: (
            torch.unique_consecutive(x, return_inverse=True, return_counts=True),
            torch.unique_consecutive(x, dim=0),
            torch.unique_consecutive(x, dim=-1),
        ),
        lambda s: [(s.ints(30) % 2,), (s.bools(9, 2),)],
    ),
    row(
        "aten.unique_dim",
        lambda x, dim: torch.unique(x, dim=dim, return_inverse=True, return_counts=True),
        lambda s: [(s.ints(40, 3) % 2, 0), (s.bools(2, 3, 25).float(), -1), (s.bools(1, 3), 0)],
    ),
    row(
        "aten.index_reduce",
        _reduced_at,
        lambda s: [
            (s.floats(5, 6), torch.tensor([0, 2, 2]), s.floats(3, 6)),
            (s.ints(5), torch.tensor([1, 1, 4]), s.ints(3)),
        ],
    ),
    row(
        "aten.put",
        lambda x, i, y: (x.put(i, y), x.put(i, y, accumulate=True)),
        lambda s: [(s.floats(4, 5), torch.tensor([[0, -1], [7, 4]]), s.floats(4))],
    ),
    row(
        "aten.masked_scatter",
        torch.masked_scatter,
        lambda s: [
            (s.floats(4, 5), s.bools(4, 5), s.floats(30)),
            (s.ints(4, 5), s.bools(4, 1), s.ints(5, 5)),
        ],
    ),
    row(
        "aten.scatter_reduce.two",
        lambda x, i, y: (
            x.scatter_reduce(0, i, y, "mean"),
            x.scatter_reduce(0, i, y, "mean", include_self=False),
        ),
        lambda s: [(s.ints(5), torch.tensor([1, 1, 4]), s.ints(3))],
        id="scatter_reduce-mean-of-integers",
    ),
    row(
        ("aten.searchsorted.Scalar", "aten.bucketize.Scalar"),
        lambda e: (
            torch.searchsorted(e, 1.5),
            torch.bucketize(1, e, right=True),
            torch.searchsorted(e, 2, side="right"),
        ),
        lambda s: [(torch.tensor([0.0, 1, 2]),), (torch.tensor([0, 1, 2]),)],
    ),
    row(
        "aten.segment_reduce",
        _segments,
        lambda s: [(_with_nan(s, 5, 6), torch.tensor([2, 0, 3]), torch.tensor([0, 2, 2, 5]))],
    ),
    row(
        ("aten.median", "aten.median.dim", "aten.nanmedian", "aten.nanmedian.dim"),
        _medians,
        lambda s: [
            (_with_nan(s, 5, 33),),
            (s.floats(5, 33),),
            (s.ints(6, 40),),
            (_with_nan(s, 3, 9, dtype=torch.bfloat16),),
        ],
    ),
    row(
        "aten.kthvalue",
        lambda x, k: (x.kthvalue(k), x.kthvalue(k, 0, True)),
        lambda s: [(s.ints(6, 40), 4), (_with_nan(s, 5, 33, dtype=torch.float64), 3)],
        id="kthvalue-ties",
    ),
    row(
        "aten.mode",
        lambda x: (x.mode(), x.mode(0, True)),
        lambda s: [(s.ints(6, 15) % 3,), (s.floats(5, 9).round(),), (s.bools(4, 5),), (s.ints(),)],
    ),
    row(
        ("aten.quantile", "aten.quantile.scalar", "aten.nanquantile", "aten.nanquantile.scalar"),
        _quantiles,
        lambda s: [
            (_with_nan(s, 5, 9), torch.tensor([0.0, 0.3, 0.99, 1.0])),
            (s.floats(5, 9, dtype=torch.float64), torch.tensor([0.0, 0.5], dtype=torch.float64)),
        ],
    ),
    row(
        ("aten.sort.stable", "aten.argsort.stable", "aten.msort"),
        _ordered,
        lambda s: [(_with_nan(s, 5, 9),), (s.ints(6, 300) % 3,)],
    ),
    row(
        "aten.topk",
        lambda x, y: (*x.topk(1), *y.topk(2, 1), *y.topk(0, 0)),
        lambda s: [(s.floats(), s.floats(0, 4)), (s.ints(), s.ints(0, 3))],
        id="topk-of-nothing",
    ),
]
