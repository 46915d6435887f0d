"""Unknown sizes: symbols bound to arguments, equal sizes, run-time branches and loops on sizes."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from torch_tvm.dialect.module import TensorSpec
from torch_tvm.importers.torchscript import import_torchscript
from torch_tvm.support.errors import ImportFailed, InvalidInput

zoo: Any = sys.modules["torchscript_module_zoo"]


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_convolution_with_unknown_batch(batch: int) -> None:
    model = zoo.ConvNet().eval()
    module = import_torchscript(model, (TensorSpec((None, 3, 6, 6)),))
    x = torch.randn(batch, 3, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(module(x), model(x))
    assert "affine_map<()[s0] -> (s0, 3, 6, 6)>" in module.asm()


def test_encoder_with_unknown_batch_and_length_needs_no_branch() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    module = import_torchscript(model, (TensorSpec((None, None, 8)),))
    assert "torch.prim.If" not in module.asm()
    for shape in ((1, 3, 8), (4, 7, 8)):
        x = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(module(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 33])
def test_recurrence_over_unknown_length_is_a_loop(length: int) -> None:
    model = zoo.Cells().eval()
    module = import_torchscript(model, (TensorSpec((None, 2, 3)),))
    assert module.asm().count("torch.prim.Loop %") == 1
    x = torch.randn(length, 2, 3)
    with torch.no_grad():
        torch.testing.assert_close(module(x), model(x), rtol=1e-5, atol=1e-6)


def test_recurrent_layers_with_unknown_sizes() -> None:
    model = zoo.Recurrent().eval()
    module = import_torchscript(model, (TensorSpec((None, None, 3)),))
    x = torch.randn(3, 4, 3)
    with torch.no_grad():
        for got, want in zip(module(x), model(x), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_sizes_that_must_be_equal_share_a_symbol() -> None:
    def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y

    text = import_torchscript(add, (TensorSpec((None, 3)), TensorSpec((None, 3)))).asm()
    assert text.count("torch.symbolic_int") == 1
    assert text.count("affine_map<()[s0] -> (s0, 3)>") == 2


def test_branch_on_a_size() -> None:
    def choose(x: torch.Tensor) -> torch.Tensor:
        if x.size(0) > 3:
            return x.sum(0)
        return x[0]

    module = import_torchscript(choose, (TensorSpec((None, 4)),))
    for rows in (1, 3, 4, 8):
        x = torch.randn(rows, 4)
        torch.testing.assert_close(module(x), choose(x))


def test_reshape_by_sizes() -> None:
    def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
        b, t, c = x.shape
        return x.view(b, t, heads, c // heads).transpose(1, 2).reshape(b * heads, t, -1)

    module = import_torchscript(split_heads, (TensorSpec((None, None, 8)), 2))
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(module(x, 2), split_heads(x, 2))


def test_trace_with_unknown_batch_follows_the_size() -> None:
    class Flatten(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(x.size(0), x.size(1) * x.size(2)) * x.size(0)

    traced = torch.jit.trace(Flatten(), (torch.randn(2, 3, 4),))
    module = import_torchscript(traced, (TensorSpec((None, 3, 4)),))
    x = torch.randn(5, 3, 4)
    torch.testing.assert_close(module(x), traced(x))


def test_a_size_given_as_unknown_but_fixed_by_the_program_is_known() -> None:
    def product(x: torch.Tensor) -> torch.Tensor:
        return x @ torch.ones(3, 2)

    assert "@main(%arg0: !torch.vtensor<[2,3],f32>)" in str(import_torchscript(product, (TensorSpec((2, None)),)))


def test_no_size_fits_a_program_that_fails_for_all() -> None:
    def product(x: torch.Tensor) -> torch.Tensor:
        return x.sum(0, keepdim=True).expand(2, -1) @ torch.ones(3, 2) + (x @ torch.ones(4, 2))[:1]

    with pytest.raises(ImportFailed, match=r"torch.aten.matmul: "):
        import_torchscript(product, (TensorSpec((2, None)),))


def test_unknown_shape_without_examples_is_refused_by_name() -> None:
    scripted = torch.jit.script(zoo.Affine())
    with pytest.raises(InvalidInput, match="argument 'x' of type Tensor has no known shape"):
        import_torchscript(scripted)


def test_ops_that_pytorch_does_not_check_are_not_run_to_see_what_they_need() -> None:
    """Each ends the process, in PyTorch 2.13, at one of the sizes that would be tried."""

    def attention(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(x, x, x)[0]

    def normalised(x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._native_batch_norm_legit_functional(x, None, None, mean, mean + 1, True, 0.1, 1e-5)[0]

    def weight(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._weight_norm_interface(x, torch.ones(1, 7), 1)[0]

    x, y, v = torch.randn(1, 2, 12, 8), torch.randn(2, 12, 5), torch.randn(12, 7)
    for function, args, shapes in (
        (attention, (x,), [(1, 2, None, 8)]),
        (normalised, (y, y[0, :, 0]), [(2, None, 5), (None,)]),
        (weight, (v,), [(None, 7)]),
    ):
        traced = torch.jit.trace(function, args, check_trace=False)
        module = import_torchscript(traced, tuple(TensorSpec(shape) for shape in shapes))
        torch.testing.assert_close(module(*args), function(*args))


def test_sizes_computed_by_a_trace() -> None:
    """A trace computes the size by detached tensors of known numbers."""
    x = torch.randn(1, 2, 6)
    function = lambda x: functional.interpolate(x, scale_factor=1.7, recompute_scale_factor=True)
    compiled = import_torchscript(torch.jit.trace(function, (x,)), (x,))
    torch.testing.assert_close(compiled(x), function(x))


def test_sizes_of_another_argument() -> None:
    """Sizes of what is resized are known, those that it gets are not."""

    def resized(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(x, size=y.shape[-2:])

    x, spec = torch.randn(1, 2, 5, 6), TensorSpec((1, None, None))
    compiled = import_torchscript(torch.jit.script(resized), (x, spec))
    for size in ((7, 8), (3, 2)):
        y = torch.randn(1, *size)
        torch.testing.assert_close(compiled(x, y), resized(x, y))
