"""Batch norms vanish into convolutions, and the numbers stay those of PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import tvm
import tvm_ffi
from tvm import relax

from torch_tvm.backends import build, optimize, schedule
from torch_tvm.runtime.weights.weights_program import pack_weights
from torch_tvm.schedules.target import host_target
from torch_tvm.transforms.convolution.fold_batch_norm import FoldBatchNorm

TARGET = host_target()
R = relax.op
Body = Callable[[relax.BlockBuilder, list[relax.Var], list[relax.Var]], relax.Expr]


def module(inputs: list[torch.Tensor], weights: list[torch.Tensor], body: Body) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    types = [relax.TensorType(list(t.shape), "float32") for t in [*inputs, *weights]]
    params = [relax.Var(f"p{i}", ty) for i, ty in enumerate(types)]
    with builder.function("main", params, attrs={"num_input": len(inputs)}):
        with builder.dataflow():
            result = builder.emit_output(body(builder, params[: len(inputs)], params[len(inputs) :]))
        builder.emit_func_output(result)
    return builder.get()


def ops(mod: tvm.IRModule) -> list[str]:
    names: list[str] = []
    tvm_ffi.structural_walk(
        mod["main"].body,
        (relax.Call, lambda c: names.append(c.op.name) if isinstance(c.op, tvm.ir.Op) else None),
    )
    return [name.removeprefix("relax.").removeprefix("nn.") for name in names]


def run(mod: tvm.IRModule, inputs: list[torch.Tensor], weights: list[torch.Tensor]) -> torch.Tensor:
    scheduled, _ = schedule(optimize(mod, TARGET, accuracy="strict"), TARGET)
    vm = relax.VirtualMachine(build(scheduled, TARGET), tvm.cpu())
    return vm["main"](*inputs, pack_weights(scheduled, vm, weights))


def norm_weights(channels: int) -> list[torch.Tensor]:
    gamma, beta, mean = torch.randn(3, channels)
    return [gamma, beta, mean, torch.rand(channels) + 0.5]


def batch_norm(builder: relax.BlockBuilder, data: relax.Expr, weights: list[relax.Var]) -> relax.Var:
    normed = builder.emit(R.nn.batch_norm(data, *weights, axis=1, epsilon=1e-3, training=False))
    return builder.emit(relax.TupleGetItem(normed, 0))


def eager_norm(data: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    gamma, beta, mean, var = weights
    return F.batch_norm(data, mean, var, gamma, beta, eps=1e-3)


@pytest.mark.parametrize(("transposed", "groups"), [(False, 1), (False, 2), (True, 1), (True, 2)])
def test_convolution_and_norm_become_one(transposed: bool, groups: int) -> None:
    x = torch.randn(2, 8, 7, 6)
    weight = torch.randn((8, 12 // groups, 3, 3) if transposed else (12, 8 // groups, 3, 3))
    weights = [weight, *norm_weights(12)]

    def body(builder: relax.BlockBuilder, inputs: list[relax.Var], params: list[relax.Var]) -> relax.Expr:
        op = R.nn.conv2d_transpose if transposed else R.nn.conv2d
        conv = builder.emit(op(inputs[0], params[0], padding=(1, 1), groups=groups))
        return builder.emit(R.nn.relu(batch_norm(builder, conv, params[1:])))

    mod = module([x], weights, body)
    folded = ops(FoldBatchNorm().run(mod))
    assert "batch_norm" not in folded
    conv_at = next(i for i, name in enumerate(folded) if name.startswith("conv"))
    assert folded[conv_at + 1 :] == ["add", "relu"]
    eager = F.conv_transpose2d if transposed else F.conv2d
    exact = torch.relu(
        eager_norm(eager(x.double(), weight.double(), padding=1, groups=groups), [w.double() for w in weights[1:]])
    )
    torch.testing.assert_close(run(mod, [x], weights).double(), exact, rtol=1e-4, atol=1e-4)


def test_bias_and_decomposed_arithmetic_fold_too() -> None:
    x, weight, bias = torch.randn(1, 4, 5, 5), torch.randn(6, 4, 3, 3), torch.randn(1, 6, 1, 1)
    mean, scale, shift = torch.randn(6, 1, 1), torch.randn(1, 6, 1, 1), torch.randn(1, 6, 1, 1)
    weights = [weight, bias, mean, scale, shift]

    def body(builder: relax.BlockBuilder, inputs: list[relax.Var], params: list[relax.Var]) -> relax.Expr:
        value = builder.emit(R.nn.conv2d(inputs[0], params[0]))
        value = builder.emit(R.add(value, params[1]))
        value = builder.emit(R.subtract(value, params[2]))
        value = builder.emit(R.multiply(params[3], value))
        value = builder.emit(R.divide(value, relax.const(2.0, "float32")))
        return builder.emit(R.add(value, params[4]))

    mod = module([x], weights, body)
    folded = ops(FoldBatchNorm().run(mod))
    assert folded[folded.index("conv2d") + 1 :] == ["add"]
    w, b, m, s, t = (w.double() for w in weights)
    exact = (F.conv2d(x.double(), w) + b - m) * s / 2 + t
    torch.testing.assert_close(run(mod, [x], weights).double(), exact, rtol=1e-4, atol=1e-4)


def test_norm_without_convolution_becomes_arithmetic() -> None:
    x, weights = torch.randn(2, 5, 4, 3), norm_weights(5)
    mod = module([x], weights, lambda builder, inputs, params: batch_norm(builder, inputs[0], params))
    assert "batch_norm" not in ops(FoldBatchNorm().run(mod))
    exact = eager_norm(x.double(), [w.double() for w in weights])
    torch.testing.assert_close(run(mod, [x], weights).double(), exact, rtol=1e-5, atol=1e-5)


def test_a_convolution_that_is_used_twice_is_computed_once() -> None:
    x, weights = torch.randn(1, 4, 6, 6), [torch.randn(4, 4, 1, 1), *norm_weights(4)]

    def body(builder: relax.BlockBuilder, inputs: list[relax.Var], params: list[relax.Var]) -> relax.Expr:
        conv = builder.emit(R.nn.conv2d(inputs[0], params[0]))
        return builder.emit(R.add(batch_norm(builder, conv, params[1:]), conv))

    mod = module([x], weights, body)
    assert ops(FoldBatchNorm().run(mod)).count("conv2d") == 1
    conv = F.conv2d(x.double(), weights[0].double())
    exact = eager_norm(conv, [w.double() for w in weights[1:]]) + conv
    torch.testing.assert_close(run(mod, [x], weights).double(), exact, rtol=1e-4, atol=1e-4)


def test_a_factor_that_depends_on_the_input_stays() -> None:
    x, gate, weight = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 1, 1), torch.randn(4, 4, 1, 1)

    def body(builder: relax.BlockBuilder, inputs: list[relax.Var], params: list[relax.Var]) -> relax.Expr:
        return builder.emit(R.multiply(builder.emit(R.nn.conv2d(inputs[0], params[0])), inputs[1]))

    mod = module([x, gate], [weight], body)
    assert ops(FoldBatchNorm().run(mod)) == ["conv2d", "multiply"]
    exact = F.conv2d(x.double(), weight.double()) * gate.double()
    torch.testing.assert_close(run(mod, [x, gate], [weight]).double(), exact, rtol=1e-5, atol=1e-5)
