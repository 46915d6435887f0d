"""Weights that come from memory are asked for ahead, in equal parts over the tiles that use what is there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import tvm_ffi
from torch import nn
from tvm import sym, tirx
from tvm.ir import TensorLoad

import torch_tvm
from torch_tvm.schedules.cpu import emit
from torch_tvm.tir import const, exact

PER_LINE = emit.LINE // 4


def asked(stmt: tirx.Stmt) -> set[int]:
    """The lines of a flat float32 buffer that a statement asks for."""
    found: set[int] = set()
    analyzer = sym.Analyzer()
    take = lambda load: found.add(exact(analyzer.simplify(load.indices[-1])) // PER_LINE)
    tvm_ffi.structural_walk(stmt, (TensorLoad, take))
    return found


def with_value(stmt: tirx.Stmt, var: tirx.Var, value: int) -> tirx.Stmt:
    swap = lambda other: const(value) if other.same_as(var) else other
    return tvm_ffi.structural_map(stmt, (tirx.Var, swap))


@pytest.mark.parametrize(("size", "turns"), [(4096, 256), (4096, 100), (4096, 7), (100, 300), (6400, 1)])
@pytest.mark.parametrize("is_known", [True, False])
def test_the_parts_of_all_turns_cover_everything(size: int, turns: int, is_known: bool) -> None:
    weights = tirx.decl_buffer([const(1 << 20)], "float32", "weights")
    number: int | tirx.Expr = turns if is_known else tirx.Var("turns", "int64")
    bound, part_of = emit.prefetch_parts(weights, [0], size, number, turns)
    lines: set[int] = set()
    most = 0
    for turn in range(turns):
        stmt = part_of(const(turn))
        if bound is not None:
            stmt = with_value(stmt, bound.var, -(-size // turns))
        here = asked(stmt)
        most = max(most, len(here))
        lines |= here
    assert set(range(-(-size // PER_LINE))) <= lines
    assert most <= -(-size // turns) // PER_LINE + 2


def kernel_texts(model: nn.Module, *args: torch.Tensor, **options: Any) -> dict[str, str]:
    compiled = torch_tvm.compile(model.eval(), args, **options)
    return {kernel.rule: compiled.tir_module[kernel.name].script() for kernel in compiled.report.kernels}


def test_a_direct_convolution_asks_for_large_weights_only() -> None:
    small = kernel_texts(nn.Conv2d(64, 64, 1), torch.randn(1, 64, 14, 14))
    large = kernel_texts(nn.Conv2d(1024, 512, 1), torch.randn(1, 1024, 7, 7))
    strided = kernel_texts(nn.Conv2d(512, 256, 3, stride=2, padding=1), torch.randn(1, 512, 14, 14))
    assert "prefetch" not in small["direct-convolution"]
    assert "prefetch" in large["direct-convolution"]
    assert "prefetch" in strided["direct-convolution"]


def test_winograd_asks_for_large_weights_only() -> None:
    small = kernel_texts(nn.Conv2d(16, 16, 3, padding=1), torch.randn(1, 16, 32, 32))
    large = kernel_texts(nn.Conv2d(256, 256, 3, padding=1), torch.randn(1, 256, 14, 14))
    assert "prefetch" not in small["winograd-convolution"]
    assert "prefetch" in large["winograd-convolution"]


@pytest.mark.parametrize("is_dynamic", [False, True])
def test_a_linear_layer_asks_for_its_next_weights(is_dynamic: bool) -> None:
    shapes = {"dynamic_shapes": ({0: torch.export.Dim("n", min=2, max=512)},)} if is_dynamic else {}
    texts = kernel_texts(nn.Linear(512, 512), torch.randn(64, 512), **shapes)
    assert "prefetch" in texts["matmul"]
