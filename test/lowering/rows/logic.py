"""Comparisons, logic, bitwise operations and choices."""

from __future__ import annotations

import torch
from lowering.rows import Cases, Row, Sample, row
from torch import Tensor as T


def compared(s: Sample) -> Cases:
    return [
        (s.floats(3, 7), s.floats(7)),
        (s.ints(3, 4, low=0, high=3), s.ints(4, low=0, high=3)),
        (s.ints(6, low=0, high=2), s.floats(6)),
        (s.floats(0, 4), s.floats(1)),
        (s.bools(9), s.bools(9)),
        (s.floats(9, dtype=torch.bfloat16), s.floats(1, dtype=torch.bfloat16)),
        s.special_pairs(),
    ]


def compared_with_number(s: Sample) -> Cases:
    return [
        (s.floats(3, 7), 0.5),
        (s.ints(11), 2),
        (s.ints(11, low=0, high=4), 1.5),
        (s.special(), 1),
        (s.floats(), 0.1),
        (s.bools(5), 1),
    ]


def logical(s: Sample) -> Cases:
    return [
        (s.bools(3, 4), s.bools(4)),
        (s.ints(9, low=0, high=2), s.floats(9)),
        s.special_pairs(),
        (s.bools(), s.bools(0)),
    ]


def integers(s: Sample) -> Cases:
    return [
        (s.ints(3, 5), s.ints(5)),
        (s.ints(9, dtype=torch.uint8, low=0, high=255), s.ints(9, dtype=torch.int16)),
        (s.bools(3, 4), s.bools(4)),
    ]


def shifts(s: Sample) -> Cases:
    return [
        (s.ints(9), s.ints(9, low=0, high=8)),
        (s.ints(9, dtype=torch.int32, low=-1000, high=1000), s.ints(9, dtype=torch.int32, low=0, high=40)),
        (s.ints(9, dtype=torch.uint8, low=0, high=255), s.ints(9, dtype=torch.uint8, low=0, high=9)),
    ]


def choices(s: Sample) -> Cases:
    return [
        (s.bools(3, 5), s.floats(5), s.floats(3, 1)),
        (s.bools(4), s.ints(4), s.floats(4)),
        (s.bools(5, 4).t(), s.floats(4, 5), s.floats()),
        (s.bools(0), s.floats(1), s.floats(0)),
        (s.bools(6), s.floats(6, dtype=torch.bfloat16), s.floats(6, dtype=torch.bfloat16)),
        (s.bools(16), s.special(), s.ints(16)),
    ]


def dynamic_choice(s: Sample, n: int) -> tuple[T, T, T]:
    return s.bools(n, 4), s.floats(n, 4), s.floats(4)


def masks(s: Sample) -> Cases:
    return [
        (s.floats(3, 5), s.bools(5), float("-inf")),
        (s.ints(4), s.bools(3, 1), 7),
        (s.floats(2, 3, dtype=torch.bfloat16), s.bools(2, 1), -1e4),
    ]


_COMPARE = {"eq": torch.eq, "ne": torch.ne, "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge}

ROWS: list[Row] = [
    *(row(f"aten.{name}.Tensor", f, compared) for name, f in _COMPARE.items()),
    *(row(f"aten.{name}.Scalar", f, compared_with_number) for name, f in _COMPARE.items()),
    *(row(f"aten.{f.__name__}", f, logical) for f in (torch.logical_and, torch.logical_or, torch.logical_xor)),
    row(
        "aten.logical_not",
        torch.logical_not,
        lambda s: [(s.special(),), (s.ints(9, low=0, high=2),), (s.bools(3),)],
    ),
    row("aten.bitwise_and.Tensor", torch.bitwise_and, integers),
    row("aten.bitwise_or.Tensor", torch.bitwise_or, integers),
    row("aten.bitwise_xor.Tensor", torch.bitwise_xor, integers),
    row(
        "aten.bitwise_and.Scalar",
        torch.bitwise_and,
        lambda s: [(s.ints(9), 6), (s.ints(9, dtype=torch.int16), 3)],
    ),
    row("aten.__and__.Tensor", torch.ops.aten.__and__.Tensor, integers),
    row(
        "aten.bitwise_not",
        torch.bitwise_not,
        lambda s: [(s.ints(9),), (s.ints(9, dtype=torch.uint8, low=0, high=255),), (s.bools(5),)],
    ),
    row("aten.bitwise_left_shift.Tensor", torch.bitwise_left_shift, shifts),
    row("aten.bitwise_right_shift.Tensor", torch.bitwise_right_shift, shifts),
    row("aten.where.self", torch.where, choices, dynamic=dynamic_choice),
    row(
        "aten.where.ScalarOther",
        torch.where,
        lambda s: [(s.bools(3, 1), s.floats(4), 2.5), (s.bools(3), s.ints(3), 2)],
    ),
    row(
        "aten.where.ScalarSelf",
        torch.where,
        lambda s: [(s.bools(3, 1), 2.5, s.floats(4)), (s.bools(3), 2, s.ints(3))],
    ),
    row("aten.where.Scalar", torch.where, lambda s: [(s.bools(3, 2), 2.5, -1.0), (s.bools(3), 2, 7)]),
    row("aten.masked_fill.Scalar", torch.masked_fill, masks),
    row(
        "aten.where.self",
        lambda x, y: torch.where(~(x < 0) & (y < 1), x, y),
        lambda s: [(s.floats(3, 50), s.floats(50))],
        dynamic=lambda s, n: (s.floats(n, 4), s.floats(n, 4)),
        id="where.self-fused",
    ),
    row(
        "aten.masked_fill.Tensor",
        torch.masked_fill,
        lambda s: [(s.floats(3, 5), s.bools(5), s.floats()), (s.floats(4), s.bools(2, 1), s.ints())],
    ),
]
