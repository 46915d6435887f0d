"""Numbers that kernels compute once stay so: TVM's simplifier writes what they stand for wherever they are used."""

from __future__ import annotations

import pytest
import torch
import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad
from tvm.script import tirx as T

import torch_tvm
from torch_tvm.codegen.tir import pipeline as tir_pipeline
from torch_tvm.codegen.tir.bindings import hide_bindings, show_bindings


@T.prim_func(s_tir=True)
def tiles(chunk: T.Buffer((1,), "int64"), x: T.Buffer((56, 64), "float32"), y: T.Buffer((56, 64), "float32")):  # type: ignore[valid-type]
    T.func_attr({"global_symbol": "main", "tirx.noalias": True})
    first: T.let[T.int64] = chunk[0] * T.int64(7)
    for turn in range(T.int64(7)):
        task: T.let[T.int64] = first + turn
        row: T.let[T.int64] = task // T.int64(4) % T.int64(56)
        column: T.let[T.int64] = task % T.int64(4) * T.int64(16)
        twice: T.let[T.int64] = turn * T.int64(2)
        for m in T.unroll(T.int64(16)):
            if column + m < T.int64(64):
                y[row, column + m] = x[row, column + m] + T.Cast("float32", twice)


def _nodes(statement: tirx.Stmt, kind: type) -> list:
    found: list = []
    tvm_ffi.structural_walk(statement, (kind, found.append))
    return found


def test_show_is_the_inverse_of_hide() -> None:
    mod = tvm.IRModule({"main": tiles})
    hidden = hide_bindings(mod)
    assert len(_nodes(hidden["main"].body, tirx.Bind)) == 2  # ``first`` loads, ``twice`` depends on a loop
    loops = {loop.loop_var.name: (int(loop.min), int(loop.extent)) for loop in _nodes(hidden["main"].body, tirx.For)}
    assert loops == {"turn": (0, 7), "row": (0, 56), "column": (0, 49), "m": (0, 16)}
    shown = show_bindings(hidden)["main"]
    simplify = tvm.s_tir.transform.StmtSimplify()
    same = simplify(tvm.IRModule({"main": shown}))["main"], simplify(mod)["main"]
    assert tvm_ffi.structural_equal(*same)


def test_accesses_have_no_divisions() -> None:
    """And what is known of a number is used: its tile is never cut off."""
    mod = tvm.IRModule({"main": tiles})
    for item in tir_pipeline._passes():
        mod = item(mod)
        if item.info.name == "ShowBindings":
            break
    body = mod["main"].body
    indices = [
        index for access in (*_nodes(body, TensorLoad), *_nodes(body, tirx.BufferStore)) for index in access.indices
    ]
    assert len(_nodes(body, tirx.BufferStore)) == 16
    assert not any(_nodes(index, kind) for index in indices for kind in (tirx.FloorDiv, tirx.FloorMod))
    assert not _nodes(body, tirx.IfThenElse)


@T.prim_func(s_tir=True)
def effects(x: T.Buffer((8,), "int32"), y: T.Buffer((8,), "int32")):  # type: ignore[valid-type]
    T.func_attr({"global_symbol": "main", "tirx.noalias": True})
    drawn: T.let[T.int32] = T.call_extern("int32", "rand")
    loaded: T.let[T.int32] = x[0]
    far: T.let[T.int32] = loaded // T.int32(3) - T.int32(7)
    for i in range(8):
        y[i] = drawn + far + T.Select(far < T.int32(1 << 30), 1, 0)


def test_calls_happen_once_and_nothing_is_made_up_of_a_number() -> None:
    body = show_bindings(tvm.s_tir.transform.StmtSimplify()(hide_bindings(tvm.IRModule({"main": effects}))))[
        "main"
    ].body
    assert [binding.var.name for binding in _nodes(body, tirx.Bind)] == ["drawn", "loaded", "far"]
    assert sum(getattr(call.args[0], "value", "") == "rand" for call in _nodes(body, tvm.ir.Call) if call.args) == 1


@pytest.mark.parametrize("size", [7, 30])
def test_results(size: int) -> None:
    """A convolution by Winograd's algorithm and one of single points, a pool, and rows of sizes that are unknown."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(32, 32, 3, padding=1),
        torch.nn.MaxPool2d(3, 2, 1),
        torch.nn.Conv2d(32, 48, 1),
        torch.nn.Softmax(1),
    ).eval()
    x = torch.randn(1, 32, size, size)
    with torch.no_grad():
        torch.testing.assert_close(torch_tvm.compile(model, (x,))(x), model(x), rtol=1e-4, atol=1e-5)
    program = lambda x: torch.softmax(x.flip(0), 1) + x[:1]
    y = torch.randn(size, size + 1)
    shapes = {"x": {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}}
    module = torch_tvm.compile(program, (y,), dynamic_shapes=shapes)
    for other in (y, torch.randn(3, 70)):
        torch.testing.assert_close(module(other), program(other))
