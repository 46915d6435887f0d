"""What a program returns: views where that is enough, never memory of its arguments."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import torch_tvm


def test_a_reshape_that_is_returned_is_no_kernel() -> None:
    model, x = nn.Sequential(nn.Softmax(-1), nn.Flatten()).eval(), torch.randn(3, 5, 70)
    compiled = torch_tvm.compile(model, (x,), fallback=False)
    assert [kernel.rule for kernel in compiled.report.kernels] == ["row_chain"]
    torch.testing.assert_close(compiled(x), model(x))


def test_reshapes_of_one_value_share_no_memory() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = torch.softmax(x, -1)
            return y, y.reshape(-1), y.reshape(2, -1), x.reshape(-1)

    x = torch.randn(4, 6)
    compiled = torch_tvm.compile(Twice(), (x,), fallback=False)
    before, results = x.clone(), compiled(x)
    torch.testing.assert_close(results, Twice()(x))
    for index, result in enumerate(results):
        others = [other.clone() for place, other in enumerate(results) if place > index]
        result.zero_()
        torch.testing.assert_close(list(results[index + 1 :]), others)
    assert torch.equal(x, before)


def test_a_reshape_in_a_branch_is_a_view() -> None:
    class Chosen(nn.Module):
        def forward(self, x: torch.Tensor, n: int) -> torch.Tensor:
            for _ in range(n):
                x = torch.softmax(x, 0)
            if n > 2:
                y = x.reshape(-1)
            else:
                y = (x * 2).reshape(-1)
            return y

    scripted, x = torch.jit.script(Chosen()), torch.randn(16, 4, 9)
    compiled = torch_tvm.compile(scripted, (x, 3), fallback=False)
    assert not any("reshape" in kernel.name for kernel in compiled.report.kernels)
    for turns in (0, 1, 3):
        torch.testing.assert_close(compiled(x, turns), scripted(x, turns))


def test_a_reshape_of_a_quotient_is_a_view() -> None:
    """The height is ``(n - 1) // 2 + 1``."""

    class Patches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.unfold(x, 3, 1, 1, 2)

    x = torch.randn(6, 3, 6, 8)
    shapes = ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO},)
    compiled = torch_tvm.compile(Patches(), (x,), dynamic_shapes=shapes, fallback=False)
    assert not any("reshape" in kernel.name for kernel in compiled.report.kernels)
    for batch, height in ((6, 6), (1, 9), (3, 16)):
        x = torch.randn(batch, 3, height, 8)
        torch.testing.assert_close(compiled(x), F.unfold(x, 3, 1, 1, 2))
