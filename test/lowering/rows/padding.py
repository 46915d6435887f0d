"""Padding of every mode."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lowering.rows import Inputs, Row, row


def _pads(*shape: int, pads: tuple[tuple[int, ...], ...], mode: str) -> Inputs:
    return lambda s: [(s.floats(*shape), p, mode) for p in pads] + [(s.floats(*shape[1:]), pads[0], mode)]


ROWS: list[Row] = [
    row(
        "aten.constant_pad_nd",
        F.pad,
        lambda s: [
            (s.floats(2, 3, 4), (1, 2)),
            (s.floats(2, 3, 4), (1, -2, 0, 3), "constant", 2.5),
            (s.floats(2, 3), (0, 0, 2, 1), "constant", -float("inf")),
            (s.ints(3, 4), (1, -2), "constant", 3),
            (s.floats(3, 0), (1, 2), "constant", 7.0),
            (s.bools(3), (1, 1), "constant", True),
        ],
        dynamic=lambda s, n: (s.floats(n, n), (1, -1, 2, 0), "constant", 0.5),
    ),
    row(
        "aten.reflection_pad1d",
        F.pad,
        _pads(2, 3, 5, pads=((4, 1), (0, 2)), mode="reflect"),
        dynamic=lambda s, n: (s.floats(2, n, n), (2, 1), "reflect"),
    ),
    row("aten.reflection_pad2d", F.pad, _pads(2, 3, 5, 4, pads=((3, 1, 4, 0), (-1, 2, 1, 1)), mode="reflect")),
    row("aten.reflection_pad3d", F.pad, _pads(2, 2, 3, 4, 3, pads=((1, 2, 3, 0, 1, 1),), mode="reflect")),
    row("aten.replication_pad1d", F.pad, _pads(2, 3, 5, pads=((7, 1),), mode="replicate")),
    row(
        "aten.replication_pad2d",
        F.pad,
        _pads(2, 3, 5, 4, pads=((3, 1, 6, 0), (-1, 2, 1, 1)), mode="replicate"),
    ),
    row("aten.replication_pad3d", F.pad, _pads(2, 2, 3, 4, 3, pads=((1, 2, 3, 0, 1, 1),), mode="replicate")),
    row(
        "aten.pad",
        lambda x: torch.ops.aten.pad(x, (2, 1, 0, 3), "circular"),
        lambda s: [(s.floats(2, 3, 4, 5),)],
        id="pad-circular",
    ),
    row(
        "aten._pad_circular",
        torch.ops.aten._pad_circular,
        lambda s: [(s.floats(2, 3, 5), (4, 2)), (s.floats(2, 3, 4, 5), (1, 2, 3, 0))],
    ),
]
