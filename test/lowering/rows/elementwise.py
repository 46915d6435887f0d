"""Arithmetic of two tensors, or of a tensor and a number."""

from __future__ import annotations

import torch
from lowering.rows import Cases, Inputs, Row, Sample, row
from torch import Tensor as T


def pairs(s: Sample) -> Cases:
    """Floats: equal shapes, broadcasting both ways, non-contiguous, rank 0, zero-size, mixed dtypes, special values."""
    return [
        (s.floats(3, 17), s.floats(3, 17)),
        (s.floats(2, 1, 5), s.floats(3, 1)),
        (s.floats(5, 4).t(), s.floats(4, 5)),
        (s.floats(), s.floats(2, 3)),
        (s.floats(0, 3), s.floats(1, 3)),
        (s.floats(4, dtype=torch.float64), s.floats(4)),
        (s.floats(7, dtype=torch.bfloat16), s.floats(7, dtype=torch.bfloat16)),
        (s.floats(7, dtype=torch.float16), s.floats(2, 1, dtype=torch.float16)),
        s.special_pairs(),
    ]


def few(s: Sample) -> Cases:
    return [
        (s.floats(5, 4).t(), s.floats(4, 5)),
        (s.floats(7, dtype=torch.bfloat16), s.floats(2, 1, dtype=torch.bfloat16)),
        s.special_pairs(),
    ]


def int_pairs(s: Sample) -> Cases:
    return [
        (s.ints(3, 5), s.ints(3, 5)),
        (s.ints(4, dtype=torch.int32), s.ints(2, 1)),
        (s.ints(6, dtype=torch.uint8, low=0, high=255), s.ints(6, dtype=torch.uint8, low=0, high=255)),
        (s.ints(9, dtype=torch.int8, low=-128, high=127), s.ints(9, dtype=torch.int8, low=-128, high=127)),
        (s.ints(5), s.floats(5)),
        (s.bools(5), s.ints(5)),
    ]


def arithmetic(s: Sample) -> Cases:
    return pairs(s) + int_pairs(s)


def without_bool(s: Sample) -> Cases:
    return [case for case in arithmetic(s) if torch.bool not in (case[0].dtype, case[1].dtype)]


def dynamic_pair(s: Sample, n: int) -> tuple[T, T]:
    return s.floats(n, 1, 4), s.floats(n, 4)


def with_number(*numbers: float) -> Inputs:
    def inputs(s: Sample) -> Cases:
        floats = [(s.floats(3, 5), number) for number in numbers]
        return [
            *floats,
            (s.special(), numbers[0]),
            (s.floats(7, dtype=torch.float16), numbers[0]),
            (s.floats(), numbers[0]),
            (s.floats(0, 2), numbers[0]),
        ]

    return inputs


def with_int(*numbers: int) -> Inputs:
    def inputs(s: Sample) -> Cases:
        cases: Cases = [(s.ints(11, low=-50, high=50), number) for number in numbers]
        cases += [(s.ints(11, dtype=torch.int8, low=-128, high=127), number) for number in numbers]
        return [*cases, (s.ints(0, 2), numbers[0]), (s.ints(), numbers[0])]

    return inputs


def bool_pairs(s: Sample) -> Cases:
    return [(s.bools(3, 4), s.bools(4)), (s.bools(), s.bools(2))]


def divisors(s: Sample) -> Cases:
    return [case for case in pairs(s) if case[0].dtype.is_floating_point]


def positive_pairs(s: Sample) -> Cases:
    return [
        (s.floats(3, 7, low=0.1, high=3), s.floats(3, 7)),
        (s.floats(4, low=0.1, high=2, dtype=torch.float16), s.floats(2, 4, dtype=torch.float16)),
        s.special_pairs(),
    ]


