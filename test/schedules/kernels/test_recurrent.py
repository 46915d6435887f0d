"""Recurrent layers in one kernel: sizes, special values, unknown sizes, code for other machines."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import tvm
from torch import nn
from torch.export import Dim
from tvm import relax, tirx

import torch_tvm
from torch_tvm.lowering.control.recurrence import recurrence
from torch_tvm.schedules.cpu.recurrent.rule import STEP_WORK, choose_panel
from torch_tvm.schedules.target import CpuModel
from torch_tvm.workloads.recurrent import RecurrentWorkload

from ..relax_models import Compiled, var
from ..relax_models import check as check_tensor

LAYERS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": nn.RNN,
    "rnn_relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
}


class Layer(nn.Module):
    """A layer with its initial states as inputs; results are a flat tuple."""

    def __init__(self, kind: str, size: int, hidden: int, **options: object) -> None:
        super().__init__()
        self.body = LAYERS[kind](size, hidden, **options)

    def forward(self, x: torch.Tensor, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out, last = self.body(x, states if len(states) > 1 else states[0])
        return (out, *last) if isinstance(last, tuple) else (out, last)

    def inputs(self, steps: int, batch: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
        body = self.body
        outer = (batch, steps) if body.batch_first else (steps, batch)
        slots = body.num_layers * (2 if body.bidirectional else 1)
        states = [torch.randn(slots, batch, body.hidden_size, dtype=dtype) for _ in range(self.states)]
        return [torch.randn(*outer, body.input_size, dtype=dtype), *states]

    @property
    def states(self) -> int:
        return 2 if isinstance(self.body, nn.LSTM) else 1


def compiled(model: Layer, inputs: list[torch.Tensor], **options: Any) -> torch_tvm.CompiledModule:
    result = torch_tvm.compile(model.eval(), tuple(inputs), fallback=False, **options)
    assert "recurrent" in {kernel.rule for kernel in result.report.kernels}
    return result


def check(model: Layer, ours: torch_tvm.CompiledModule, inputs: list[torch.Tensor]) -> None:
    with torch.no_grad():
        eager = model(*inputs)
        exact = model.double()(*[x.double() for x in inputs])
    model.to(inputs[0].dtype)
    for actual, wanted, true in zip(ours(*inputs), eager, exact, strict=True):
        check_tensor(actual, wanted, true)


@pytest.mark.parametrize("kind", sorted(LAYERS))
@pytest.mark.parametrize(("steps", "batch", "hidden"), [(1, 1, 1), (3, 3, 7), (5, 8, 64), (2, 5, 130)])
def test_sizes(kind: str, steps: int, batch: int, hidden: int) -> None:
    model = Layer(kind, 6, hidden, bidirectional=hidden == 7, batch_first=batch == 3)
    inputs = model.inputs(steps, batch)
    check(model, compiled(model, inputs), inputs)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_steps_on_all_cores(kind: str) -> None:
    model = Layer(kind, 6, 300)
    inputs = model.inputs(4, 1)
    assert 3 * 300 * 300 >= STEP_WORK
    check(model, compiled(model, inputs), inputs)


def test_float64_and_two_layers() -> None:
    model = Layer("lstm", 6, 9, num_layers=2, bidirectional=True, bias=False).double()
    inputs = model.inputs(5, 3, torch.float64)
    check(model, compiled(model, inputs), inputs)


@pytest.mark.parametrize("kind", sorted(LAYERS))
def test_nan_and_infinities(kind: str) -> None:
    model = Layer(kind, 6, 9)
    inputs = model.inputs(4, 4)
    for row, value in enumerate((torch.nan, torch.inf, -torch.inf)):
        inputs[0][1, row, 2] = value
    check(model, compiled(model, inputs), inputs)


def test_any_number_of_rows() -> None:
    model = Layer("gru", 6, 12, batch_first=True)
    inputs = model.inputs(5, 4)
    shapes = {"x": {0: Dim.AUTO}, "states": ({1: Dim.AUTO},)}
    ours = compiled(model, inputs, dynamic_shapes=shapes)
    for batch in (2, 9):
        check(model, ours, model.inputs(5, batch))


def test_any_number_of_steps() -> None:
    """``torch.export`` fixes the number of steps, so this one starts from the kernel's own expression."""
    hidden, steps = 12, tirx.Var("t", "int64")
    what = RecurrentWorkload("rnn_tanh", 1, 1, directions=1, layer=0, batch_first=False, has_bias=False)

    def body(emit, *tensors: relax.Expr) -> relax.Expr:
        results = relax.BlockBuilder.current().emit_te(
            lambda *t: recurrence(what, t),
            *tensors,
            primfunc_attrs={"op_pattern": 8, **what.to_attr()},
        )
        return emit(relax.TupleGetItem(results, 0))

    params = [var("x", (steps, 2, hidden)), var("h", (1, 2, hidden)), var("w", (1, hidden, hidden))]
    ours = Compiled(params, 3, body)
    assert "recurrent" in ours.rules()
    layer = nn.RNN(hidden, hidden, bias=False)
    layer.weight_ih_l0.data = torch.eye(hidden)
    for count in (1, 2, 700):
        x, h = torch.randn(count, 2, hidden), torch.randn(1, 2, hidden)
        w = layer.weight_hh_l0.detach()
        wanted = layer.float()(x, h)[0].detach()
        exact = layer.double()(x.double(), h.double())[0].detach()
        check_tensor(ours(x, h, w.float()[None]), wanted, exact)


def test_projections() -> None:
    model = Layer("lstm", 6, 9, proj_size=4)
    arguments = torch.randn(3, 2, 6), torch.randn(1, 2, 4), torch.randn(1, 2, 9)
    compiled = torch_tvm.compile(model, arguments, fallback=False)
    torch.testing.assert_close(compiled(*arguments), model(*arguments))


MACHINES = {
    "avx512": ({"kind": "llvm", "mcpu": "cascadelake", "num-cores": 2}, 16),
    "avx2": ({"kind": "llvm", "mcpu": "haswell", "num-cores": 2}, 8),
    "neon": ({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76", "num-cores": 2}, 4),
}


@pytest.mark.parametrize("machine", sorted(MACHINES))
@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh"])
def test_vectors_of_the_full_width(kind: str, machine: str) -> None:
    fields, lanes = MACHINES[machine]
    target = tvm.target.Target(fields)
    model = Layer(kind, 6, 64)
    ours = torch_tvm.compile(model.eval(), tuple(model.inputs(3, 1)), target=fields)
    func = next(f for g, f in ours.tir_module.functions_items() if g.name_hint == f"{kind}_packed")
    text = tvm.compile(tvm.IRModule({"k": func.with_attr("global_symbol", "k")}), target).mod.inspect_source("ll")
    assert f"<{lanes} x float>" in text
    assert "@tanhf(" not in text and "@expf(" not in text


def test_panels_waste_few_units() -> None:
    cpu = CpuModel.from_target(tvm.target.Target(MACHINES["avx2"][0]))
    for hidden in (1, 5, 7, 8, 64, 130):
        panel = choose_panel(hidden, 4, "float32", cpu)
        assert panel.width <= hidden and panel.lanes <= 8
