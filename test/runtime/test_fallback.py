"""Ops that run in PyTorch: results, the one warning, errors with the user's line."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import torch_tvm
from torch_tvm.support.errors import UnsupportedOp


@torch.library.custom_op("torch_tvm_fallback::scale", mutates_args=())
def scale(x: torch.Tensor) -> torch.Tensor:
    return x * 3


@torch.library.custom_op("torch_tvm_fallback::turn", mutates_args=())
def turn(x: torch.Tensor) -> torch.Tensor:
    return x.flip(0)


for own in (scale, turn):
    own.register_fake(torch.empty_like)


class Spectral(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return scale(x) + 1, turn(x).abs(), torch.linalg.det(x)


@pytest.fixture(scope="module")
def compiled() -> Any:
    with pytest.warns(torch_tvm.FallbackWarning):
        return torch_tvm.compile(Spectral(), (torch.randn(4, 4),))


def test_results_agree_with_eager(compiled: Any) -> None:
    given = torch.randn(4, 4)
    for ours, eager in zip(compiled(given), Spectral()(given), strict=True):
        torch.testing.assert_close(ours, eager)


def test_one_warning_names_op_line_and_reason() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = torch_tvm.compile(Spectral(), (torch.randn(4, 4),))
        module(torch.randn(4, 4))
    (warning,) = [w for w in caught if issubclass(w.category, torch_tvm.FallbackWarning)]
    text = str(warning.message)
    assert "run in PyTorch, not in compiled code" in text
    assert "test_fallback.py:32: torch.torch_tvm_fallback.scale: " in text
    assert "torch.torch_tvm_fallback.turn: " in text and "linalg_det" not in text
    assert [item.op for item in module.report.fallbacks].count("torch.torch_tvm_fallback.scale") == 1


def test_without_fallback_all_ops_are_in_one_error() -> None:
    with pytest.raises(UnsupportedOp, match=r"(?s)fallback.scale.*fallback.turn.*fallback=True"):
        torch_tvm.compile(Spectral(), (torch.randn(4, 4),), fallback=False)


def test_an_error_in_pytorch_keeps_its_type_and_names_the_line() -> None:
    class Inverse(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.inv(x)

    module = torch_tvm.compile(Inverse(), (torch.eye(3),), fallback=False)
    with pytest.raises(RuntimeError, match=r"test_fallback\.py:\d+: torch\.aten\.linalg_inv"):
        module(torch.zeros(3, 3))


def test_complex_arguments_and_results_travel_as_pairs() -> None:
    class Conjugate(nn.Module):
        def forward(self, z: torch.Tensor) -> Any:
            return torch.fft.ifft(z.conj() * 2), z.abs()

    given = torch.randn(5, dtype=torch.complex64)
    module = torch_tvm.compile(Conjugate(), (given,), fallback=False)
    for argument in (given, torch.randn(5, dtype=torch.complex64).conj()):
        for ours, eager in zip(module(argument), Conjugate()(argument), strict=True):
            assert ours.dtype == eager.dtype
            torch.testing.assert_close(ours, eager)


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_an_output_padding_that_pytorch_refuses(spatial: int) -> None:
    """It is PyTorch that says so when the program runs; without fallback the compiler does."""
    layer = getattr(nn, f"ConvTranspose{spatial}d")(3, 4, 3, stride=2, output_padding=2)
    x = torch.randn(1, 3, *[5] * spatial)
    reason = f"conv_transpose{spatial}d.*: an output padding of 2, not below the stride of 2 or the dilation of 1"
    with pytest.raises(UnsupportedOp, match=f"(?s){reason}.*fallback=True"):
        torch_tvm.compile(layer, (x,), fallback=False)
    with pytest.warns(torch_tvm.FallbackWarning, match=reason):
        compiled = torch_tvm.compile(layer, (x,))
    with pytest.raises(RuntimeError, match=r"(?s)conv_transpose.*output padding must be smaller"):
        compiled(x)


class SelectedRows(nn.Module):
    def forward(self, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        selected = a[a > 0]
        return selected.view(3) + 1, selected.view(3, -1) + 1


class SelectedSum(nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return a[a > 0] + torch.ones(3)


class EmptyOrder(nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return torch.argsort(a.double() * 2, dim=0, stable=True) + 1


@pytest.mark.filterwarnings("ignore::torch_tvm.FallbackWarning")
@pytest.mark.parametrize("program", [SelectedRows(), SelectedSum()])
def test_a_size_that_only_the_values_tell_is_checked(program: nn.Module) -> None:
    compiled = torch_tvm.compile(program, (torch.tensor([1.0, 2, -1, 3]),), frontend="torchscript")
    fits = torch.tensor([2.0, -1, 5, 7])
    torch.testing.assert_close(compiled(fits), program(fits))
    for count in (4, 0):
        given = torch.ones(4) if count else -torch.ones(4)
        with pytest.raises(RuntimeError):
            program(given)
        with pytest.raises(RuntimeError, match=r"invalid for the number of elements|sizes do not fit each other"):
            compiled(given)


@pytest.mark.filterwarnings("ignore::torch_tvm.FallbackWarning")
def test_a_kernel_takes_what_pytorch_left_empty() -> None:
    spec = torch_tvm.TensorSpec((None, 0), torch.float32)
    compiled = torch_tvm.compile(EmptyOrder(), (spec,), frontend="torchscript")
    for rows in (2, 0, 3):
        torch.testing.assert_close(compiled(torch.zeros(rows, 0)), torch.zeros(rows, 0, dtype=torch.int64))
