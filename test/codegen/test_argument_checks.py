"""Which kernels check their arguments, and that what a caller can get wrong is still found."""

from __future__ import annotations

import pytest
import torch
import tvm
from torch import nn
from tvm import relax, tirx

import torch_tvm
from torch_tvm.codegen.argument_checks import elide_argument_checks
from torch_tvm.support.attributes import CHECKS_ELIDED
from torch_tvm.support.errors import InvalidInput


def elided(mod: tvm.IRModule) -> set[str]:
    marked = relax.transform.ToNonDataflow()(mod)
    return {
        gvar.name_hint
        for gvar, function in elide_argument_checks(marked).functions_items()
        if isinstance(function, tirx.PrimFunc) and CHECKS_ELIDED in function.attrs
    }


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.second(torch.relu(self.first(x))), -1)


def test_only_kernels_that_take_an_input_check_it() -> None:
    compiled = torch_tvm.compile(Chain().eval(), (torch.randn(3, 8),), fallback=False)
    kernels = [kernel.name for kernel in compiled.report.kernels]
    assert len(kernels) == 3
    assert len(elided(compiled.tir_module)) == 2


def test_a_view_of_an_input_is_an_input() -> None:
    class Viewed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x.reshape(-1, 4), -1)

    model, x = Viewed().eval(), torch.randn(8, 6).t()
    compiled = torch_tvm.compile(model, (torch.randn(6, 8),), fallback=False)
    assert not elided(compiled.tir_module)
    torch.testing.assert_close(compiled(x), model(x))


def test_what_another_function_hands_over_is_checked() -> None:
    class Loop(nn.Module):
        def forward(self, x: torch.Tensor, n: int) -> torch.Tensor:
            for _ in range(n):
                x = torch.softmax(x @ x.t(), 0) @ x
            return x

    scripted, x = torch.jit.script(Loop()), torch.randn(5, 7)
    compiled = torch_tvm.compile(scripted, (x, 2), fallback=False)
    for turns in (0, 1, 3):
        torch.testing.assert_close(compiled(x, turns), scripted(x, turns))


@pytest.mark.parametrize(
    "x",
    [torch.randn(3, 9), torch.randn(4, 8), torch.randn(3, 8, dtype=torch.float64), torch.randn(8)],
    ids=["columns", "rows", "dtype", "rank"],
)
def test_wrong_arguments_are_refused(x: torch.Tensor) -> None:
    compiled = torch_tvm.compile(Chain().eval(), (torch.randn(3, 8),), fallback=False)
    with pytest.raises(InvalidInput):
        compiled(x)


def test_results_of_pytorch_are_checked() -> None:
    """What falls back to PyTorch may come in any layout, so kernels that take it check it."""

    class Falls(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(torch.linalg.inv(x @ x.t() + torch.eye(6)).t()) * 2

    model, x = Falls().eval(), torch.randn(6, 5)
    compiled = torch_tvm.compile(model, (x,))
    assert not elided(compiled.tir_module)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
