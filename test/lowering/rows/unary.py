"""Functions of one tensor, classification and casts."""

from __future__ import annotations

import torch
from lowering.rows import Cases, Inputs, Row, Sample, row
from torch import Tensor as T


def floats(low: float = -3.0, high: float = 3.0, *, special: bool = True) -> Inputs:
    """A vector, non-contiguous, rank 0, zero-size, integer, half and special values."""

    def inputs(s: Sample) -> Cases:
        cases: Cases = [
            (s.floats(5, 7, low=low, high=high).t(),),
            (s.floats(low=low, high=high),),
            (s.floats(0, 3),),
            (s.floats(9, dtype=torch.float64, low=low, high=high),),
            (s.floats(19, dtype=torch.bfloat16, low=low, high=high),),
        ]
        return [*cases, (s.special(),)] if special else cases

    return inputs


def floats_and_ints(low: float = -3.0, high: float = 3.0) -> Inputs:
    of_floats = floats(low, high)
    return lambda s: [*of_floats(s), (s.ints(7, low=max(int(low), -5), high=6),), (s.bools(4),)]


def numbers(s: Sample) -> Cases:
    return [
        *floats()(s),
        (s.ints(3, 4),),
        (s.ints(9, dtype=torch.int8, low=-128, high=127),),
        (s.ints(9, dtype=torch.uint8, low=0, high=255),),
    ]


def vector(s: Sample, n: int) -> tuple[T]:
    return (s.floats(n, 3),)


_FLOAT = {
    "exp": torch.exp, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "log": torch.log, "erf": torch.erf, "sin": torch.sin,
    "cos": torch.cos, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "exp2": torch.exp2, "expm1": torch.expm1,
    "log2": torch.log2, "log10": torch.log10, "log1p": torch.log1p, "reciprocal": torch.reciprocal,
    "atan": torch.atan, "sinh": torch.sinh, "cosh": torch.cosh, "asinh": torch.asinh, "acosh": torch.acosh,
}  # fmt: skip

ROWS: list[Row] = [
    *(
        row(f"aten.{name}", function, floats_and_ints(), dynamic=vector if name == "exp" else None)
        for name, function in _FLOAT.items()
    ),
    row("aten.erfinv", torch.erfinv, floats_and_ints(-1.05, 1.05)),
    row("aten.erfc", torch.erfc, floats_and_ints(), dynamic=vector),
    row("aten.lgamma", torch.lgamma, floats_and_ints(0.1, 30)),
    row("aten.lgamma", torch.lgamma, floats(-3.4, -3.1), id="lgamma-negative"),
    row("aten.digamma", torch.digamma, floats_and_ints(0.1, 30)),
    row("aten.digamma", torch.digamma, floats(-7.8, -7.2), id="digamma-negative"),
    row("aten.sinc", torch.sinc, floats_and_ints()),
    row("aten.special_entr", torch.special.entr, floats_and_ints()),
    row("aten.special_ndtr", torch.special.ndtr, floats_and_ints()),
    row("aten.tan", torch.tan, floats(-1.4, 1.4)),
    row("aten.asin", torch.asin, floats(-1, 1)),
    row("aten.acos", torch.acos, floats(-1, 1)),
    row("aten.atanh", torch.atanh, floats(-0.95, 0.95)),
    row("aten.frac", torch.frac, floats()),
    *(row(f"aten.{f.__name__}", f, numbers) for f in (torch.ceil, torch.floor, torch.round, torch.trunc)),
    *(row(f"aten.{f.__name__}", f, numbers) for f in (torch.abs, torch.neg, torch.square)),
    row("aten.angle", torch.angle, numbers),
    row("aten.sgn", torch.sgn, numbers),
    row("aten.round.decimals", lambda x: torch.round(x, decimals=2), floats(special=False)),
    row(
        "aten.round.decimals",
        lambda x: torch.round(x, decimals=-1),
        floats(-99, 99, special=False),
        id="round.decimals-negative",
    ),
    row("aten.logit", torch.logit, floats(0.05, 0.95)),
    row("aten.logit", lambda x: torch.logit(x, 0.1), floats(0.05, 0.95), id="logit-eps"),
    *(row(f"aten.{f.__name__}", f, numbers) for f in (torch.isnan, torch.isinf, torch.isfinite)),
]
