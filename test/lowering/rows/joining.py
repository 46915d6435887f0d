"""Joining, repeating and reordering."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lowering.rows import Row, row

ROWS: list[Row] = [
    row(
        "aten.cat",
        lambda x, y: (torch.cat([x, y, x], 1), torch.hstack([x, y]), torch.cat([x, x])),
        lambda s: [
            (s.floats(2, 3), s.floats(2, 4)),
            (s.ints(2, 3), s.floats(2, 1)),
            (s.floats(2, 0), s.floats(2, 2)),
        ],
        dynamic=lambda s, n: (s.floats(n, 3), s.floats(n, n)),
    ),
    row(
        "aten.cat",
        lambda x, y: torch.cat([x, y]),
        lambda s: [(s.floats(2, 3), s.floats(0)), (s.bools(2), s.ints(3))],
        id="cat-empty",
    ),
    row(
        "aten.stack",
        lambda x, y: (torch.stack([x, y]), torch.stack([x, y, x], -1)),
        lambda s: [(s.floats(2, 3), s.floats(2, 3)), (s.floats(), s.floats())],
        dynamic=lambda s, n: (s.floats(n, 3), s.floats(n, 3)),
    ),
    row(
        "aten.repeat",
        lambda x: (x.repeat(2, 3, 1), x.repeat(1, 2), x.repeat(0, 1)),
        lambda s: [(s.floats(3, 4),), (s.floats(1, 1),)],
        dynamic=lambda s, n: (s.floats(n, 4),),
    ),
    row("aten.tile", lambda x: (x.tile(2), x.tile(2, 1, 3)), lambda s: [(s.floats(3, 4),)]),
    row(
        "aten.repeat_interleave.self_int",
        lambda x: (x.repeat_interleave(3, 1), x.repeat_interleave(2)),
        lambda s: [(s.floats(3, 4),)],
        dynamic=lambda s, n: (s.floats(n, 4),),
    ),
    row(
        "aten.roll",
        lambda x: (x.roll(1), x.roll((1, -2), (0, 1)), x.roll(-9, 1)),
        lambda s: [(s.floats(3, 4),), (s.ints(2, 5),)],
        dynamic=lambda s, n: (s.floats(n, 4),),
    ),
    row(
        "aten.flip",
        lambda x: (x.flip(0, -1), x.flip(1)),
        lambda s: [(s.floats(3, 4),)],
        dynamic=lambda s, n: (s.floats(n, n),),
    ),
    row(
        "aten.expand",
        lambda x, y: (*torch.meshgrid(x, y, indexing="ij"), *torch.meshgrid(x, y, indexing="xy")),
        lambda s: [(s.floats(3), s.floats(4)), (s.ints(2), s.ints()), (s.floats(0), s.floats(2))],
        id="meshgrid.indexing",
        dynamic=lambda s, n: (s.floats(n), s.floats(4)),
    ),
    row("aten.channel_shuffle", F.channel_shuffle, lambda s: [(s.floats(2, 6, 3, 2), 3)]),
    row(
        ("aten.vstack", "aten.dstack", "aten.concat", "aten.concatenate"),
        lambda x: (
            torch.vstack([x, x]),
            torch.dstack([x, x]),
            torch.concat([x, x]),
            torch.concatenate([x, x]),
        ),
        lambda s: [(s.floats(3),), (s.floats(2, 3),)],
    ),
]