ROWS: list[Row] = [
    row("aten.add.Tensor", torch.add, arithmetic, dynamic=dynamic_pair),
    row("aten.add.Tensor", lambda x, y: torch.add(x, y, alpha=3), few, id="add.Tensor-alpha"),
    row("aten.add.Tensor", torch.add, bool_pairs, id="add.Tensor-bool"),
    row("aten.add.Scalar", lambda x, y: x + y, with_number(2.5, -3)),
    row("aten.sub.Tensor", torch.sub, without_bool, dynamic=dynamic_pair),
    row("aten.sub.Tensor", lambda x, y: torch.sub(x, y, alpha=2), few, id="sub.Tensor-alpha"),
    row("aten.sub.Scalar", lambda x, y: x - y, with_number(2.5, 7)),
    row("aten.rsub.Scalar", lambda x, y: y - x, with_number(2.5, 7)),
    row("aten.mul.Tensor", torch.mul, arithmetic, dynamic=dynamic_pair),
    row("aten.mul.Tensor", torch.mul, bool_pairs, id="mul.Tensor-bool"),
    row("aten.mul.Scalar", lambda x, y: x * y, with_number(2.5, -1, 70000.0)),
    row(
        "aten.mul.Scalar",
        lambda x: x * 0,
        lambda s: [(s.special(),), (s.floats(5, dtype=torch.bfloat16),)],
        id="mul.Scalar-zero",
    ),
    row("aten.div.Tensor", torch.div, arithmetic, dynamic=dynamic_pair),
    row("aten.div.Scalar", lambda x, y: x / y, with_number(2.5, 3, 0.0)),
    row("aten.div.Scalar", lambda x, y: x / y, with_int(2, -3, 0), id="div.Scalar-int"),
    row(
        "aten.div.Tensor_mode",
        lambda x, y: torch.div(x, y, rounding_mode="floor"),
        divisors,
        dynamic=dynamic_pair,
    ),
    row(
        "aten.div.Tensor_mode",
        lambda x, y: torch.div(x, y, rounding_mode="trunc"),
        few,
        id="div.Tensor_mode-trunc",
    ),
    row("aten.div.Scalar_mode", lambda x, y: torch.div(x, y, rounding_mode="floor"), with_int(3, -4, -1, 7)),
    row(
        "aten.div.Scalar_mode",
        lambda x, y: torch.div(x, y, rounding_mode="trunc"),
        with_int(3, -4, -1, 7),
        id="div.Scalar_mode-trunc",
    ),
    row("aten.floor_divide", torch.floor_divide, few),
    row("aten.floor_divide.Scalar", torch.floor_divide, with_int(3, -4, -1)),
    row("aten.floor_divide.Scalar", torch.floor_divide, with_number(0.7, -2.0), id="floor_divide.Scalar-float"),
    row("aten.remainder.Tensor", torch.remainder, few),
    row("aten.remainder.Scalar", torch.remainder, with_int(3, -4, -1)),
    row("aten.remainder.Scalar", torch.remainder, with_number(0.7, -2.0), id="remainder.Scalar-float"),
    row("aten.fmod.Tensor", torch.fmod, few),
    row("aten.fmod.Scalar", torch.fmod, with_int(3, -4, -1)),
    row("aten.pow.Tensor_Tensor", torch.pow, positive_pairs, dynamic=dynamic_pair),
    row("aten.pow.Tensor_Scalar", torch.pow, with_number(2, 3, 0.5, -0.5, -1, -2, 2.7, 0, 1)),
    row("aten.pow.Tensor_Scalar", torch.pow, with_int(0, 1, 2, 3, 7), id="pow.Tensor_Scalar-int"),
    row("aten.pow.Scalar", lambda x, y: torch.pow(y, x), with_number(2, 0.3)),
    row("aten.maximum", torch.maximum, arithmetic, dynamic=dynamic_pair),
    row("aten.minimum", torch.minimum, few),
    row("aten.maximum", torch.maximum, bool_pairs, id="maximum-bool"),
    row("aten.atan2", torch.atan2, few),
    row("aten.ldexp.Tensor", lambda x, y: torch.ldexp(x, (y * 9).int()), few),
    row("aten.fmax", torch.fmax, few),
    row("aten.fmin", torch.fmin, few),
    row("aten.copysign.Tensor", torch.copysign, few),
    row("aten.logaddexp", torch.logaddexp, few),
    row("aten.xlogy.Tensor", torch.xlogy, few),
    row("aten.heaviside", torch.heaviside, few),
    row(
        "aten.nan_to_num",
        lambda x: torch.nan_to_num(x, 1.5),
        lambda s: (
            [(s.special(dtype),) for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)]
            + [(s.ints(4),)]
        ),
    ),
    row(
        ["aten.gcd", "aten.pow.Tensor_Tensor"],
        lambda x, y: (torch.gcd(x, y), torch.lcm(x, y), x**y, 3 ** y.abs()),
        lambda s: [
            (s.ints(3, 1), s.ints(4)),
            (s.ints(7, dtype=torch.int8), s.ints(7, dtype=torch.int8)),
            (s.ints(5, low=0, dtype=torch.uint8), s.ints(5, low=0, dtype=torch.uint8)),
            (torch.tensor([0, 1, -1, 2, 6, -7]), torch.tensor([0, -3, -3, 63, 4, 0])),
            (s.ints(0), s.ints(0)),
        ],
        id="integers-by-loops",
    ),
]
