"""Products with ``vdpbf16ps``: its code for processors that have it, its numbers with the instruction spelled out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import tvm
from spelled_out import spell_out
from tvm import relax

from torch_tvm.backends import build, optimize, schedule

from ..relax_models import TARGET, var


def linear(rows: object, depth: int, columns: int, target: tvm.target.Target) -> tuple[tvm.IRModule, list[str]]:
    """``gelu(x @ w.T + b)`` scheduled under ``accuracy="fast"``, and the rules that took its kernels."""
    builder = relax.BlockBuilder()
    x, w, b = var("x", (rows, depth)), var("w", (columns, depth)), var("b", (columns,))
    with builder.function("main", [x, w, b], attrs={"num_input": 1}):
        with builder.dataflow():
            y = builder.emit(relax.op.matmul(x, builder.emit(relax.op.permute_dims(w))))
            y = builder.emit_output(relax.op.nn.gelu(builder.emit(relax.op.add(y, b))))
        builder.emit_func_output(y)
    mod, decisions = schedule(optimize(builder.get(), target, accuracy="fast"), target)
    return mod, [decision.rule for decision in decisions]


def test_targets_with_bfloat16_use_it_in_full_vectors() -> None:
    target = tvm.target.Target(
        {"kind": "llvm", "mcpu": "sapphirerapids", "mtriple": "x86_64-linux-gnu", "num-cores": 2}
    )
    mod, rules = linear(64, 128, 96, target)
    assert "bfloat16_matmul" in rules
    assembly = build(mod, target).mod.imports[0].inspect_source("asm")
    dots = [line for line in assembly.splitlines() if "vdpbf16ps" in line]
    assert len(dots) >= 8 * 3
    assert all("%zmm" in line for line in dots)
    assert "call" not in "".join(line for line in assembly.splitlines() if "dot_bf16" in line)


def test_targets_without_bfloat16_keep_float32() -> None:
    target = tvm.target.Target({"kind": "llvm", "mcpu": "cascadelake", "mtriple": "x86_64-linux-gnu"})
    _, rules = linear(64, 128, 96, target)
    assert "bfloat16_matmul" not in rules
    assert "matmul" in rules


@pytest.fixture
def spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    spell_out(monkeypatch)


@pytest.mark.usefixtures("spelled_out")
@pytest.mark.parametrize(
    ("rows", "depth", "columns"), [(2, 64, 96), (5, 33, 50), (17, 130, 7), (9, 1, 33), (40, 771, 48)]
)
def test_result_is_that_of_rounded_operands(rows: int, depth: int, columns: int) -> None:
    mod, rules = linear(rows, depth, columns, TARGET)
    assert "bfloat16_matmul" in rules
    vm = relax.VirtualMachine(build(mod, TARGET), tvm.cpu())
    x, w, b = torch.randn(rows, depth), torch.randn(columns, depth), torch.randn(columns)
    result = torch.from_dlpack(vm["main"](x, vm["main_transform_params"]([w, b])))
    exact = F.gelu(F.linear(x.bfloat16().double(), w.bfloat16().double(), b.double()))
    error = (result.double() - exact).square().mean().sqrt()
    assert error <= 3e-6 * depth**0.5 + 1e-5
