"""Polynomials against libm: accuracy, special values, vectors in the machine code, chains."""

from __future__ import annotations

import time

import pytest
import torch
import tvm
from tvm import relax, tirx

from torch_tvm.schedules.cpu.vector_math import FUNCTIONS
from torch_tvm.schedules.rule import finish
from torch_tvm.schedules.target import CpuModel, host_target

from .kernel_cases import Case, run

R = relax.op

EAGER = {
    "exp10": lambda x: torch.pow(10.0, x),
    "nearbyint": torch.round,
}
SPECIAL = [0.0, -0.0, 1.0, -1.0, torch.inf, -torch.inf, torch.nan, 1e-40, -1e-40, 1e-45, 3.4e38, -3.4e38]
SPECIAL += [88.0, 88.72, -87.3, -100.0, -104.0, 1e-8, -1e-8, 0.5, 1.5, 2.5, -0.5, -1.5, 8388607.5, 8388609.0]
SPECIAL += [-0.99999994, 1e-3, 127.9, 128.5, -149.0, -152.0, 38.5, -46.0, 16777216.0, 1e30, -1e30, 4.0, -4.0]
LANES = 16


def unary(name: str, size: int, dtype: str = "float32", repeat: int = 1) -> tirx.PrimFunc:
    """``b[i] = f(a[i])`` in vectors of :data:`LANES`; ``size`` is a multiple of it."""
    a, b = (tirx.decl_buffer((size,), dtype, n) for n in "ab")
    i, lane = tirx.Var("i", "int64"), tirx.Var("lane", "int64")
    value = a[i * LANES + lane]
    for _ in range(repeat):
        value = getattr(tirx, name)(value)
    store = tirx.BufferStore(b, value, [i * LANES + lane])
    vector = tirx.For(lane, 0, LANES, tirx.ForKind.VECTORIZED, store)
    body = tirx.For(i, 0, size // LANES, tirx.ForKind.SERIAL, vector)
    func = tirx.PrimFunc([a, b], body).with_attrs(
        {"global_symbol": "main", "tirx.noalias": True, "s_tir": True}
    )
    return finish(func, CpuModel.from_target(host_target()))


def build(func: tirx.PrimFunc) -> tvm.runtime.Executable:
    return tvm.compile(tvm.IRModule({"main": func}), host_target())


def samples(name: str) -> torch.Tensor:
    spread = torch.cat([torch.randn(2000) * 3, torch.randn(2000) * 30, torch.rand(2000) * 2 - 1])
    if name.startswith("log"):
        spread = torch.cat([spread, torch.exp(torch.randn(4000) * 25)])
    x = torch.cat([torch.tensor(SPECIAL), spread])
    return torch.cat([x, torch.zeros(-x.numel() % LANES)])


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_accuracy_and_special_values(name: str) -> None:
    x = samples(name)
    y = torch.empty_like(x)
    executable = build(unary(name, x.numel()))
    executable["main"](tvm.runtime.from_dlpack(x), tvm.runtime.from_dlpack(y))
    exact = EAGER.get(name, getattr(torch, name, None))(x.double()).float()
    for special in (torch.isnan, torch.isposinf, torch.isneginf):
        assert torch.equal(special(y), special(exact)), x[special(y) != special(exact)]
    assert torch.equal(torch.signbit(y[:2]), torch.signbit(exact[:2]))
    finite = torch.isfinite(exact)
    error = (y - exact).abs()[finite]
    assert (error <= 5e-7 * exact.abs()[finite] + 2e-38).all(), x[finite][error.argmax()]


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_machine_code_is_all_vectors(name: str) -> None:
    text = build(unary(name, 64)).mod.inspect_source("ll")
    called = {line.split("@")[1].split("(")[0] for line in text.splitlines() if " call float " in line}
    assert called <= {"llvm.fabs.f32"}
    assert f"<{LANES} x float>" in text


@pytest.mark.parametrize("power", [2.0, 3.0, -1.0, -2.0, 0.5, -0.5, 2.5])
def test_powers(power: float) -> None:
    """The common ones become products and roots, the others are libm's; all agree with eager."""
    body = lambda x: R.power(x, relax.const(power, "float32"))
    x = torch.cat([torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, -2.0]), torch.randn(60).abs()])
    model = run(Case("power", body, lambda x: torch.pow(x, power), ((66,),)), [x])
    (func,) = [f for f in model.scheduled.functions.values() if isinstance(f, tirx.PrimFunc)]
    assert ("T.pow(" in func.script()) == (power == 2.5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_computed_in_float32(dtype: str) -> None:
    x = torch.randn(256).to(getattr(torch, dtype))
    y = torch.empty_like(x)
    build(unary("exp", 256, dtype))["main"](tvm.runtime.from_dlpack(x), tvm.runtime.from_dlpack(y))
    assert torch.equal(y, x.exp())


def test_float64_stays_with_libm() -> None:
    x = torch.randn(64, dtype=torch.float64)
    y = torch.empty_like(x)
    build(unary("erf", 64, "float64"))["main"](tvm.runtime.from_dlpack(x), tvm.runtime.from_dlpack(y))
    torch.testing.assert_close(y, x.erf(), rtol=1e-15, atol=0)


def test_a_chain_compiles_in_linear_time() -> None:
    """``Let`` made this exponential: 90 seconds for four sigmoids."""
    start = time.process_time()
    build(unary("sigmoid", 64, repeat=8))
    assert time.process_time() - start < 5
