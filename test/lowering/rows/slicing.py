"""Slices, selections, diagonals, windows and splits, and writing them back."""

from __future__ import annotations

import torch
from lowering.rows import Row, row
from torch import Tensor as T


def _slices(x: T) -> tuple[T, ...]:
    return x[1:], x[:, -2:], x[:, ::3], x[..., -100:100], x[5:], x[1:1], x[:, 2:100:2], x[:-1, 1:-1]


ROWS: list[Row] = [
    row(
        "aten.slice.Tensor",
        _slices,
        lambda s: [(s.floats(3, 7, 4),), (s.bools(4, 5),)],
    ),
    row(
        "aten.slice.Tensor",
        lambda x: (x[1:], x[:, -2:], x[:, ::3], x[:-1, 1:-1], x[-100:, :100]),
        lambda s: [(s.floats(3, 7, 4),)],
        id="slice-ends",
        dynamic=lambda s, n: (s.floats(n, n, 2),),
    ),
    row(
        "aten.slice.Tensor",
        lambda x, table: x + table[: x.shape[1]],
        lambda s: [(s.floats(2, 3, 4), s.floats(32, 4))],
        id="slice-to-size",
        dynamic=lambda s, n: (s.floats(n, n, 4), s.floats(32, 4)),
    ),
    row(
        "aten.select.int",
        lambda x: (x[0], x[:, -1], x[-2, 1], x[..., 2]),
        lambda s: [(s.floats(3, 7, 4),), (s.ints(2, 3, 3),)],
        dynamic=lambda s, n: (s.floats(n, n, 4),),
    ),
    row(
        "aten.narrow",
        lambda x: (x.narrow(1, 2, 3), x.narrow(0, -2, 2)),
        lambda s: [(s.floats(3, 7),)],
        folds=True,
        dynamic=lambda s, n: (s.floats(n, n),),
    ),
    row(
        "aten.diagonal",
        lambda x: (x.diagonal(), x.diagonal(1, -1, 0), x.diagonal(-2, 1, 2), x.diagonal(99, 0, 1)),
        lambda s: [(s.floats(3, 5, 4),)],
        dynamic=lambda s, n: (s.floats(n, n, 4),),
    ),
    row("aten.unfold", lambda x: (x.unfold(1, 3, 2), x.unfold(0, 1, 1)), lambda s: [(s.floats(3, 8),)]),
    row(
        "aten.split.Tensor",
        lambda x: (*x.split(3, 1), *x.split(9, 0)),
        lambda s: [(s.floats(3, 7),)],
    ),
    row("aten.split_with_sizes", lambda x: x.split([1, 2, 0, 4], -1), lambda s: [(s.floats(3, 7),)]),
    row(
        "aten.split_with_sizes",
        lambda x: x.split([1, 0, 4]),
        lambda s: [(s.ints(5, 0, 5),)],
        id="split-nothing",
    ),
    row(
        "aten.split.Tensor",
        lambda x: (*x.chunk(3, 1), *x.chunk(5, -1)),
        lambda s: [(s.floats(3, 7),)],
        id="chunk",
        dynamic=lambda s, n: (s.floats(n, 7),),
    ),
    row(
        "aten.slice.Tensor",
        lambda x: x.tensor_split(3, 1),
        lambda s: [(s.floats(3, 7),), (s.floats(3, 2),)],
        id="tensor_split.sections",
        dynamic=lambda s, n: (s.floats(n, 7),),
    ),
    row(
        "aten.slice.Tensor",
        lambda x: x.tensor_split((2, 5, -1), 1),
        lambda s: [(s.floats(3, 7),), (s.floats(3, 4),)],
        id="tensor_split.indices",
        dynamic=lambda s, n: (s.floats(n, 7),),
    ),
    row("aten.unbind.int", lambda x: (*x.unbind(), *x.unbind(-1)), lambda s: [(s.floats(3, 2, 4),)]),
    row(
        "aten.slice_scatter",
        lambda x, y: torch.slice_scatter(x, y, 1, 1, None, 3),
        lambda s: [(s.floats(3, 7, 2), s.floats(3, 2, 2)), (s.ints(3, 5), s.ints(3, 2))],
    ),
    row(
        "aten.slice_scatter",
        lambda x, y: torch.slice_scatter(x, y, 0, 1, -1),
        lambda s: [(s.floats(5, 2), s.floats(3, 2))],
        id="slice_scatter-dynamic",
    ),
    row(
        "aten.slice_scatter",
        lambda x, y: torch.slice_scatter(x, y @ y.transpose(1, 2), 1, 0, 3),
        lambda s: [(s.floats(2, 8, 3), s.floats(2, 3, 5))],
        id="slice_scatter-product",
    ),
    row(
        "aten.select_scatter",
        lambda x, y: torch.select_scatter(x, y, 1, -1),
        lambda s: [(s.floats(3, 7, 2), s.floats(3, 2))],
        dynamic=lambda s, n: (s.floats(n, n, 2), s.floats(n, 2)),
    ),
    row(
        "aten.diagonal_scatter",
        lambda x, y: torch.diagonal_scatter(x, y, -1, 0, 2),
        lambda s: [(s.floats(3, 7, 4), s.floats(7, 2))],
    ),
    row(
        ("aten.slice.Tensor", "aten.select.int", "aten.diagonal", "aten.unfold"),
        lambda x: (
            torch.slice_copy(x, 1, 1),
            torch.select_copy(x, 0, 1),
            torch.diagonal_copy(x),
            torch.unfold_copy(x, 1, 2, 2),
        ),
        lambda s: [(s.floats(3, 5),)],
        id="slice_copy.Tensor",
    ),
    row(
        ("aten.split.Tensor", "aten.unbind.int", "aten.split_with_sizes"),
        lambda x: (*torch.split_copy(x, 2), *torch.unbind_copy(x), *torch.split_with_sizes_copy(x, [1, 2])),
        lambda s: [(s.floats(3, 5),)],
        id="split_copy.Tensor",
    ),
    row(
        ("aten.split.Tensor", "aten.split_with_sizes"),
        lambda x: (*torch.unsafe_split(x, 2), *torch.unsafe_split_with_sizes(x, [1, 2])),
        lambda s: [(s.floats(3, 5),)],
        id="unsafe_split.Tensor",
    ),
]
