"""Every elementwise lowering, compiled for AVX2, AVX-512 and NEON: no scalar libm call, full vectors."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import tvm
from torch import Tensor as T
from tvm import tirx

from torch_tvm.backends import optimize, schedule

from ..machine_code import scalar_calls
from ..programs import lowered

UNARY: dict[str, Callable[[T], T]] = {
    **{
        name: getattr(torch, name)
        for name in (
            "abs acos acosh asin asinh atan atanh ceil cos cosh erf exp exp2 expm1 floor frac isfinite isinf isnan "
            "log log10 log1p log2 neg reciprocal round rsqrt sgn sigmoid sin sinh sqrt square tan tanh trunc logit "
            "erfc erfinv digamma lgamma sinc"
        ).split()
    },
    **{
        name: getattr(F, name)
        for name in (
            "celu elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish relu relu6 selu silu "
            "softplus softshrink softsign tanhshrink"
        ).split()
    },
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "glu": lambda x: F.glu(x, 0),
    "threshold": lambda x: F.threshold(x, 0.1, 2.0),
    "clamp": lambda x: x.clamp(-1, 1),
    "round_decimals": lambda x: torch.round(x, decimals=2),
    "pow": lambda x: x**2.3,
    "pow_half": lambda x: x**-0.5,
    "pow_scalar": lambda x: torch.pow(2.5, x),
    "remainder_int": lambda x: (x.int() % 7).float(),
}
BINARY: dict[str, Callable[[T, T], T]] = {
    **{
        name: getattr(torch, name)
        for name in (
            "add sub mul div maximum minimum fmax fmin atan2 copysign logaddexp xlogy heaviside pow eq lt ge "
            "fmod remainder floor_divide"
        ).split()
    },
    "where": lambda x, y: torch.where(x > y, x, y),
    "prelu": lambda x, y: F.prelu(x, y[0, :1]),
}
ROWS: dict[str, Callable[[T], T]] = {
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "logsumexp": lambda x: x.logsumexp(-1),
    "softmax_columns": lambda x: x.softmax(0),
    "layer_norm": lambda x: F.layer_norm(x, (100,)),
    "rms_norm": lambda x: F.rms_norm(x, (100,)),
    "group_norm": lambda x: F.group_norm(x.reshape(4, 16, 100), 4),
    "sum": lambda x: x.sum(-1),
    "sum_columns": lambda x: x.sum(0),
    "mean_all": lambda x: x.mean(),
    "prod": lambda x: x.prod(-1),
    "amax": lambda x: x.amax(-1),
    "argmax": lambda x: x.argmax(-1),
    "argmin_columns": lambda x: x.argmin(0),
    "var": lambda x: x.var(-1),
    "std_columns": lambda x: x.std(0),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=-1),
    "norm3": lambda x: torch.linalg.vector_norm(x, 3, dim=-1),
    "any": lambda x: (x > 1).any(-1),
    "cumsum_columns": lambda x: x.cumsum(0),
    "cummax_columns": lambda x: torch.cummax(x, 0)[0],
    "logcumsumexp_columns": lambda x: torch.logcumsumexp(x[:, :96], 0),
    "bicubic": lambda x: F.interpolate(x.reshape(1, 1, 64, 100), (32, 200), mode="bicubic"),
    "grid": lambda x: F.grid_sample(x.reshape(1, 1, 64, 100), x.reshape(1, 32, 100, 2), align_corners=False),
    "unfold": lambda x: F.unfold(x.reshape(1, 4, 16, 100), 3, padding=1),
    "fold": lambda x: F.fold(x.reshape(1, 64, 100), (20, 20), 2, stride=2),
    "cdist": lambda x: torch.cdist(x[:20], x[20:40]),
}
PROGRAMS: dict[str, Callable[..., T]] = {**UNARY, **BINARY, **ROWS}
TARGETS = {
    "avx2": ({"kind": "llvm", "mcpu": "haswell", "num-cores": 1}, 256),
    "avx512": ({"kind": "llvm", "mcpu": "skylake-avx512", "num-cores": 1}, 512),
    "neon": ({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76", "num-cores": 1}, 128),
}
LIBM = {
    "fmod": "the remainder of a quotient up to 2**277 takes a loop",
    "remainder": "as fmod",
    "floor_divide": "as fmod",
    "norm3": "a sum of powers in float64, and pow has no float64 form",
}
"""The ops that call libm for each element, and why."""


@functools.cache
def relax_module(name: str) -> tvm.IRModule:
    return lowered(PROGRAMS[name], [torch.randn(64, 100) for _ in range(2 if name in BINARY else 1)])


@functools.cache
def code(machine: str) -> dict[str, str]:
    """The LLVM IR of each program for ``machine``; all of them are compiled as one module."""
    target = tvm.target.Target(TARGETS[machine][0])
    functions = {}
    for name in PROGRAMS:
        mod, _ = schedule(optimize(relax_module(name), target), target)
        kernels = [f for f in mod.functions.values() if isinstance(f, tirx.PrimFunc)]
        for number, kernel in enumerate(kernels):
            symbol = f"kernel_{name}_{number}"
            functions[symbol] = kernel.with_attr("global_symbol", symbol)
    text = tvm.compile(tvm.IRModule(functions), target).mod.inspect_source("ll")
    bodies = re.findall(r"^define [^\n]*?@(\w+)\(.*?^}$", text, re.MULTILINE | re.DOTALL)
    assert bodies
    parts: dict[str, str] = dict.fromkeys(PROGRAMS, "")
    for match in re.finditer(r"^define [^\n]*?@\"?([\w.]+)\"?\(.*?^}$", text, re.MULTILINE | re.DOTALL):
        found = re.search(r"kernel_(\w+?)_\d+(?:_|\b)", match[1])
        if found:
            parts[found[1]] += match[0]
    return parts


@pytest.mark.parametrize("machine", sorted(TARGETS))
@pytest.mark.parametrize("name", PROGRAMS)
def test_no_scalar_libm_and_full_vectors(name: str, machine: str) -> None:
    text = code(machine)[name]
    widths = {
        int(n) * {"float": 32, "double": 64, "i32": 32}[kind]
        for n, kind in re.findall(r"<(\d+) x (float|double|i32)>", text)
    }
    assert bool(scalar_calls(text)) == (name in LIBM), scalar_calls(text)
    assert name in LIBM or max(widths, default=0) >= TARGETS[machine][1]


@pytest.mark.parametrize(
    ("name", "rules"),
    [("bicubic", {"reduction", "elementwise"}), ("grid", {"elementwise"}), ("unfold", {"elementwise"}),
     ("fold", {"reduction", "elementwise"}), ("cdist", {"reduction", "elementwise"}),
     ("cummax_columns", {"scan"}), ("digamma", {"elementwise"})],
)  # fmt: skip
def test_rules(name: str, rules: set[str]) -> None:
    target = tvm.target.Target(TARGETS["avx2"][0])
    _, decisions = schedule(optimize(relax_module(name), target), target)
    assert {decision.rule for decision in decisions} == rules
