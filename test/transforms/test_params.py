"""Weights-only work runs once, outside ``main``, which takes its results as one tuple."""

from __future__ import annotations

import torch
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from torch_tvm.backends import build, optimize, schedule
from torch_tvm.runtime.weights_program import pack_weights
from torch_tvm.support.attributes import PROGRAM

TARGET = tvm.target.Target("llvm")


def linear_module(num_input: int | None, weights: bool = True) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((3, 5), "float32"))
    w = relax.Var("w", relax.TensorType((7, 5), "float32"))
    b = relax.Var("b", relax.TensorType((7,), "float32"))
    unused = relax.Var("unused", relax.TensorType((2,), "float32"))
    attrs = None if num_input is None else {"num_input": num_input}
    with builder.function("main", [x, w, b, unused] if weights else [x], attrs=attrs):
        with builder.dataflow():
            out = x
            if weights:
                doubled = builder.emit(relax.op.add(w, w))
                out = builder.emit(relax.op.matmul(x, relax.op.permute_dims(doubled)))
                out = builder.emit(relax.op.add(out, b))
            out = builder.emit_output(relax.op.nn.relu(out))
        builder.emit_func_output(out)
    return builder.get()


def called_kernels(func: relax.Function) -> int:
    count = 0

    def visit(expr: relax.Expr) -> None:
        nonlocal count
        count += isinstance(expr, relax.Call) and expr.op == tvm.ir.Op.get("relax.call_tir")

    relax.analysis.post_order_visit(func, visit)
    return count


def test_weights_are_transformed_once() -> None:
    mod = optimize(linear_module(1), TARGET)
    assert len(mod["main"].params) == 2
    assert isinstance(mod["main"].params[1].ty, relax.TupleType)
    scheduled, _ = schedule(mod, TARGET)
    vm = relax.VirtualMachine(build(scheduled, TARGET), tvm.cpu())
    x, w, b = torch.randn(3, 5), torch.randn(7, 5), torch.randn(7)
    params = pack_weights(scheduled, vm, [w, b, torch.zeros(2)])
    for _ in range(2):
        out = torch.from_dlpack(vm["main"](x, params))
        torch.testing.assert_close(out, torch.relu(torch.nn.functional.linear(x, 2 * w, b)))


def test_main_keeps_no_weight_only_kernel() -> None:
    mod = optimize(linear_module(1), TARGET)
    assert called_kernels(mod["main"]) == 1
    assert mod.attrs[PROGRAM]


def test_without_num_input_main_is_left_alone() -> None:
    mod = optimize(linear_module(None), TARGET)
    assert len(mod["main"].params) == 4
    assert "main_transform_params" not in [gvar.name_hint for gvar in mod.get_global_vars()]
    assert not mod.attrs or PROGRAM not in mod.attrs


def test_without_weights_main_is_left_alone() -> None:
    mod = optimize(linear_module(1, weights=False), TARGET)
    assert len(mod["main"].params) == 1
    assert "main_transform_params" not in [gvar.name_hint for gvar in mod.get_global_vars()]
    assert not mod.attrs or PROGRAM not in mod.attrs


def test_module_without_main_is_left_alone() -> None:
    @I.ir_module
    class Other:
        @R.function
        def other(x: R.Tensor((2,), "float32")) -> R.Tensor((2,), "float32"):
            with R.dataflow():
                y = R.add(x, x)
                R.output(y)
            return y

    assert [gvar.name_hint for gvar in optimize(Other, TARGET).get_global_vars() if gvar.name_hint == "other"]
