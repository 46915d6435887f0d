"""Odd ops of every kind: equal to eager without fallback; one that only PyTorch has warns once, with op, line and
reason.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import torch_tvm


def unique(x: Tensor) -> Any:
    return torch.unique(x.round(), return_inverse=True, return_counts=True)


def svd(x: Tensor) -> Any:
    return torch.linalg.svd(x)[1]


def transform(x: Tensor) -> Any:
    return torch.fft.fft(x), torch.view_as_real(torch.fft.rfft(x) * 2)


def mask(x: Tensor) -> Any:
    return x[x > 0] * 2


def draw(x: Tensor) -> Any:
    return torch.multinomial(x.abs(), 2)


def noise(x: Tensor) -> Any:
    return x + torch.rand_like(x) - torch.rand_like(x)


def special(x: Tensor) -> Any:
    return torch.special.zeta(x.abs() + 1.5, 2.0)


def counts(x: Tensor) -> Any:
    return torch.histc(x, 4, -2.0, 2.0), torch.bincount(torch.tensor([0, 1, 1]))


def middle(x: Tensor) -> Any:
    return tuple(torch.mode(x)), tuple(torch.cummax(x, 0))


class Program(torch.nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def assert_same(ours: Any, eager: Any) -> None:
    got, want = pytree.tree_leaves(ours), pytree.tree_leaves(eager)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


ODD = (unique, svd, transform, mask, draw, noise, special, counts, middle)


@pytest.mark.parametrize("function", ODD, ids=lambda function: function.__name__)
def test_op_equals_eager_without_fallback(function: Any) -> None:
    module = torch_tvm.compile(Program(function), (torch.randn(3, 4),), frontend="fx", fallback=False)
    given = torch.randn(3, 4)
    torch.manual_seed(7)
    ours = module(given)
    torch.manual_seed(7)
    assert_same(ours, function(given))


def test_an_op_of_pytorch_equals_eager_with_one_warning() -> None:
    def narrow(x: Tensor) -> Tensor:
        return torch.histc(x.bfloat16(), 4, -2.0, 2.0)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = torch_tvm.compile(Program(narrow), (torch.randn(3, 4),), frontend="fx")
    given = torch.randn(3, 4)
    assert_same(module(given), narrow(given))
    (warning,) = [w for w in caught if issubclass(w.category, torch_tvm.FallbackWarning)]
    reason = "a histogram of integers or of half precision"
    assert f"test_odd_ops.py:{_line()}: torch.aten.histc: {reason}" in str(warning.message)


def _line() -> int:
    return Program.forward.__code__.co_firstlineno + 1


SPLIT = """
func.func @main(%x: !torch.vtensor<[?,4],f32>) -> (!torch.vtensor<[?,4],f32>, !torch.vtensor<[?,4],f32>, !torch.int) {
  %two = torch.constant.int 2
  %zero = torch.constant.int 0
  %one = torch.constant.int 1
  %parts = torch.aten.split.Tensor %x, %two, %zero
    : !torch.vtensor<[?,4],f32>, !torch.int, !torch.int -> !torch.list<vtensor<[?,4],f32>>
  %n = torch.aten.len.t %parts : !torch.list<vtensor<[?,4],f32>> -> !torch.int
  %b = torch.aten.__getitem__.t %parts, %one
    : !torch.list<vtensor<[?,4],f32>>, !torch.int -> !torch.vtensor<[?,4],f32>
  %joined = torch.aten.cat %parts, %zero : !torch.list<vtensor<[?,4],f32>>, !torch.int -> !torch.vtensor<[?,4],f32>
  %c = torch.aten.relu %b : !torch.vtensor<[?,4],f32> -> !torch.vtensor<[?,4],f32>
  return %joined, %c, %n : !torch.vtensor<[?,4],f32>, !torch.vtensor<[?,4],f32>, !torch.int
}
"""

UNPACK = """
func.func @main(%x: !torch.vtensor<[?,4],f32>) -> (!torch.vtensor<[?,4],f32>) {
  %two = torch.constant.int 2
  %zero = torch.constant.int 0
  %one = torch.constant.int 1
  %parts = torch.aten.tensor_split.sections %x, %two, %zero
    : !torch.vtensor<[?,4],f32>, !torch.int, !torch.int -> !torch.list<vtensor<[?,4],f32>>
  %a, %b = torch.prim.ListUnpack %parts
    : !torch.list<vtensor<[?,4],f32>> -> !torch.vtensor<[?,4],f32>, !torch.vtensor<[?,4],f32>
  %s = torch.aten.add.Tensor %a, %b, %one
    : !torch.vtensor<[?,4],f32>, !torch.vtensor<[?,4],f32>, !torch.int -> !torch.vtensor<[?,4],f32>
  return %s : !torch.vtensor<[?,4],f32>
}
"""


def test_lists_whose_length_only_run_time_knows() -> None:
    with pytest.warns(torch_tvm.FallbackWarning, match="split"):
        module = torch_tvm.compile(torch_tvm.parse(SPLIT))
    for rows in (3, 4, 7):
        given = torch.randn(rows, 4)
        joined, second, count = module(given)
        assert torch.equal(joined, given) and count == len(given.split(2))
        assert torch.equal(second, given.split(2)[1].relu())


def test_a_list_of_unknown_length_that_is_unpacked() -> None:
    module = torch_tvm.compile(torch_tvm.parse(UNPACK), fallback=False)
    for rows in (0, 2, 6):
        given = torch.randn(rows, 4)
        first, second = given.tensor_split(2)
        torch.testing.assert_close(module(given), first + second)


@pytest.mark.parametrize("frontend", ["fx", "torchscript"])
def test_a_mask_larger_than_the_tensor(frontend: str) -> None:
    """PyTorch's fake tensors allow no more results than the tensor has elements, which is broadcast with its mask."""
    select = lambda x, mask: torch.masked_select(x, mask)
    x, mask = torch.randn(2, 1), torch.tensor([[True, False, True], [True, True, True]])
    program = torch.jit.trace(select, (x, mask)) if frontend == "torchscript" else select
    module = torch_tvm.compile(program, (x, mask), frontend=frontend, fallback=False)
    for given in (mask, torch.ones_like(mask), torch.zeros_like(mask)):
        assert torch.equal(module(x, given), x.masked_select(given))


