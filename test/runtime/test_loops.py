"""Loops with run-time trip counts and exceptions of the program."""

from __future__ import annotations

import resource

import pytest
import torch

import torch_tvm
from torch_tvm.support.errors import InvalidInput

COUNTING = """
func.func @main(%x: !torch.vtensor<[3],f32>, %n: !torch.int) -> (!torch.vtensor<[3],f32>, !torch.int) {
  %true = torch.constant.bool true
  %one = torch.constant.int 1
  %r:2 = torch.prim.Loop %n, %true, init(%x, %one) {
  ^bb0(%i: !torch.int, %a: !torch.vtensor<[3],f32>, %k: !torch.int):
    %s = torch.aten.add.Scalar %a, %i, %one : !torch.vtensor<[3],f32>, !torch.int, !torch.int ->
    !torch.vtensor<[3],f32> %k2 = torch.aten.add.int %k, %one : !torch.int, !torch.int -> !torch.int
    torch.prim.Loop.condition %true, iter(%s, %k2 : !torch.vtensor<[3],f32>, !torch.int)
  } : (!torch.int, !torch.bool, !torch.vtensor<[3],f32>, !torch.int) -> (!torch.vtensor<[3],f32>, !torch.int)
  return %r#0, %r#1 : !torch.vtensor<[3],f32>, !torch.int
}
"""

LAST_TURN = """
func.func @main(%x: !torch.vtensor<[2],f32>, %n: !torch.int) -> (!torch.vtensor<[2],f32>, !torch.int) {
  %true = torch.constant.bool true
  %none = torch.constant.int -1
  %r:2 = torch.prim.Loop %n, %true, init(%x, %none) {
  ^bb0(%i: !torch.int, %a: !torch.vtensor<[2],f32>, %last: !torch.int):
    torch.prim.Loop.condition %true, iter(%a, %i : !torch.vtensor<[2],f32>, !torch.int)
  } : (!torch.int, !torch.bool, !torch.vtensor<[2],f32>, !torch.int) -> (!torch.vtensor<[2],f32>, !torch.int)
  return %r#0, %r#1 : !torch.vtensor<[2],f32>, !torch.int
}
"""


@pytest.fixture(scope="module")
def counting() -> torch_tvm.CompiledModule:
    return torch_tvm.compile(torch_tvm.parse(COUNTING), fallback=False)


@pytest.mark.parametrize("turns", [0, 1, 7])
def test_few_turns(counting: torch_tvm.CompiledModule, turns: int) -> None:
    given = torch.randn(3)
    total, count = counting(given, turns)
    expected = given.clone()
    for turn in range(turns):
        expected = expected + turn
    assert torch.equal(total, expected)
    assert count == turns + 1 and type(count) is int
    assert total.data_ptr() != given.data_ptr()


def test_a_million_turns_in_bounded_memory(counting: torch_tvm.CompiledModule) -> None:
    counting(torch.zeros(3), 10_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, count = counting(torch.zeros(3), 1_000_000)
    assert count == 1_000_001
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_a_body_that_returns_its_turn_number_and_its_argument() -> None:
    compiled = torch_tvm.compile(torch_tvm.parse(LAST_TURN))
    given = torch.randn(2)
    for turns in (0, 1, 5):
        kept, last = compiled(given, turns)
        assert last == turns - 1
        assert torch.equal(kept, given) and kept.data_ptr() != given.data_ptr()


def test_a_number_of_the_wrong_kind_is_named(counting: torch_tvm.CompiledModule) -> None:
    with pytest.raises(InvalidInput, match=r"argument .1.: expected int, got float 2\.5"):
        counting(torch.zeros(3), 2.5)


def test_the_program_raises_its_own_exception() -> None:
    text = """
    func.func @main(%x: !torch.vtensor<[2],f32>, %flag: !torch.bool) -> !torch.vtensor<[2],f32> {
      %str = torch.constant.str "negative input"
      %none = torch.constant.none
      %r = torch.prim.If %flag -> (!torch.vtensor<[2],f32>) {
        torch.prim.RaiseException %str, %none : !torch.str, !torch.none
        torch.prim.If.yield %x : !torch.vtensor<[2],f32>
      } else {
        %y = torch.aten.relu %x : !torch.vtensor<[2],f32> -> !torch.vtensor<[2],f32>
        torch.prim.If.yield %y : !torch.vtensor<[2],f32>
      }
      return %r : !torch.vtensor<[2],f32>
    }
    """
    compiled = torch_tvm.compile(torch_tvm.parse(text))
    given = torch.randn(2)
    assert torch.equal(compiled(given, False), torch.relu(given))
    with pytest.raises(RuntimeError, match="negative input"):
        compiled(given, True)
