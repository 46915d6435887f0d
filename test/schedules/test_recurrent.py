"""Recurrent layers in one kernel: sizes, special values, unknown sizes, code for other machines."""

from __future__ import annotations

import itertools

import pytest
import torch
import tvm
from torch import nn
from torch.export import Dim

import torch_tvm
from torch_tvm.schedules.cpu.recurrent import STEP_WORK, choose_panel
from torch_tvm.schedules.target import CpuModel

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


def compiled(model: Layer, inputs: list[torch.Tensor], **options: object) -> torch_tvm.CompiledModule:
    result = torch_tvm.compile(model.eval(), tuple(inputs), fallback=False, **options)
    assert "recurrent" in {kernel.rule for kernel in result.report.kernels}
    return result


def check(model: Layer, ours: torch_tvm.CompiledModule, inputs: list[torch.Tensor]) -> None:
    with torch.no_grad():
        eager = model(*inputs)
        exact = model.double()(*[x.double() for x in inputs])
    model.to(inputs[0].dtype)
    for actual, wanted, true in zip(ours(*inputs), eager, exact, strict=True):
        assert actual.shape == wanted.shape and actual.dtype == wanted.dtype
        for special in (torch.isnan, torch.isposinf, torch.isneginf):
            assert torch.equal(special(actual), special(wanted))
        finite = torch.isfinite(wanted)
        error = lambda value, t=true, f=finite: (value.double() - t)[f].square().mean().sqrt().item()
        assert not finite.any() or error(actual) <= 3 * error(wanted) + 1e-5


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


def test_any_number_of_steps_and_rows() -> None:
    model = Layer("gru", 6, 12, batch_first=True)
    inputs = model.inputs(5, 4)
    shapes = {"x": {0: Dim.AUTO, 1: Dim.AUTO}, "states": ({1: Dim.AUTO},)}
    ours = compiled(model, inputs, dynamic_shapes=shapes)
    for steps, batch in itertools.product((2, 700), (2, 9)):
        check(model, ours, model.inputs(steps, batch))


def test_projections_are_refused_with_a_reason() -> None:
    model = Layer("lstm", 6, 9, proj_size=4)
    x = torch.randn(3, 2, 6)
    with pytest.raises(torch_tvm.UnsupportedOp, match="projections"):
        torch_tvm.compile(model, (x, torch.randn(1, 2, 4), torch.randn(1, 2, 9)), fallback=False)


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
    text = tvm.compile(tvm.IRModule({"k": func.with_attr("global_symbol", "k")}), target).mod.inspect_source(
        "ll"
    )
    assert f"<{lanes} x float>" in text
    assert "@tanhf(" not in text and "@expf(" not in text


def test_panels_waste_few_units() -> None:
    cpu = CpuModel.from_target(tvm.target.Target(MACHINES["avx2"][0]))
    for hidden in (1, 5, 7, 8, 64, 130):
        panel = choose_panel(hidden, 4, "float32", cpu)
        assert panel.width <= hidden and panel.lanes <= 8
