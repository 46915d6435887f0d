"""Views, permutations, broadcasts and sizes."""

from __future__ import annotations

from typing import Any

import torch
from lowering.rows import Cases, Row, Sample, row


def _view(s: Sample) -> Cases:
    return [
        (s.floats(2, 6, 1), (3, -1)),
        (s.floats(4, 3).t(), (12,)),
        (s.floats(), (1, 1)),
        (s.ints(6), (2, 3)),
        (s.floats(0, 4), (2, 0)),
        (s.bools(4), (2, 2)),
    ]


def _as_strided(x: torch.Tensor) -> Any:
    return (
        x.as_strided((2, 3), (1, 2), 1),
        x.as_strided((0, 2), (1, 1)),
        x.as_strided((), ()),
        x[1:].as_strided((2, 2), (3, 1)),
        torch.as_strided_copy(x, (3, 3), (1, 1)),
        torch.as_strided_scatter(x, x[:2, :2] * 2, (2, 2), (1, 3), 1),
    )


ROWS: list[Row] = [
    row("aten.view", torch.reshape, _view, dynamic=lambda s, n: (s.floats(n, 3, 4), (-1, 12))),
    row(
        "aten.view",
        lambda x: (
            x.flatten(1),
            x.view(x.shape[0], 3, 2, 2),
            x.unflatten(1, (3, -1)),
            x.flatten(0, 1),
            x.ravel(),
        ),
        lambda s: [(s.floats(3, 3, 4)[:, :, :].reshape(3, 12),)],
        id="view-kin",
        dynamic=lambda s, n: (s.floats(n, 12),),
    ),
    row(
        "aten.as_strided",
        _as_strided,
        lambda s: [(s.floats(4, 3),), (s.ints(3, 4),), (s.bools(2, 6),)],
    ),
    row(
        "aten.permute",
        lambda x: (x.permute(2, 0, -2), x.transpose(0, -1), x.movedim(0, -1), x.mT),
        lambda s: [(s.floats(2, 3, 4),), (s.bools(3, 1, 2),), (s.floats(2, 0, 3),)],
        dynamic=lambda s, n: (s.floats(n, 3, n),),
    ),
    row(
        "aten.expand",
        lambda x, shape: x.expand(shape),
        lambda s: [
            (s.floats(2, 1), (3, 2, 4)),
            (s.floats(2, 1), (-1, 5)),
            (s.floats(), (2, 3)),
            (s.bools(1, 3), (0, 3)),
        ],
    ),
    row(
        "aten.expand",
        lambda x, y: (
            y.expand(x.shape[0], -1, -1),
            y.expand_as(x[:, :1]),
            torch.cat([y.expand(x.shape[0], -1, -1), x], 1),
        ),
        lambda s: [(s.floats(2, 3, 4), s.floats(1, 1, 4))],
        id="expand-to-size",
        dynamic=lambda s, n: (s.floats(n, 3, 4), s.floats(1, 1, 4)),
    ),
    row(
        "aten.squeeze.dim",
        lambda x: (x.squeeze(1), x.squeeze(-1), x.squeeze()),
        lambda s: [(s.floats(2, 1, 3),), (s.ints(1, 1),)],
        dynamic=lambda s, n: (s.floats(n, 1, 3),),
    ),
    row(
        "aten.unsqueeze",
        lambda x: (x.unsqueeze(0), x.unsqueeze(-1)),
        lambda s: [(s.floats(2, 3),), (s.floats(),), (s.bools(0),)],
        dynamic=lambda s, n: (s.floats(n, 2),),
    ),
    row("aten.view", torch.squeeze_copy, lambda s: [(s.floats(2, 1, 3, 1),)], id="squeeze_copy"),
    row("aten.unsqueeze", torch.unsqueeze_copy, lambda s: [(s.floats(2, 3), -1)], id="unsqueeze_copy"),
    row("aten.permute", torch.moveaxis, lambda s: [(s.floats(2, 3, 4), 0, -1)], id="moveaxis.int"),
    row(
        "aten.permute",
        torch.moveaxis,
        lambda s: [(s.floats(2, 3, 4), (0, 1), (-1, 0))],
        id="moveaxis.intlist",
    ),
    row(
        "aten.permute",
        lambda x: (x.adjoint() + 1, x.mH + 1, x[0].H + 1),
        lambda s: [(s.floats(2, 3, 4),)],
        id="adjoint",
        dynamic=lambda s, n: (s.floats(n, 3, n),),
    ),
    row("aten.conj_physical", lambda x: torch.conj_physical(x) + 1, lambda s: [(s.floats(2, 3),)], folds=True),
    row(
        "aten.view.dtype",
        lambda x: (
            x.to(torch.float32).view(torch.int32),
            x.to(torch.float32).view(torch.int8),
            x.to(torch.bfloat16).view(torch.int32),
            x.to(torch.int64).view(torch.uint8).view(torch.int16),
            (x > 1).view(torch.uint8).view(torch.int64),
            x.to(torch.uint8).view(torch.bool),
        ),
        lambda s: [(s.floats(2, 8),)],
        refused={"torchscript": "torch.jit.trace fails with an internal assertion on aten::view"},
    ),
    row(
        "aten.numel",
        lambda x: torch.nn.functional.l1_loss(x, x * 2),
        lambda s: [(s.floats(2, 3),)],
        folds=True,
        dynamic=lambda s, n: (s.floats(n, n),),
    ),
    row(
        "aten.size.int",
        lambda x: x.new_full((x.shape[0] + 1, 2), 1.5),
        lambda s: [(s.floats(2, 3),)],
        folds=True,
        dynamic=lambda s, n: (s.floats(n, n),),
    ),
]
