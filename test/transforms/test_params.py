"""Weights-only work runs once, outside ``main``, which takes its results as one tuple."""

from __future__ import annotations

import json
from typing import Any

import torch
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from torch_tvm.backends import build, optimize, schedule
from torch_tvm.runtime.weights.weights_program import pack_weights, run_weights_program
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


def test_only_results_that_read_a_changed_weight_are_made() -> None:
    """Of random programs: what a change of some weights makes anew is what all of them make."""
    torch.manual_seed(1)
    draw = lambda high: int(torch.randint(high, ()))
    for _ in range(50):
        count = 2 + draw(4)
        steps: list[list[Any]] = []
        for index in range(draw(12)):
            name = ("add", "multiply", "concat", "permute")[draw(4)]
            operands = [[draw(count + index)] for _ in range(1 if name == "permute" else 2)]
            steps.append([name, operands, [1, 0] if name == "permute" else 0])
            if name == "concat":  # back to the size of the others
                steps[-1] = ["add", operands, None]
        results: list[Any] = [[draw(count + len(steps))] for _ in range(4)]
        text = json.dumps({"steps": steps, "results": [*results, 3.5]})
        weights = [torch.randn(3, 3) for _ in range(count)]
        before = run_weights_program(text, weights)
        changed = [index for index in range(count) if draw(3) == 0]
        for index in changed:
            weights[index] = torch.randn(3, 3)
        after = run_weights_program(text, weights)
        partly = run_weights_program(text, weights, changed)
        assert partly[-1] is None
        for old, part, new in zip(before, partly, after, strict=True):
            assert old is not None and new is not None
            assert torch.equal(old if part is None else part, new)
            assert part is None or not torch.equal(old, new)


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
        def other(x: R.Tensor((2,), "float32")) -> R.Tensor((2,), "float32"):  # type: ignore[valid-type]
            with R.dataflow():
                y = R.add(x, x)
                R.output(y)
            return y

    mod: Any = Other
    assert [gvar.name_hint for gvar in optimize(mod, TARGET).get_global_vars() if gvar.name_hint == "other"]
