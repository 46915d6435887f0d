"""Sizes that no importer has looked at, those of a text and of what depends on data: ops check them themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import torch_tvm
from torch_tvm import InvalidInput

Tensor = torch.Tensor
V = "!torch.vtensor"

TEXT = f"""
func.func @main(%x: {V}<[?],f32>, %y: {V}<[1,1,?,5],f32>, %z: {V}<[?],f32>) -> ({V}<[],f32>, {V}<[?,2],f32>,
    {V}<[1,1,?,2],f32>, {V}<[3],f32>, {V}<[],f32>) {{
  %m1 = torch.constant.int -1
  %0 = torch.constant.int 0
  %1 = torch.constant.int 1
  %2 = torch.constant.int 2
  %3 = torch.constant.int 3
  %t = torch.constant.bool true
  %f = torch.constant.bool false
  %a = torch.aten.select.int %x, %0, %3 : {V}<[?],f32>, !torch.int, !torch.int -> {V}<[],f32>
  %s = torch.prim.ListConstruct %m1, %2 : (!torch.int, !torch.int) -> !torch.list<int>
  %b = torch.aten.view %x, %s : {V}<[?],f32>, !torch.list<int> -> {V}<[?,2],f32>
  %k = torch.prim.ListConstruct %3, %3 : (!torch.int, !torch.int) -> !torch.list<int>
  %d = torch.prim.ListConstruct %2, %2 : (!torch.int, !torch.int) -> !torch.list<int>
  %p = torch.prim.ListConstruct %0, %0 : (!torch.int, !torch.int) -> !torch.list<int>
  %g = torch.prim.ListConstruct %1, %1 : (!torch.int, !torch.int) -> !torch.list<int>
  %c = torch.aten.max_pool2d %y, %k, %d, %p, %g, %f : {V}<[1,1,?,5],f32>, !torch.list<int>, !torch.list<int>,
      !torch.list<int>, !torch.list<int>, !torch.bool -> {V}<[1,1,?,2],f32>
  %e:2 = torch.aten.topk %z, %3, %0, %t, %t : {V}<[?],f32>, !torch.int, !torch.int, !torch.bool, !torch.bool
      -> {V}<[3],f32>, {V}<[3],si64>
  %h = torch.aten.matmul %x, %z : {V}<[?],f32>, {V}<[?],f32> -> {V}<[],f32>
  return %a, %b, %c, %e#0, %h : {V}<[],f32>, {V}<[?,2],f32>, {V}<[1,1,?,2],f32>, {V}<[3],f32>, {V}<[],f32>
}}
"""


def _eager(x: Tensor, y: Tensor, z: Tensor) -> Any:
    return x[3], x.view(-1, 2), F.max_pool2d(y, 3, 2), z.topk(3)[0], x @ z


def test_text() -> None:
    """``x[3]`` of an empty tensor was read, and ended the process; the others gave numbers."""
    compiled = torch_tvm.compile(torch_tvm.parse(TEXT))
    answers = 0
    for n, m, k in (
        (4, 3, 4),
        (0, 3, 0),
        (2, 3, 2),
        (5, 3, 5),
        (6, 2, 6),
        (6, 0, 6),
        (6, 5, 5),
        (6, 5, 1),
        (6, 5, 6),
    ):
        arguments = (torch.randn(n), torch.randn(1, 1, m, 5), torch.randn(k))
        try:
            want = _eager(*arguments)
        except (RuntimeError, IndexError):
            with pytest.raises(InvalidInput):
                print(n, m, k, compiled(*arguments))
            continue
        answers += 1
        torch.testing.assert_close(compiled(*arguments), want)
    assert answers == 2


def chosen_pairs(x: Tensor) -> Tensor:
    return x[x > 0].view(-1, 2) * 2


def test_of_data() -> None:
    compiled = torch_tvm.compile(torch.jit.script(chosen_pairs), (torch.ones(4),))
    assert torch.equal(compiled(torch.tensor([1.0, 2.0, -1.0, -1.0])), torch.tensor([[2.0, 4.0]]))
    with pytest.raises(InvalidInput):  # two of the three were returned
        compiled(torch.tensor([1.0, 2.0, 3.0, -1.0]))
