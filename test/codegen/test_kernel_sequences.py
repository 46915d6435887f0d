"""Kernels in a row become one function, which gives the same numbers."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import tvm
from torch import nn
from tvm import relax, tirx

import torch_tvm
from torch_tvm.backends import build
from torch_tvm.codegen.kernel_sequences import join_kernel_sequences
from torch_tvm.runtime.library import BY_KERNEL
from torch_tvm.schedules.target import host_target
from torch_tvm.support.attributes import KERNEL_SEQUENCE


class Chain(nn.Module):
    """Linear layers with a softmax before each; no two of them fit in one kernel."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(torch.softmax(x, 0))
        return x


class Views(Chain):
    """Kernels that look at an argument, a result and a tensor in between in another shape; a result twice."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        first = self.layers[0](torch.softmax(x, 0))
        second = self.layers[1](first.reshape(-1, 2, 8).softmax(1).reshape(-1, 16))
        third = second.reshape(8, -1).cumsum(1)
        return first, second.reshape(-1), third, third.reshape(-1), y.reshape(-1), y.reshape(16, -1).cumsum(0)


class Types(nn.Module):
    """Whole numbers and booleans between kernels."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        order = torch.argsort(x, 1)
        counts = (torch.cumsum(x > 0, 1) * 2).to(torch.int32)
        return torch.gather(x, 1, order), counts, torch.any(counts > 7, 1).cumsum(0)


def joined(compiled: torch_tvm.CompiledModule) -> list[tirx.PrimFunc]:
    """The functions that a compiled module's kernels are joined in."""
    mod = relax.transform.ToNonDataflow()(compiled.tir_module)
    mod = join_kernel_sequences(relax.transform.CallTIRRewrite()(mod))
    return [function for _, function in mod.functions_items() if KERNEL_SEQUENCE in (function.attrs or {})]


def text_of(built: object) -> str:
    assert isinstance(built, relax.VMExecutable)
    return built.as_text()


def calls(compiled: torch_tvm.CompiledModule, function: str = "main") -> list[str]:
    """What the VM calls in a function, its own functions left out."""
    _, text = text_of(build(compiled.tir_module, host_target())).split(f"@{function}:\n")
    text = text.partition("\n@")[0]
    return [name for name in re.findall(r"^ +call +(\S+)", text, re.MULTILINE) if "vm.builtin" not in name]


def check(model: nn.Module, *args: torch.Tensor) -> torch_tvm.CompiledModule:
    compiled = torch_tvm.compile(model.eval(), args, fallback=False)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(compiled(*args), model(*args), rtol=1e-5, atol=1e-5)
    return compiled


def test_the_vm_makes_one_call() -> None:
    compiled = check(Chain(4, 24), torch.randn(5, 24))
    assert calls(compiled) == ["main_line"]
    assert len(calls(compiled, f"main{BY_KERNEL}")) == 8


@pytest.mark.parametrize("rows", [1, 7, 16])
def test_views_of_arguments_and_results(rows: int) -> None:
    compiled = check(Views(2, 16), torch.randn(rows, 16), torch.randn(4, 12))
    assert calls(compiled) == ["main_line"]


def test_results_share_no_memory() -> None:
    compiled = check(Views(2, 16), torch.randn(7, 16), torch.randn(4, 12))
    x, y = torch.randn(7, 16), torch.randn(4, 12)
    for result in compiled(x, y):
        before = [other.clone() for other in compiled(x, y)]
        result.zero_()
        torch.testing.assert_close(list(compiled(x, y)), before)


def test_other_types() -> None:
    check(Types(), torch.randn(6, 40))


def test_empty_tensors() -> None:
    check(Chain(3, 16), torch.randn(0, 16))


def test_memory_is_used_again() -> None:
    """Two tensors are alive at a time, however long the chain is; on the stack as long as they are small."""
    (function,) = joined(check(Chain(9, 32), torch.randn(50, 32)))
    (block,) = [stmt for stmt in function.body.seq if isinstance(stmt, tirx.AllocBuffer)]
    assert int(block.buffer.ty.shape[0]) == 2 * 50 * 32 * 4


def test_tensors_alive_together_do_not_overlap() -> None:
    class Fan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(16, 16 * (1 + i % 3)) for i in range(7))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            parts = [torch.softmax(layer(x.cumsum(0)), 0) for layer in self.layers]
            return torch.cat([part.cumsum(0) for part in reversed(parts)], 1)

    check(Fan(), torch.randn(9, 16))


def test_unknown_sizes_are_left_to_the_vm() -> None:
    model, x = Chain(2, 16).eval(), torch.randn(5, 16)
    compiled = torch_tvm.compile(model, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=2)},))
    assert not joined(compiled)
    with torch.no_grad():
        for rows in (2, 11):
            x = torch.randn(rows, 16)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


def test_calls_from_several_threads() -> None:
    model = Chain(4, 128).eval()
    compiled = check(model, torch.randn(128, 128))
    inputs = [torch.randn(128, 128) for _ in range(16)]
    with torch.no_grad(), ThreadPoolExecutor(4) as pool:
        results = list(pool.map(compiled, inputs))
        for x, result in zip(inputs, results, strict=True):
            torch.testing.assert_close(result, model(x), rtol=1e-5, atol=1e-5)


def test_a_program_that_calls_pytorch_in_between() -> None:
    class Mixed(Chain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.layers[0](torch.softmax(x, 0))
            x = x + torch.linalg.inv(x @ x.T + 20 * torch.eye(x.shape[0]))[:, :1]
            return self.layers[1](torch.softmax(x, 0))

    model, x = Mixed(2, 16).eval(), torch.randn(6, 16)
    compiled = torch_tvm.compile(model, (x,), fallback=False)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    assert [name for name in calls(compiled) if "line" in name]


def test_code_for_another_processor() -> None:
    compiled = check(Chain(2, 16), torch.randn(5, 16))
    target = tvm.target.Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mattr": ["+neon"]})
    assert "main_line" in text_of(build(compiled.tir_module, target, is_native=False))
