"""Reductions over any axes: sums, extrema, positions, truth; lengths, dtypes, symbolic and empty sizes."""

from __future__ import annotations

import pytest
import torch
from tvm import relax

from ..kernel_cases import Case, draw, run

R = relax.op
AXES = [(2,), (1,), (0,), (0, 1, 2), (0, 2), (1, 2)]


def reduce_case(name: str, axes, shape=(3, 5, 37), dtype=torch.float32, symbols=()) -> Case:
    """``name`` over ``axes`` of one tensor."""
    keep = {"mean": True}.get(name, False)
    body = {
        "sum": lambda x: R.sum(x, list(axes)),
        "mean": lambda x: R.mean(x, list(axes), keepdims=True),
        "max": lambda x: R.max(x, list(axes)),
        "var": lambda x: R.variance(x, list(axes)),
    }[name]
    eager = {
        "sum": lambda x: x.sum(axes, dtype=x.dtype),
        "mean": lambda x: x.mean(axes, keepdim=keep),
        "max": lambda x: x.amax(axes),
        "var": lambda x: x.var(axes, correction=0),
    }[name]
    return Case(f"{name} {axes} {shape} {dtype}", body, eager, (shape,), (dtype,), symbols)


CASES = [
    *(reduce_case(name, axes) for name in ("sum", "mean", "max", "var") for axes in AXES),
    *(reduce_case("sum", (1,), (7, 133), d) for d in (torch.float16, torch.bfloat16, torch.float64, torch.int64)),
    *(reduce_case("sum", (0,), (133, 7), d) for d in (torch.float16, torch.bfloat16, torch.float64, torch.int32)),
    *(reduce_case("max", (1,), (7, 133), d) for d in (torch.bfloat16, torch.int8, torch.uint8, torch.int64)),
    *(reduce_case("sum", (1,), shape) for shape in ((1, 1), (5, 1), (16, 20011), (20011, 3))),
    *(reduce_case("sum", (0,), shape) for shape in ((1, 5), (20011, 16), (3, 20011))),
    reduce_case("mean", (2, 3), (1, 64, 7, 7)),
    *(reduce_case("sum", axes, (0, 5)) for axes in ((0,), (1,))),
    *(reduce_case("sum", axes, (5, 0)) for axes in ((0,), (1,))),
    *(
        reduce_case(name, axes, shape, symbols=(("n", "m"),))
        for name in ("sum", "var")
        for axes in ((0,), (1,))
        for shape in ((5, 33), (129, 301))
    ),
    reduce_case("sum", (0, 1), (5, 333), symbols=(("n", "m"),)),
    reduce_case("sum", (1,), (0, 7), symbols=(("n", "m"),)),
    Case("any", lambda x: R.sum(x, [1]), lambda x: x.any(1), ((7, 133),), (torch.bool,)),
    Case("prod", lambda x: R.prod(x, [1]), lambda x: x.prod(1), ((7, 33),)),
    Case(
        "epilogue",
        lambda x: R.exp(R.mean(R.multiply(x, x), [1])),
        lambda x: (x * x).mean(1).exp(),
        ((7, 133),),
    ),
    *(Case(f"argmax {a}", lambda x, a=a: R.argmax(x, a), lambda x, a=a: x.argmax(a), ((3, 5, 37),)) for a in range(3)),
    Case("few results", lambda x: R.sum(x, [0]), lambda x: x.sum(0), ((10007, 3),)),
    Case("one maximum", lambda x: R.max(x), lambda x: x.amax(), ((300, 501),)),
    Case("one position", lambda x: R.argmax(x), lambda x: x.argmax(), ((300, 501),)),
    Case("argmax all", lambda x: R.argmax(x), lambda x: x.argmax(), ((3, 5, 37),)),
    Case("argmax symbolic", lambda x: R.argmax(x, 1), lambda x: x.argmax(1), ((5, 133),), symbols=(("n", "m"),)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_matches_eager(case: Case) -> None:
    run(case)


@pytest.mark.parametrize("axis", [0, 1])
def test_nan_wins_a_maximum(axis: int) -> None:
    x = torch.where(torch.rand(67, 133) < 0.02, torch.nan, torch.randn(67, 133))
    run(reduce_case("max", (axis,), (67, 133)), [x])


def test_argmax_takes_the_first_of_equals() -> None:
    x = draw((7, 133), torch.int32)
    expected = torch.tensor([int((row == row.max()).nonzero()[0]) for row in x])
    case = Case("ties", lambda x: R.argmax(x, 1), lambda x: expected, ((7, 133),), (torch.int32,))
    run(case, [x])


def test_a_long_sum_loses_no_more_than_a_short_one() -> None:
    """Equal terms: a plain float32 accumulator for each of 64 lanes would be off by more than 1e-5."""
    x = torch.full((1 << 22,), 0.1)
    model = run(Case("long", R.sum, torch.sum, ((1 << 22,),)), [x])
    exact = x.double().sum().item()
    assert abs(model(x).item() - exact) / exact < 1e-6
