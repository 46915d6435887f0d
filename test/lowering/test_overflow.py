"""Integers wrap around as in eager: TVM and LLVM fold ``(x * 2) // 2`` to ``x``, and ``x + 1 > x`` to true."""

from __future__ import annotations

import pytest
import torch

import torch_tvm


def programs(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (
        (x * 2) // 2,
        (x + 1) > x,
        (x * 6) % 3,
        x.abs() % 5,
        x.abs() >= 0,
        (-x) // 2,
        (x - 3) < (x - 2),
        torch.maximum(x + 1, x),
        torch.div(x * 4, 4, rounding_mode="trunc"),
        (x + x) // 2,
        (x * 3).long() // 3,
        (x * y) // 7,
        x * y,
        x - y,
        torch.rsub(x, y, alpha=3),
        x.add(y, alpha=-5),
        x.square(),
        (1 - x) + 2,
        x**2 // 3,
        x**5,
        x**8 % 7,
        x.addcmul(y, x, value=3) // 2,
    )


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy", "dynamo"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.int16, torch.int8])
def test_integers_wrap(dtype: torch.dtype, frontend: str) -> None:
    info = torch.iinfo(dtype)
    edges = [info.max, info.min, info.max - 1, info.min + 1, info.max // 2 + 3, info.min // 2 - 1, 0, 1, -1]
    x = torch.tensor(edges, dtype=dtype).repeat_interleave(len(edges))
    y = torch.tensor(edges, dtype=dtype).repeat(len(edges))
    given = torch.jit.trace(programs, (x, y)) if frontend == "torchscript" else programs
    if frontend == "dynamo":
        compiled = torch.compile(programs, backend="torch_tvm", fullgraph=True, dynamic=False)
    else:
        compiled = torch_tvm.compile(given, (x, y), frontend=frontend)
    for first, second in ((x, y), (torch.randint_like(x, info.min, info.max), y.flip(0))):
        for ours, eager in zip(compiled(first, second), programs(first, second), strict=True):
            assert ours.dtype == eager.dtype and torch.equal(ours, eager)
