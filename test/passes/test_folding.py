"""Arithmetic on constants is PyTorch's, not torch-mlir's, and ops that it decomposes wrongly are kept from it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lowering.rows import CasesModule
from numerics import compare

import torch_tvm
from torch_tvm.dialect.mlir import PassManager
from torch_tvm.importers.fx import import_fx
from torch_tvm.passes.pipeline import canonicalize

VALUES = {
    torch.float64: (0.1, -1.5),
    torch.float32: (0.0, 1.5, -2.5, float("inf"), float("nan")),
    torch.float16: (0.1, -1.5),
    torch.int64: (0, 7, -3, 2**62),
    torch.int8: (100, -128),
    torch.uint8: (0, 200),
    torch.bool: (0, 1),
}
NUMBERS = (-3, 2, -1.5, 0.1)
OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": torch.add,
    "sub": torch.sub,
    "rsub": lambda a, b: torch.rsub(a, b, alpha=2),
    "mul": torch.mul,
    "floor": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "trunc": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "remainder": torch.remainder,
    "fmod": torch.fmod,
    "lt": torch.lt,
    "self": lambda a, b: ((a == a) + 0) % b,
    "not self": lambda a, b: ((a != a) + 0) % b,
}


def test_constants() -> None:
    computations = []
    for operation, (dtype, values), number in itertools.product(OPERATIONS.values(), VALUES.items(), NUMBERS):
        for value in values:
            compute = lambda f=operation, v=value, d=dtype, n=number: f(torch.full((2,), v, dtype=d), n)
            try:
                compute()
            except RuntimeError:
                continue
            computations.append((compute, f"{operation} of {dtype} {value} and {number}"))

    class Program(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [compute() for compute, _ in computations]

    x = torch.zeros(1)
    module = canonicalize(import_fx(Program(), (x,)))
    for (compute, text), found in zip(computations, module(x), strict=True):
        assert torch.equal(torch.nan_to_num(found), torch.nan_to_num(compute())), f"{text}: {found}"
        assert found.dtype == compute().dtype, text


def test_what_torch_mlir_folds() -> None:
    """When this fails torch-mlir has been mended: a float minus the constant -3 lost the sign of the 3."""

    class Program(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((2,), 1.5) - (-3)

    module = import_fx(Program(), (torch.zeros(1),))
    passes = PassManager.parse("builtin.module(func.func(canonicalize))", context=module.mlir.context)
    passes.run(module.mlir.operation)
    assert (module(torch.zeros(1)) < -1e18).all()


def with_itself(v: torch.Tensor, number: float) -> torch.Tensor:
    return (v == v) % number


def entropy(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, reduction: str) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(x, y, pos_weight=weight, reduction=reduction)


def divergence(x: torch.Tensor, y: torch.Tensor, logs: bool) -> torch.Tensor:
    return F.kl_div(x, y, reduction="none", log_target=logs)


def scaled(x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    return F.rms_norm(x, x.shape[-1:], weight)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape)


CASES: dict[Callable[..., Any], list[tuple[Any, ...]]] = {
    with_itself: [
        (torch.tensor([3, -4, 0]), -1.5),
        (torch.tensor([True, False]), -3),
        (torch.tensor(5), 0.75),
    ],
    entropy: [(random(4, 5), random(4, 5).sigmoid(), random(5).exp(), kind) for kind in ("none", "mean", "sum")],
    divergence: [
        (random(4, 3), torch.tensor([0.0, 0.25, 1.0]).expand(4, 3), False),
        (random(4, 3), random(4, 3), True),
    ],
    torch.renorm: [(random(4, 5), 2, -1, 0.5), (random(4, 5, 3), 1, -2, 2.0), (random(4, 5), 2, 0, 0.5)],
    scaled: [
        (random(4, 8).mul(1e-3).to(dtype), weight)
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        for weight in (None, random(8).to(dtype))
    ],
}


@pytest.mark.parametrize("function", CASES, ids=lambda f: f.__name__)
def test_decompositions(function: Callable[..., Any]) -> None:
    cases = CASES[function]
    program = CasesModule(function, cases)
    compiled = torch_tvm.compile(program, tuple(program.arguments))
    for case, found in zip(cases, compiled(*program.arguments), strict=True):
        double = [a.double() if isinstance(a, torch.Tensor) and a.dtype.is_floating_point else a for a in case]
        eager = function(*case)
        exact = function(*double) if function is not scaled else eager
        compare(found, eager, exact, slack=2e-2 if eager.dtype.itemsize == 2 else 1e-5)
