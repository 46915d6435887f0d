"""Graphs as PT2E quantisation exports them: their products run on integers and match eager PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
import torch.nn.functional as F
import tvm
from numerics import assert_matches
from spelled_out import spell_out

import torch_tvm
from torch_tvm.backends import build, optimize, schedule
from torch_tvm.lowering.module import lower
from torch_tvm.reporting.report import Kernel
from torch_tvm.schedules.instructions.dots import GROUP
from torch_tvm.schedules.target import CpuModel, host_target
from torch_tvm.transforms.quantized.products import LONGEST_SUM

Q = torch.ops.quantized_decomposed
HAS_VNNI = CpuModel.from_target(host_target()).dot(GROUP) is not None
LIMITS = {torch.int8: (-128, 127), torch.uint8: (0, 255)}


@pytest.fixture(autouse=True)
def products_of_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """``vpdpbusd``, spelled out where this machine has none; not for the tests of another processor's code."""
    if not HAS_VNNI and "mcpu" not in request.fixturenames:
        spell_out(monkeypatch)


def integers(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    low, high = LIMITS[dtype]
    return torch.randint(low, high + 1, shape, dtype=dtype)


def fake_quantize(x: torch.Tensor, scale: Any, zero: Any, dtype: torch.dtype) -> torch.Tensor:
    """Quantise and dequantise, in float64 as well (where the operators refuse)."""
    low, high = LIMITS[dtype]
    if x.dtype == torch.float64:
        return ((x.float() * (1.0 / scale)).round() + zero).clamp(low, high).sub(zero).double() * scale
    q = Q.quantize_per_tensor(x, scale, zero, low, high, dtype)
    return Q.dequantize_per_tensor(q, scale, zero, low, high, dtype)


def dequantized(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """An int8 weight with one scale."""
    if dtype == torch.float64:
        return weight.double() * 0.02
    return Q.dequantize_per_tensor(weight, 0.02, 0, -128, 127, torch.int8)


class QuantizedLinear(torch.nn.Module):
    """One linear layer: per-tensor quantised input, per-channel weight, bias and ReLU after it."""

    def __init__(self, depth: int, columns: int, kinds: tuple[torch.dtype, torch.dtype], zeros: tuple[int, int]):
        super().__init__()
        self.x_kind, self.w_kind = kinds
        self.x_zero = zeros[0]
        self.register_buffer("weight", integers(self.w_kind, columns, depth))
        self.register_buffer("scales", torch.rand(columns) * 0.01 + 0.001)
        offsets = torch.randint(-3, 4, (columns,)) if zeros[1] else torch.zeros(columns, dtype=torch.int64)
        self.register_buffer("zeros", offsets + zeros[1])
        self.bias = torch.nn.Parameter(torch.randn(columns))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = fake_quantize(x, 0.03, self.x_zero, self.x_kind)
        low, high = LIMITS[self.w_kind]
        if x.dtype == torch.float64:
            weight = (self.weight.double() - self.zeros[:, None]) * self.scales[:, None].double()
        else:
            weight = Q.dequantize_per_channel(self.weight, self.scales, self.zeros, 0, low, high, self.w_kind)
        return F.linear(x, weight, self.bias).relu()


def compile_and_check(module: torch.nn.Module, *args: torch.Tensor) -> list[str]:
    """Compare with eager on fresh data; the names of the rules that took the kernels."""
    return [kernel.rule for kernel in compile_and_list(module, *args)]


def compile_and_list(module: torch.nn.Module, *args: torch.Tensor) -> Sequence[Kernel]:
    """Compare with eager on fresh data; the kernels."""
    module = module.eval()
    with torch.no_grad():
        compiled = torch_tvm.compile(module, args, fallback=False)
        exact = copy.deepcopy(module)
        exact.bias.data = exact.bias.data.double()

        def reference(*inputs: torch.Tensor) -> torch.Tensor:
            return (exact if inputs[0].dtype == torch.float64 else module)(*inputs)

        assert_matches(compiled(*args), reference, args)
    return compiled.report.kernels


@pytest.mark.parametrize("shape", [(1,), (5,), (2, 9), (0,)], ids=str)
@pytest.mark.parametrize(
    ("kinds", "zeros"),
    [
        ((torch.uint8, torch.int8), (3, 0)),
        ((torch.uint8, torch.int8), (0, 0)),
        ((torch.int8, torch.int8), (-7, 5)),
        ((torch.uint8, torch.uint8), (128, 128)),
        ((torch.int8, torch.uint8), (0, 7)),
    ],
    ids=["u8s8", "u8s8-symmetric", "s8s8", "u8u8", "s8u8"],
)
def test_linear(shape: tuple[int, ...], kinds: tuple[torch.dtype, torch.dtype], zeros: tuple[int, int]) -> None:
    module, x = QuantizedLinear(37, 50, kinds, zeros), torch.randn(*shape, 37) * 3
    rules = compile_and_check(module, x)
    assert ("int8_matmul" in rules) == (0 not in shape)


def test_epilogue_is_in_the_kernel_of_the_product() -> None:
    module = QuantizedLinear(64, 96, (torch.uint8, torch.int8), (3, 0)).eval()
    compiled = torch_tvm.compile(module, (torch.randn(8, 64),), fallback=False)
    kernel = next(k for k in compiled.report.kernels if k.rule == "int8_matmul")
    assert "relu" in kernel.name
    assert "add" in kernel.name


class Chain(torch.nn.Module):
    """Two layers with integers between them."""

    def __init__(self) -> None:
        super().__init__()
        kinds = (torch.uint8, torch.int8)
        self.first, self.second = (QuantizedLinear(n, m, kinds, (0, 0)) for n, m in ((40, 70), (70, 33)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


@torch.no_grad()
def test_values_between_layers_are_bytes() -> None:
    module, x = Chain().eval(), torch.randn(6, 40)
    compiled = torch_tvm.compile(module, (x,), fallback=False)
    taken = [k for k in compiled.report.kernels if k.rule == "int8_matmul"]
    assert len(taken) == 2
    assert any("quantize" in k.name for k in taken)
    step = 0.03 * module.second.scales.max() * 128  # a tie that eager rounds the other way
    assert (compiled(x) - module(x)).abs().max() <= 2 * step


class TensorParameters(torch.nn.Module):
    """Scale and zero point of the input are tensors that the program computes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", integers(torch.int8, 33, 20))
        self.bias = torch.nn.Parameter(torch.zeros(33))

    def forward(self, q: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
        x = (q.to(scale.dtype) - zero.to(scale.dtype)) * scale
        return F.linear(x, dequantized(self.weight, scale.dtype)) + self.bias


@pytest.mark.parametrize("shape", [(), (1,), (7, 1)], ids=str)
def test_parameters_may_be_tensors(shape: tuple[int, ...]) -> None:
    zero = torch.randint(0, 256, shape, dtype=torch.int32)
    rules = compile_and_check(TensorParameters(), integers(torch.uint8, 7, 20), torch.rand(shape), zero)
    assert "int8_matmul" in rules


class ScalesAlongDepth(torch.nn.Module):
    """A scale for each element of a row: no product of integers has that."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", integers(torch.int8, 33, 20))
        self.register_buffer("scales", torch.rand(20))
        self.bias = torch.nn.Parameter(torch.zeros(33))

    def forward(self, q: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        weight = self.weight.to(scale.dtype) * self.scales.to(scale.dtype)
        return F.linear(q.to(scale.dtype) * scale, weight) + self.bias


@pytest.mark.parametrize("shape", [(), (20,)], ids=str)
def test_scales_along_the_sum_keep_float32(shape: tuple[int, ...]) -> None:
    rules = compile_and_check(ScalesAlongDepth(), integers(torch.int8, 7, 20), torch.rand(shape))
    assert "int8_matmul" not in rules


class FractionalZero(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", integers(torch.int8, 33, 20))
        self.bias = torch.nn.Parameter(torch.zeros(33))

    def forward(self, q: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return F.linear((q.to(scale.dtype) - 0.5) * scale, dequantized(self.weight, scale.dtype)) + self.bias


def test_a_fractional_zero_point_keeps_float32() -> None:
    rules = compile_and_check(FractionalZero(), integers(torch.int8, 7, 20), torch.rand(()))
    assert "int8_matmul" not in rules


def test_sums_that_int32_cannot_hold_keep_float32() -> None:
    module = QuantizedLinear(LONGEST_SUM + 1, 2, (torch.uint8, torch.int8), (0, 0))
    assert "int8_matmul" not in compile_and_check(module, torch.randn(2, LONGEST_SUM + 1))


def test_targets_without_vnni_keep_float32() -> None:
    target = tvm.target.Target({"kind": "llvm", "mcpu": "haswell", "mtriple": "x86_64-linux-gnu"})
    module = QuantizedLinear(37, 50, (torch.uint8, torch.int8), (3, 0)).eval()
    compiled = torch_tvm.compile(module, (torch.randn(4, 37),), fallback=False, target=target)
    assert "int8_matmul" not in [kernel.rule for kernel in compiled.report.kernels]


@torch.no_grad()
def test_int_mm_packs_its_weight_and_is_exact() -> None:
    class IntMM(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", integers(torch.int8, 96, 64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch._int_mm(x, self.weight.t())

    module, x = IntMM().eval(), integers(torch.int8, 32, 64)
    compiled = torch_tvm.compile(module, (x,), fallback=False)
    assert torch.equal(compiled(x), module(x))
    assert torch.equal(torch_tvm.import_fx(module, (x,))(x), module(x))
    assert sorted(k.name for k in compiled.report.kernels) == ["int8_matmul", "pack_int8_weight"]


class QuantizedConv(torch.nn.Module):
    """One convolution: quantised data, a weight with a scale (and zero point) for each output, ReLU after it."""

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: tuple[int, ...] = (3, 3),
        kinds: tuple[torch.dtype, torch.dtype] = (torch.uint8, torch.int8),
        zeros: tuple[int, int | None] = (0, None),
        **options: int,
    ):
        super().__init__()
        self.x_kind, self.w_kind = kinds
        self.x_zero, self.options = zeros[0], options
        outputs, inputs = channels[1], channels[0] // options.get("groups", 1)
        self.register_buffer("weight", integers(self.w_kind, outputs, inputs, *kernel))
        self.register_buffer("scales", torch.rand(outputs) * 0.01 + 0.001)
        self.register_buffer("zeros", None if zeros[1] is None else torch.randint(-3, 4, (outputs,)) + zeros[1])
        self.bias = torch.nn.Parameter(torch.randn(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = fake_quantize(x, 0.03, self.x_zero, self.x_kind)
        low, high = LIMITS[self.w_kind]
        if x.dtype == torch.float64:
            along = lambda values: values.double().reshape(-1, *[1] * (self.weight.ndim - 1))
            zeros = 0 if self.zeros is None else along(self.zeros)
            weight = (self.weight.double() - zeros) * along(self.scales)
        else:
            weight = Q.dequantize_per_channel(self.weight, self.scales, self.zeros, 0, low, high, self.w_kind)
        function = F.conv2d if self.weight.ndim == 4 else F.conv3d
        return function(x, weight, self.bias, **self.options).relu()


U8, S8 = torch.uint8, torch.int8


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (QuantizedConv((64, 48), padding=1), (1, 64, 9, 11)),
        (QuantizedConv((36, 19), (1, 1), stride=2), (2, 36, 9, 7)),
        (QuantizedConv((64, 32), stride=2, padding=1, zeros=(3, None)), (2, 64, 9, 11)),
        (QuantizedConv((32, 40), kinds=(S8, S8), padding=2, dilation=2, zeros=(-7, None)), (1, 32, 9, 8)),
        (QuantizedConv((32, 40), (1, 1), kinds=(S8, S8)), (1, 32, 9, 8)),
        (QuantizedConv((48, 33), kinds=(U8, S8), padding=1, zeros=(0, 0)), (1, 48, 6, 7)),
        (QuantizedConv((48, 33), (1, 3), kinds=(S8, U8), padding=1, zeros=(5, 128)), (2, 48, 6, 7)),
        (QuantizedConv((64, 64), kinds=(U8, U8), zeros=(128, 120), stride=2), (1, 64, 8, 8)),
        (QuantizedConv((64, 96), padding=1, groups=2, zeros=(7, None)), (1, 64, 8, 8)),
        (QuantizedConv((32, 24), (3, 3, 3), padding=1, zeros=(9, None)), (1, 32, 4, 5, 6)),
        (QuantizedConv((32, 24), (1, 3, 3), kinds=(S8, S8), zeros=(9, 1)), (2, 32, 4, 5, 6)),
    ],
    ids=[
        "u8s8",
        "pointwise",
        "padded",
        "s8s8",
        "s8s8-pointwise",
        "zeros",
        "s8u8",
        "u8u8",
        "groups",
        "3d",
        "3d-zeros",
    ],
)
def test_convolution(module: QuantizedConv, shape: tuple[int, ...]) -> None:
    kernels = compile_and_list(module, torch.randn(shape) * 3)
    assert [k.rule for k in kernels if "int8_conv" in k.name] == ["direct-convolution"]


@pytest.mark.parametrize(
    ("module", "channels"),
    [
        (QuantizedConv((3, 32), padding=1), 3),
        (QuantizedConv((32, 32), padding=1, groups=32), 32),
        (QuantizedConv((64, 64), groups=2, zeros=(0, 4)), 64),
    ],
    ids=["channels-fill-no-word", "depthwise", "offsets-of-groups"],
)
def test_other_convolutions_keep_float32(module: QuantizedConv, channels: int) -> None:
    kernels = compile_and_list(module, torch.randn(1, channels, 7, 8))
    assert not any("int8_conv" in k.name for k in kernels)


class ConvChain(torch.nn.Module):
    """Convolutions with bytes between them, and a sum of two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = QuantizedConv((32, 64), padding=1)
        self.second = QuantizedConv((64, 64), (1, 1), zeros=(0, 0))
        self.third = QuantizedConv((64, 32), padding=1, stride=2, zeros=(11, None))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(x)
        return self.third(first + self.second(first))


@torch.no_grad()
def test_values_between_convolutions_are_bytes() -> None:
    module, x = ConvChain().eval(), torch.randn(1, 32, 10, 12)
    compiled = torch_tvm.compile(module, (x,), fallback=False)
    taken = [k for k in compiled.report.kernels if "int8_conv" in k.name]
    assert len(taken) == 3
    assert any("quantize" in k.name for k in taken)
    step = 0.03 * module.third.scales.max() * 128  # a tie that eager rounds the other way
    assert (compiled(x) - module(x)).abs().max() <= 4 * step


@torch.no_grad()
@pytest.mark.parametrize("mcpu", ["cascadelake", "znver4"])
def test_convolutions_multiply_bytes_in_full_vectors(mcpu: str) -> None:
    target = tvm.target.Target({"kind": "llvm", "mcpu": mcpu, "mtriple": "x86_64-linux-gnu", "num-cores": 2})
    module = QuantizedConv((64, 96), padding=1)
    lowered = lower(torch_tvm.import_fx(module.eval(), (torch.randn(1, 64, 9, 9),)), fallback=False)
    scheduled, _ = schedule(optimize(lowered.mod, target), target)
    lines = "\n".join(library.inspect_source("asm") for library in build(scheduled, target).mod.imports).splitlines()
    dots = [line for line in lines if "vpdpbusd" in line]
    assert len(dots) >= 16
    assert all("%zmm" in line for line in dots)
