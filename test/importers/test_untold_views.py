"""Ops that return their operand or a view of it, of which their schemas say nothing: a write through it is seen."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import torch_tvm


class Writes(torch.nn.Module):
    """The results are read after, or TorchScript takes the writes for dead code."""

    def forward(
        self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor, e: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = torch.atleast_2d(a)
        rows += 1
        cube = torch.atleast_3d(b)
        cube *= 2
        kept = F.dropout(c, 0.5, False)
        kept += 1
        summed = d.sum_to_size(2, 3)
        summed += 1
        same = e.type_as(b)
        same += 3
        return rows + a, cube.sum() + b, kept * c, summed * d, same + e


class WritesOfLists(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        first = torch.atleast_2d(a, b)[0]
        first += 1
        second = torch.broadcast_tensors(a, b)[1]
        second *= 2
        return first + second + a


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
def test_writes_through_untold_views_reach_the_argument(frontend: str) -> None:
    for program, shapes in (
        (Writes(), [(3,), (3,), (2, 3), (2, 3), (2, 3)]),
        (WritesOfLists(), [(3,), (2, 3)]),
    ):
        ours = [torch.randn(shape) for shape in shapes]
        wanted = [tensor.clone() for tensor in ours]
        compiled = torch_tvm.compile(program, tuple(tensor.clone() for tensor in ours), frontend=frontend)
        torch.testing.assert_close(compiled(*ours), program(*wanted))
        torch.testing.assert_close(ours, wanted)
