"""Elementwise kernels: broadcasting, dtypes, symbolic and empty sizes, NaN, long chains, addresses."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from tvm import relax

from ..kernel_cases import Case, run

R = relax.op
DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.int32, torch.int64)

CASES = [
    Case("chain", lambda x, y, z: R.nn.gelu(R.add(R.multiply(x, y), z)), lambda x, y, z: F.gelu(x * y + z),
         ((37, 61),) * 3, rule="elementwise"),
    Case("row", R.add, torch.add, ((7, 33), (33,))),
    Case("column", R.add, torch.add, ((7, 33), (7, 1))),
    Case("channels", R.multiply, torch.multiply, ((2, 5, 7, 9), (5, 1, 1))),
    Case("outer", R.add, torch.add, ((7, 1, 5), (1, 33, 1))),
    Case("rank0", R.add, torch.add, ((), ())),
    Case("one", R.add, torch.add, ((1, 1), (1, 1))),
    Case("parallel", R.add, torch.add, ((1031, 131), (131,))),
    Case("empty", R.add, torch.add, ((0, 5), (0, 5))),
    Case("empty last", R.add, torch.add, ((5, 0), (5, 0))),
    Case("symbolic", R.add, torch.add, ((5, 33), (33,)), symbols=(("n", None),)),
    Case("symbolic large", lambda x: R.exp(x), torch.exp, ((401, 203),), symbols=(("n", "m"),)),
    Case("symbolic empty", R.add, torch.add, ((0, 3), (0, 3)), symbols=(("n", "m"), ("n", "m"))),
    Case("compare", R.greater, torch.gt, ((7, 33), (7, 33))),
    Case("and", R.logical_and, torch.logical_and, ((7, 33), (7, 33)), (torch.bool,)),
    Case("not", R.logical_not, torch.logical_not, ((7, 33),), (torch.bool,)),
    Case("where", R.where, torch.where, ((7, 33), (7, 33), (33,)), (torch.bool, torch.float32)),
    Case("mask",
         lambda x, y: R.where(R.logical_or(R.greater(x, y), R.less(x, R.negative(y))), R.exp(x), y),
         lambda x, y: torch.where((x > y) | (x < -y), x.exp(), y), ((7, 33), (7, 33))),
    Case("to int", lambda x: R.astype(x, "int64"), lambda x: x.long(), ((7, 33),)),
    Case("from bool", lambda x: R.astype(x, "float32"), lambda x: x.float(), ((7, 33),), (torch.bool,)),
    *(Case(f"add {d}", R.add, torch.add, ((7, 33), (33,)), (d,)) for d in DTYPES),
    *(Case(f"gelu {d}", R.nn.gelu, F.gelu, ((7, 33),), (d,)) for d in DTYPES[:3]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_matches_eager(case: Case) -> None:
    run(case)


def with_nan(*shape: int) -> torch.Tensor:
    return torch.where(torch.rand(shape) < 0.1, torch.nan, torch.randn(shape))


@pytest.mark.parametrize(
    ("body", "eager", "count"),
    [
        (R.nn.relu, F.relu, 1),
        (lambda x: R.clip(x, -1, 1), lambda x: x.clamp(-1, 1), 1),
        (R.maximum, torch.maximum, 2),
        (R.minimum, torch.minimum, 2),
    ],
    ids=["relu", "clip", "maximum", "minimum"],
)
def test_nan_survives(body, eager, count: int) -> None:
    run(Case("nan", body, eager, ((7, 133),) * count), [with_nan(7, 133) for _ in range(count)])


def test_a_long_chain_compiles_in_linear_time() -> None:
    """Each step reads its input twice: inlining it blindly would double the kernel sixteen times."""

    def chain(multiply, tanh, add):
        return lambda x, y: functools.reduce(lambda a, _: add(multiply(a, tanh(a)), y), range(16), x)

    case = Case("deep", chain(R.multiply, R.tanh, R.add), chain(torch.mul, torch.tanh, torch.add), ((3, 50),) * 2)
    run(case, [torch.randn(3, 50) * 0.1 for _ in range(2)])


def test_takes_tensors_at_any_address() -> None:
    """A view that starts one element into its storage; whole vectors are copied from it."""
    case = Case("copy", lambda x, y: R.concat([x, y], 1), lambda x, y: torch.cat([x, y], 1), ((8, 64), (8, 64)))
    run(case, [torch.randn(8 * 64 + 1)[1:].view(8, 64), torch.randn(8 * 64 + 3)[3:].view(8, 64)])


def test_a_reshape_becomes_a_view_and_no_kernel() -> None:
    model = run(Case("reshape", lambda x: R.reshape(x, (10, 21)), lambda x: x.reshape(10, 21), ((7, 30),)))
    assert not model.decisions


def test_opaque_tir_is_left_with_the_reason() -> None:
    model = run(Case("sort", lambda x: R.sort(x, 1), lambda x: x.sort(1).values, ((7, 50),)))
    (decision,) = model.decisions
    assert decision.rule == "none"
    assert decision.refusals["generic"].startswith("opaque TIR")
