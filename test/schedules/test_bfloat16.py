"""Products with ``vdpbf16ps``: its code for processors that have it, its numbers with the instruction spelled out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import tvm
from tvm import relax, tirx

from torch_tvm.runtime.build import build
from torch_tvm.schedules import schedule
from torch_tvm.schedules.cpu import bfloat16_matmul
from torch_tvm.schedules.cpu.bfloat16_matmul import Bfloat16Emitter
from torch_tvm.schedules.target import CpuModel
from torch_tvm.transforms import optimize

from .relax_models import TARGET, var


def linear(
    rows: object, depth: int, columns: int, target: tvm.target.Target
) -> tuple[tvm.IRModule, list[str]]:
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
    """This machine's target with bfloat16, and the instruction as shifts, products and sums."""
    read = CpuModel.from_target.__func__
    monkeypatch.setattr(
        CpuModel, "from_target", classmethod(lambda cls, target: replace(read(cls, target), has_bf16=True))
    )

    def dot(self: Bfloat16Emitter, total: tvm.ir.Expr, left: tvm.ir.Expr, right: tvm.ir.Expr) -> tvm.ir.Expr:
        lanes = tvm.DataType(str(total.ty.dtype)).lanes
        constant = lambda number: tirx.Broadcast(tirx.const(number, "int32"), lanes)
        single = lambda bits: tirx.reinterpret(f"float32x{lanes}", bits)
        low, high = (lambda v: single(v << constant(16))), (lambda v: single(v & constant(-65536)))
        return total + low(left) * low(right) + high(left) * high(right)

    monkeypatch.setattr(Bfloat16Emitter, "dot", dot)
    monkeypatch.setattr(bfloat16_matmul, "WRAPPER", "")


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