def test_two_draws_are_two_draws_and_keep_their_order() -> None:
    module = torch_tvm.compile(Program(noise), (torch.zeros(1000),), frontend="fx", fallback=False)
    assert float(module(torch.zeros(1000)).abs().max()) > 0


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
def test_nothing_in_another_shape_than_fake_tensors_say(frontend: str) -> None:
    """Of a tensor without elements, ``pixel_unshuffle`` gives a copy; by fake tensors, another shape."""
    unshuffled = torch.nn.PixelUnshuffle(2)
    assert unshuffled(torch.ones(1, 1, 0, 4)).shape == (1, 1, 0, 4)
    example = (torch.ones(1, 1, 0, 4),)
    program = torch.jit.trace(unshuffled, example) if frontend == "torchscript" else unshuffled
    with pytest.raises(torch_tvm.ImportFailed, match=r"without elements.* another shape"):
        torch_tvm.compile(program, example, frontend=frontend)


def test_nothing_in_another_shape_under_torch_compile() -> None:
    """The graph for a size of 0 leaves the op to PyTorch, whatever it knows of the other sizes."""
    torch._dynamo.reset()
    compiled = torch.compile(torch.nn.PixelUnshuffle(2), backend="torch_tvm", dynamic=True)
    assert compiled(torch.ones(1, 1, 8, 4)).shape == (1, 4, 4, 2)
    with pytest.warns(torch_tvm.dynamo.GraphNotCompiled, match="without elements"):
        assert compiled(torch.ones(1, 1, 0, 4)).shape == (1, 1, 0, 4)
