"""Transposes, joins, padding, slices, gathers, pooling windows and resizing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tvm import relax, tirx

from ..kernel_cases import Case, run

R = relax.op
POOL = {"pool_size": (3, 3), "strides": (2, 2), "padding": (1, 1)}


def permute(shape, axes, dtype=torch.float32, symbols=()) -> Case:
    name = f"permute {shape} {axes} {dtype} {symbols}"
    eager = lambda x: x.permute(axes).contiguous()
    return Case(name, lambda x: R.permute_dims(x, list(axes)), eager, (shape,), (dtype,), symbols)


def blocked(x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] with C in blocks of 16."""
    n, c, h, w = x.shape
    return x.reshape(n, c // 16, 16, h, w).permute(0, 1, 3, 4, 2).contiguous()


def planar(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w, lanes = x.shape
    return x.permute(0, 1, 4, 2, 3).reshape(n, c * lanes, h, w)


CASES = [
    *(permute(s, (1, 0)) for s in ((64, 128), (37, 50), (3, 100), (100, 3), (1, 1), (0, 5), (129, 257))),
    *(permute((2, 19, 5, 33), axes) for axes in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 3, 1, 2), (3, 2, 1, 0))),
    *(permute((37, 50), (1, 0), d) for d in (torch.bool, torch.int8, torch.float16, torch.bfloat16,
    torch.int64)),
    *(permute(s, (1, 0), symbols=(("n", "m"),)) for s in ((5, 33), (130, 101))),
    Case("transpose and more", lambda x, y: R.add(R.exp(R.permute_dims(x)), y), lambda x, y: x.t().exp() + y,
         ((37, 50), (50, 37))),
    Case("concat", lambda x, y, z: R.concat([x, y, z], 1), lambda x, y, z: torch.cat([x, y, z], 1),
         ((5, 7, 9), (5, 3, 9), (5, 1, 9))),
    Case("concat last", lambda x, y: R.concat([x, y], 2), lambda x, y: torch.cat([x, y], 2),
         ((5, 7, 9), (5, 7, 40))),
    Case("concat empty", lambda x, y: R.concat([x, y], 0), lambda x, y: torch.cat([x, y], 0), ((0, 5), (3,
         5))),
    Case("concat symbolic", lambda x, y: R.concat([x, y], 1), lambda x, y: torch.cat([x, y], 1),
         ((5, 33), (5, 33)), symbols=(("n", "m"), ("n", "m"))),
    Case("pad", lambda x: R.nn.pad(x, (0, 0, 1, 2, 3, 4)), lambda x: F.pad(x, (3, 4, 1, 2)), ((5, 7, 29),)),
    Case("slice", lambda x: R.strided_slice(x, [1, 2], [1, 3], [6, 29], [2, 1]),
         lambda x: x[:, 1:6:2, 3:29].contiguous(), ((5, 7, 29),)),
    *(Case(f"pad of many rows {n}", lambda x: R.nn.pad(x, (0, 0, 0, 0, 1, 2, 3, 4, 0, 0)),
         lambda x: F.pad(x, (0, 0, 3, 4, 1, 2)), ((n, c, 13, 11, 8),))
      for n, c in ((1, 64), (3, 11), (1, 2), (131, 1))),
    Case("pad of many rows symbolic", lambda x: R.nn.pad(x, (0, 0, 0, 0, 1, 2, 3, 4, 0, 0)),
         lambda x: F.pad(x, (0, 0, 3, 4, 1, 2)), ((3, 16, 13, 11, 8),), symbols=(("n", None, None, None, None),)),
    Case("tril", R.tril, torch.tril, ((37, 50),)),
    Case("flip", lambda x: R.flip(x, 1), lambda x: x.flip(1), ((7, 50),)),
    Case("broadcast", lambda x: R.broadcast_to(x, (4, 7, 50)), lambda x: x.expand(4, 7, 50).contiguous(),
         ((7, 1),)),
    Case("repeat", lambda x: R.repeat(x, 3, 1), lambda x: x.repeat_interleave(3, 1), ((7, 5),)),
    Case("tile", lambda x: R.tile(x, (2, 3)), lambda x: x.repeat(2, 3), ((7, 5),)),
    Case("reshape of exp", lambda x: R.exp(R.reshape(x, (-1,))), lambda x: x.reshape(-1).exp(), ((5, 33),),
         symbols=(("n", "m"),)),
    Case("max pool", lambda x: R.nn.max_pool2d(x, **POOL), lambda x: F.max_pool2d(x, 3, 2, 1), ((2, 5, 17,
         19),)),
    Case("max pool stride 1", lambda x: R.nn.max_pool2d(x, (3, 3), (1, 1), (1, 1)),
         lambda x: F.max_pool2d(x, 3, 1, 1), ((2, 5, 9, 41),)),
    Case("avg pool ceil", lambda x: R.nn.avg_pool2d(x, (2, 2), (2, 2), (0, 0), ceil_mode=True),
         lambda x: F.avg_pool2d(x, 2, 2, 0, True), ((2, 5, 9, 41),)),
    Case("avg pool", lambda x: R.nn.avg_pool2d(x, **POOL),
         lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), ((2, 5, 17, 19),)),
    Case("max pool symbolic", lambda x: R.nn.max_pool2d(x, **POOL), lambda x: F.max_pool2d(x, 3, 2, 1),
         ((2, 3, 17, 19),), symbols=(("n", None, "h", "w"),)),
    Case("max pool blocked", lambda x: R.nn.max_pool2d(x, **POOL, layout="NCHW16c"),
         lambda x: blocked(F.max_pool2d(planar(x), 3, 2, 1)), ((2, 2, 9, 11, 16),)),
    Case("adaptive", lambda x: R.nn.adaptive_avg_pool2d(x, (3, 3)), lambda x: F.adaptive_avg_pool2d(x, (3,
         3)),
         ((2, 5, 7, 8),)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_matches_eager(case: Case) -> None:
    run(case)


def test_rows_inside_those_that_cores_share_are_loops() -> None:
    """Their places need no division."""
    slices = lambda x: R.strided_slice(x, [2, 3], [0, 0], [56, 56], [2, 2])
    model = run(Case("slice", slices, lambda x: x[:, :, ::2, ::2].contiguous(), ((1, 64, 56, 56, 8),)))
    (kernel,) = (f for _, f in model.scheduled.functions_items() if isinstance(f, tirx.PrimFunc))
    assert "//" not in kernel.body.script().split("task", 1)[1]


@pytest.mark.parametrize("shape", [(4, 5), (0,), (1,)])
def test_rows_of_a_table(shape) -> None:
    case = Case("take", lambda x, i: R.take(x, i, 0), lambda x, i: x[i], ((11, 33), shape),
                (torch.float32, torch.int64))  # fmt: skip
    run(case, [torch.randn(11, 33), torch.randint(0, 11, shape)])


def test_embedding_into_a_norm() -> None:
    case = Case("takeln", lambda x, i, g, b: R.nn.layer_norm(R.take(x, i, 0), g, b, axes=[-1]),
                lambda x, i, g, b: F.layer_norm(x[i], (33,), g, b), ((11, 33), (7,), (33,), (33,)),
                (torch.float32, torch.int64, torch.float32, torch.float32))  # fmt: skip
    run(case, [torch.randn(11, 33), torch.randint(0, 11, (7,)), torch.randn(33), torch.randn(33)])
