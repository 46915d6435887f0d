"""Small Relax modules, compiled the way the driver compiles them, for the tests of schedule rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import tvm
from tvm import relax

from torch_tvm.backends import build, optimize, schedule
from torch_tvm.runtime.weights.weights_program import pack_weights
from torch_tvm.schedules import KernelDecision
from torch_tvm.schedules.target import host_target

TARGET = host_target()

Build = Callable[..., relax.Expr]


def var(name: str, shape: Sequence[object], dtype: str = "float32") -> relax.Var:
    """A tensor parameter; sizes may be ``tirx.Var``."""
    return relax.Var(name, relax.TensorType(list(shape), dtype))


class Compiled:
    """``build(emit, *params)`` as ``main``, optimised, scheduled and compiled for this machine.

    The first ``num_input`` parameters are inputs, the others weights.
    """

    def __init__(self, params: Sequence[relax.Var], num_input: int, body: Build) -> None:
        builder = relax.BlockBuilder()
        with builder.function("main", list(params), attrs={"num_input": num_input}):
            with builder.dataflow():
                result = builder.emit_output(body(builder.emit, *params))
            builder.emit_func_output(result)
        self.mod = optimize(builder.get(), TARGET)
        self.scheduled, self.decisions = schedule(self.mod, TARGET)
        self.vm = relax.VirtualMachine(build(self.scheduled, TARGET), tvm.cpu())
        self.num_input = num_input

    def __call__(self, *args: torch.Tensor) -> torch.Tensor:
        # torch gives an empty tensor strides that TVM's check for compact arrays refuses.
        args = tuple(a if a.numel() else tvm.runtime.empty(a.shape, str(a.dtype)[6:]) for a in args)
        inputs, weights = args[: self.num_input], args[self.num_input :]
        if weights:
            return torch.from_dlpack(self.vm["main"](*inputs, pack_weights(self.scheduled, self.vm, weights)))
        return torch.from_dlpack(self.vm["main"](*inputs))

    def rules(self) -> list[str]:
        return [decision.rule for decision in self.decisions]

    def decision(self, rule: str) -> KernelDecision:
        return next(decision for decision in self.decisions if decision.rule == rule)


def check(actual: torch.Tensor, eager: torch.Tensor, exact: torch.Tensor) -> None:
    """RMSE(ours, fp64) <= 3 RMSE(eager, fp64) + 1e-5; the same dtype, shape, NaN and infinities as eager."""
    assert actual.shape == eager.shape
    assert actual.dtype == eager.dtype
    if not actual.is_floating_point():
        assert torch.equal(actual, eager)
        return
    for special in (torch.isnan, torch.isposinf, torch.isneginf):
        assert torch.equal(special(actual), special(eager))
    finite = torch.isfinite(eager)
    if not finite.any():
        return
    error = lambda value: (value.double() - exact)[finite].square().mean().sqrt().item()
    assert error(actual) <= 3 * error(eager) + 1e-5
