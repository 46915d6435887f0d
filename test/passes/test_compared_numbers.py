"""Comparisons of tensors of equal elements with numbers: torch-mlir folds them, and must fold what PyTorch compares."""

from __future__ import annotations

import operator

import pytest
import torch

import torch_tvm
from torch_tvm.dialect import view
from torch_tvm.importers.fx import import_fx
from torch_tvm.passes.pipeline import canonicalize

OPERATORS = (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge)


@pytest.mark.parametrize(
    ("dtype", "element", "number"),
    [
        (torch.float32, 2.0, 2),
        (torch.float32, 2.5, -3),
        (torch.float32, 0.1, 0.1),
        (torch.float32, 16777216.0, 16777217),
        (torch.float64, 2.0, 2),
        (torch.float16, 0.3, 0.3),
        (torch.bfloat16, 2.0, 2),
        (torch.int64, 2, 2),
        (torch.int64, 2, 2.5),
        (torch.int32, 2, 2.0),
        (torch.int8, 1, 200),
        (torch.uint8, 200, -3),
        (torch.uint8, 253, -3),
        (torch.bool, True, 1),
        (torch.bool, True, 0.5),
        (torch.float32, float("inf"), float("inf")),
        (torch.float32, float("nan"), 1),
        (torch.float32, 1.0, float("nan")),
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_filled_tensors_compare_as_in_pytorch(dtype: torch.dtype, element: float, number: float, rank: int) -> None:
    def program(like: torch.Tensor) -> tuple[torch.Tensor, ...]:
        filled = torch.full((3,) * rank, element, dtype=dtype)
        return tuple(compare(filled, number) for compare in OPERATORS)

    like = torch.zeros(3)
    compiled = torch_tvm.compile(program, (like,), fallback=False)
    for ours, eager in zip(compiled(like), program(like), strict=True):
        assert ours.dtype == torch.bool and torch.equal(ours, eager)


@pytest.mark.parametrize(
    ("element", "number", "equal"),
    [
        ("float 2.0", "int 2", True),
        ("float 0.1", "float 0.1", True),
        ("int 2", "float 2.5", False),
        ("float 2.5", "int 2", False),
    ],
)
def test_filled_tensors_without_types(element: str, number: str, equal: bool) -> None:
    kinds = [text.split()[0] for text in (element, number)]
    nones = ", ".join(["%none"] * 4), ", ".join(["!torch.none"] * 4)
    text = f"""
      func.func @main(%arg0: !torch.vtensor<[4],f32>) -> !torch.vtensor {{
        %size = torch.constant.int 4
        %none = torch.constant.none
        %element = torch.constant.{element}
        %number = torch.constant.{number}
        %sizes = torch.prim.ListConstruct %size : (!torch.int) -> !torch.list<int>
        %full = torch.aten.full %sizes, %element, {nones[0]}
          : !torch.list<int>, !torch.{kinds[0]}, {nones[1]} -> !torch.vtensor
        %equal = torch.aten.eq.Scalar %full, %number : !torch.vtensor, !torch.{kinds[1]} -> !torch.vtensor
        return %equal : !torch.vtensor
      }}"""
    result = torch_tvm.compile(torch_tvm.parse(text))(torch.randn(4))
    assert torch.equal(result, torch.full((4,), equal))


@pytest.mark.parametrize("number", [1, 1.0, True])
def test_filled_tensors_compare_with_tensors(number: float) -> None:
    def program(like: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ones = [torch.ones_like(like, dtype=dtype) for dtype in (torch.float32, torch.int64, torch.bool)]
        return tuple(one == torch.tensor(number) for one in ones)

    like = torch.randn(3)
    assert all(result.all() for result in torch_tvm.compile(program, (like,), fallback=False)(like))


def test_a_mask_of_ones_keeps_what_it_masks() -> None:
    program = lambda x: torch.where(torch.ones_like(x) == 1, x, 0.0)
    x = torch.randn(2, 3)
    assert torch.equal(torch_tvm.compile(program, (x,))(x), x)


def test_the_number_has_the_dtype_that_is_compared_in() -> None:
    module = canonicalize(import_fx(lambda x, n: (x > 0, n > 0.5), (torch.randn(3), torch.arange(3))))
    numbers = [
        view.constant(op.operands[1]) for op in view.walk(module.main) if view.op_name(op) == "torch.aten.gt.Scalar"
    ]
    assert [type(number) for number in numbers] == [float, float]
