"""The rules for GPUs: who takes which kernel, that none has too few threads, and what nvcc makes of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import torch_tvm
from torch_tvm.codegen.opencl.build import build_for_opencl

from .cuda import resources

X = torch.randn(64, 512)
PROGRAMS: dict[str, tuple[Callable[..., Any], str]] = {
    "pointwise": (lambda x: torch.exp(x) * 2 + x[0], "elementwise"),
    "transposed": (lambda x: x.t() + 1, "elementwise"),
    "sum": (lambda x: x.sum(), "split reduction"),
    "greatest": (lambda x: x.amax(), "split reduction"),
    "position": (lambda x: x.argmax(), "split reduction"),
    "moments": (lambda x: x.std(), "split reduction"),
    "any": (lambda x: (x > 3).any(), "split reduction"),
    "all of a row": (lambda x: (x > -3).all(1), "rows"),
    "softmax": (lambda x: torch.softmax(x, 1), "rows"),
    "rows": (lambda x: x.sum(1), "rows"),
    "columns": (lambda x: x.amax(0), ""),
    "product": (lambda x: x @ (x.t() + 1), "product"),
    "scan": (lambda x: torch.cumsum(x, 1), "scan"),
    "pool": (lambda x: nn.functional.max_pool2d(x.view(1, 8, 64, 64), 2), "windows"),
}


@pytest.fixture(scope="module")
def compiled() -> torch_tvm.CompiledModule:
    functions = [function for function, _ in PROGRAMS.values()]
    return torch_tvm.compile(lambda x: [f(x) for f in functions], (X,), target="opencl", fallback=False)


def test_who_takes_which_kernel(compiled: torch_tvm.CompiledModule) -> None:
    taken = {kernel.rule for kernel in compiled.report.kernels}
    assert taken >= {rule for _, rule in PROGRAMS.values() if rule}
    assert all(kernel.refusals or kernel.rule == "elementwise" for kernel in compiled.report.kernels)


def test_no_kernel_has_one_thread_or_one_block(compiled: torch_tvm.CompiledModule) -> None:
    origin: Any = compiled.origin
    text = build_for_opencl(compiled.tir_module, origin.target).program.text
    functions = re.findall(r"def f_(\w+)\(.*?\n(.*?)(?=\ndef |\Z)", text, re.DOTALL)
    lonely = []
    for name, body in functions:
        launches = re.findall(r"launch\('\w+', \((\d+), (\d+), (\d+)\), \((\d+), (\d+), (\d+)\)", body)
        sizes = [[int(number) for number in launch] for launch in launches]
        if sizes and max(a * b * c * d * e * f for a, b, c, d, e, f in sizes) < 64:
            lonely.append(name)
    assert not lonely


@pytest.mark.opencl
def test_numbers(compiled: torch_tvm.CompiledModule) -> None:
    from torch_tvm.runtime.opencl.devices import why_no_device

    if why_no_device():
        pytest.skip(why_no_device())
    for x in (X, torch.where(X > 3, float("nan"), X)):
        for (name, (function, _)), ours in zip(PROGRAMS.items(), compiled(x), strict=True):
            torch.testing.assert_close(
                ours,
                function(x),
                rtol=1e-4,
                atol=1e-4,
                equal_nan=True,
                msg=lambda text, name=name: f"{name}: {text}",
            )


@pytest.mark.opencl
def test_reductions_of_unknown_length() -> None:
    from torch_tvm.runtime.opencl.devices import why_no_device

    if why_no_device():
        pytest.skip(why_no_device())

    class Sums(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return x.sum(), x.amax(1), torch.softmax(x, 1)

    length = torch.export.Dim("length", min=2, max=100_000)
    compiled = torch_tvm.compile(
        Sums(), (torch.randn(3, 9),), target="opencl", fallback=False, dynamic_shapes=({1: length},)
    )
    for n in (2, 9, 300, 5000):
        x = torch.randn(3, n)
        for ours, theirs in zip(compiled(x), Sums()(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


# -- CUDA ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_nvcc_takes_the_kernels_and_spills_nothing(arch: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(512, 512), nn.GELU(), nn.LayerNorm(512), nn.Softmax(-1)).eval()
    program = lambda x: (model(x), x.amax(), x.argmax(), torch.exp(x) * 2)
    compiled = torch_tvm.compile(program, (X,), target={"kind": "cuda", "arch": arch}, fallback=False)
    rules = {kernel.rule for kernel in compiled.report.kernels}
    assert rules >= {"elementwise", "split reduction", "product"}
    found = resources(compiled, arch, tmp_path)
    assert not found.spilled and found.registers <= 128 and found.shared <= 48 << 10
