"""Polynomials against libm: accuracy, special values, vectors in the machine code, chains."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from tvm import relax, tirx

import torch_tvm
from torch_tvm.lowering.pointwise import libm
from torch_tvm.schedules.cpu.finish.kernel import finish
from torch_tvm.schedules.cpu.math.vector_math import FLOAT64, FUNCTIONS
from torch_tvm.schedules.target import CpuModel, host_target

from ..kernel_cases import Case, run
from ..machine_code import scalar_calls

R = relax.op

EAGER = {
    "exp10": lambda x: torch.pow(10.0, x),
    "nearbyint": torch.round,
}
NUMPY = {"asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh", "nearbyint": "rint", "round": "rint"}
WIDE = {"sigmoid": lambda x: 1 / (1 + np.exp(-x)), "rsqrt": lambda x: 1 / np.sqrt(x)}
BINARY = ("pow", "atan2", "copysign")
SPECIAL = [0.0, -0.0, 1.0, -1.0, torch.inf, -torch.inf, torch.nan, 1e-40, -1e-40, 1e-45, 3.4e38, -3.4e38]
SPECIAL += [88.0, 88.72, -87.3, -100.0, -104.0, 1e-8, -1e-8, 0.5, 1.5, 2.5, -0.5, -1.5, 8388607.5, 8388609.0]
SPECIAL += [-0.99999994, 1e-3, 127.9, 128.5, -149.0, -152.0, 38.5, -46.0, 16777216.0, 1e30, -1e30, 4.0, -4.0]
SPECIAL64 = [709.7, 709.8, 710.4, 710.5, -709.0, -746.0, 5e-324, 1e-310, 1.7e308, -1.7e308, 2.0**52 + 1]
LANES = 16
FLUSHED = {"exp": 2e-38, "sigmoid": 2e-38, "erfc": 2e-38}
"""Functions whose results below the smallest normal number are 0."""


RELATIVE = {"erfc": 8e-7}
"""Bounds of functions that are less exact than the others: that of erfc is reached where it is below 1e-16."""


def elementwise(name: str, size: int, dtype: str = "float32", repeat: int = 1) -> tirx.PrimFunc:
    """``c[i] = f(a[i])``, or ``f(a[i], b[i])``, in vectors of :data:`LANES`; ``size`` is a multiple of it."""
    names = "abc" if name in BINARY else "ac"
    buffers = [tirx.decl_buffer((size,), dtype, n) for n in names]
    i, lane = tirx.Var("i", "int64"), tirx.Var("lane", "int64")
    value, *others = (buffer[i * LANES + lane] for buffer in buffers[:-1])
    operators: dict[str, Callable[..., Any]] = {
        "pow": tirx.power,
        "expm1": lambda u: libm("expm1", u),
        "erfc": lambda u: libm("erfc", u),
    }
    operator = operators.get(name) or getattr(tirx, name)
    for _ in range(repeat):
        value = operator(value, *others)
    store = tirx.BufferStore(buffers[-1], value, [i * LANES + lane])
    vector = tirx.For(lane, 0, LANES, tirx.ForKind.VECTORIZED, store)
    body = tirx.For(i, 0, size // LANES, tirx.ForKind.SERIAL, vector)
    func = tirx.PrimFunc(buffers, body).with_attrs({"global_symbol": "main", "tirx.noalias": True, "s_tir": True})
    return finish(func, CpuModel.from_target(host_target()))


def build(func: tirx.PrimFunc) -> tvm.runtime.Executable:
    return tvm.compile(tvm.IRModule({"main": func}), host_target())


def computed(name: str, *operands: torch.Tensor) -> torch.Tensor:
    result = torch.empty_like(operands[0])
    executable = build(elementwise(name, result.numel(), str(result.dtype)[6:]))
    executable["main"](*(tvm.runtime.from_dlpack(t) for t in (*operands, result)))
    return result


def eager(name: str) -> Callable[..., torch.Tensor]:
    return EAGER.get(name) or getattr(torch, name)


def samples(name: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    spread = torch.cat([torch.randn(2000) * 3, torch.randn(2000) * 30, torch.rand(2000) * 2 - 1])
    if name.startswith("log") or name in ("sin", "cos", "tan", "asinh", "acosh", "atan"):
        spread = torch.cat([spread, torch.exp(torch.randn(4000) * 25)])
    x = torch.cat([torch.tensor(SPECIAL), spread]).to(dtype)
    if dtype == torch.float64:
        x = torch.cat([x, torch.tensor(SPECIAL64, dtype=dtype), torch.rand(2000, dtype=dtype)])
    return torch.cat([x, torch.zeros(-x.numel() % LANES, dtype=dtype)])


def assert_close(actual: torch.Tensor, exact: torch.Tensor, *, relative: float, absolute: float) -> None:
    """Equal NaN, infinities and signs; elsewhere within the bounds, or a unit in the last place."""
    for special in (torch.isnan, torch.isposinf, torch.isneginf):
        assert torch.equal(special(actual), special(exact))
    assert torch.equal(torch.signbit(actual) & ~actual.isnan(), torch.signbit(exact) & ~exact.isnan())
    finite = torch.isfinite(exact)
    error = (actual - exact).abs()[finite]
    assert (error <= relative * exact.abs()[finite] + absolute).all()


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - set(BINARY)))
def test_accuracy_and_special_values(name: str) -> None:
    x = samples(name)
    exact = eager(name)(x.double()).float()
    bound = RELATIVE.get(name, 5e-7)
    assert_close(computed(name, x), exact, relative=bound, absolute=FLUSHED.get(name, 1.5e-45))


@pytest.mark.parametrize("name", sorted(set(FLOAT64) - set(BINARY)))
def test_accuracy_in_float64(name: str) -> None:
    """Against libm's long double: eager's own sinh and cosh overflow too early."""
    x = samples(name, torch.float64)
    wide = x.numpy().astype(np.longdouble)
    with np.errstate(all="ignore"):
        function = WIDE.get(name) or getattr(np, NUMPY.get(name, name))
        exact = torch.from_numpy(function(wide).astype(np.float64))
    assert_close(computed(name, x), exact, relative=1e-15, absolute=2e-308)


@pytest.mark.parametrize("name", BINARY)
def test_two_operands(name: str) -> None:
    """Random pairs, then every pair of special values."""
    special = torch.tensor([*SPECIAL, 3.0, -3.0, 2.0, -2.0, 0.25, 1e10, 1e-10])
    x, y = (pair.reshape(-1) for pair in torch.meshgrid(special, special, indexing="ij"))
    size = 4096 - x.numel()
    x = torch.cat([x, torch.randn(size // 2) * 3, torch.exp(torch.randn(size - size // 2) * 10)])
    y = torch.cat([y, torch.randn(size) * 3])
    exact = eager(name)(x.double(), y.double()).float()
    assert_close(computed(name, x, y), exact, relative=5e-7, absolute=1.5e-45)


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_angles_of_any_size(name: str) -> None:
    """All exponents, and neighbours of multiples of π/2, where the reduced angle has few bits left."""
    near = (torch.arange(1, 4097, dtype=torch.float64) * (torch.pi / 2)).float()
    x = torch.cat([near, torch.rand(4096) * 2.0 ** torch.linspace(-126, 127, 4096), near * 1e6])
    x = torch.where(torch.rand(x.shape) < 0.5, x, -x)
    assert_close(computed(name, x), eager(name)(x.double()).float(), relative=5e-7, absolute=1.5e-45)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "float32") for name in sorted(FUNCTIONS)), *((name, "float64") for name in sorted(FLOAT64))],
)
def test_machine_code_is_all_vectors(name: str, dtype: str) -> None:
    text = build(elementwise(name, 64, dtype)).mod.inspect_source("ll")
    assert not scalar_calls(text)
    assert f"<{LANES} x {'float' if dtype == 'float32' else 'double'}>" in text


@pytest.mark.parametrize("power", [2.0, 3.0, -1.0, -2.0, 0.5, -0.5, 2.5])
def test_powers(power: float) -> None:
    """The common ones become products and roots; all agree with eager."""
    body = lambda x: R.power(x, relax.const(power, "float32"))
    x = torch.cat([torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, -2.0]), torch.randn(60).abs()])
    model = run(Case("power", body, lambda x: torch.pow(x, power), ((66,),)), [x])
    (func,) = [f for f in model.scheduled.functions.values() if isinstance(f, tirx.PrimFunc)]
    assert "T.pow(" not in func.script()
    assert ("float64" in func.script()) == (power == 2.5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_computed_in_float32(dtype: str) -> None:
    x = torch.randn(256).to(getattr(torch, dtype))
    assert torch.equal(computed("exp", x), x.exp())


def test_an_error_function_in_float64_stays_with_libm() -> None:
    x = torch.randn(64, dtype=torch.float64)
    torch.testing.assert_close(computed("erf", x), x.erf(), rtol=1e-15, atol=0)


def test_a_chain_compiles_in_linear_time() -> None:
    """``Let`` made this exponential: 90 seconds for four sigmoids."""
    start = time.process_time()
    build(elementwise("sigmoid", 64, repeat=8))
    assert time.process_time() - start < 5


@torch.no_grad()
@pytest.mark.parametrize("size", [5, 64])
def test_functions_on_parts_of_a_result_compile_in_linear_time(size: int) -> None:
    """Behind the guards of ``cat`` and ``pad``, within rows and across them; TVM takes exponential
    time for their lets.
    """

    def program(x: torch.Tensor, i: torch.Tensor) -> tuple[torch.Tensor, ...]:
        angles = i[:, None] * x[:1].exp()
        rows = torch.cat((x.sin().exp().tanh(), x.cos().log1p(), torch.erf(x)), 0).sinh()
        flags = torch.cat((x.sin() > 0, x.cos() > 0.5), 1)
        edges = F.pad(torch.sin(x) * torch.cos(x), (3, 2)).tanh()
        return F.silu(torch.cat((angles.sin(), angles.cos()), -1)), rows, flags, edges

    arguments = torch.rand(3, size), torch.tensor([3, 7])
    start = time.process_time()
    compiled = torch_tvm.compile(program, arguments, fallback=False)
    assert time.process_time() - start < 20
    for ours, eager in zip(compiled(*arguments), program(*arguments), strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-5)
