"""Special functions: Bessel and Airy functions, the normal distribution, polynomials, zeta, and the bits of a float."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lowering.rows import Cases, Inputs, Row, Sample, row
from torch import Tensor as T

sp = torch.special
F64 = torch.float64
INF, NAN = float("inf"), float("nan")
EDGES = torch.tensor([0.0, -0.0, 0.5, 1, -1, 2, 2.09, -2.09, 5, -5, 5.1, 8, -8, 8.1, 12, 12.5, 1e-30, INF, -INF, NAN])


def numbers(low: float, high: float) -> Inputs:
    """Both precisions, with what lies at the seams of the ranges."""
    return lambda s: [
        (torch.cat([s.floats(301, low=low, high=high), EDGES]),),
        (torch.cat([s.floats(301, dtype=F64, low=low, high=high), EDGES.double()]),),
    ]


def whole_numbers(s: Sample) -> Cases:
    return [(s.ints(7, low=-3, high=4),), (s.bools(3),), (s.floats(0),), (s.floats(),)]


def all_of(*functions: Callable[..., T]) -> Callable[..., list[T]]:
    return lambda *args: [function(*args) for function in functions]


def special(*names: str) -> list[str]:
    return [f"aten.special_{name}" for name in names]


def vector(s: Sample, n: int) -> tuple[T]:
    return (s.floats(n, 3),)


def pairs(s: Sample) -> Cases:
    x, y = EDGES.clone(), EDGES.flip(0) * 1.5
    wide = s.floats(40, low=-9, high=9), s.floats(3, 1, low=-900, high=900)
    return [(x, y), (x.double(), y.double()), (x, x.roll(1)), (x, x.clone()), wide]


def with_numbers(s: Sample) -> Cases:
    x, y = EDGES.clone(), EDGES.flip(0) * 1.5
    return [
        (x, y),
        (x, 2.0),
        (3.0, y),
        (0.0, y),
        (x.double(), y.double()),
        (s.ints(4, low=0), s.floats(3, 4, low=0)),
    ]


def degrees(s: Sample) -> Cases:
    """Points and degrees, each as tensors or numbers; eager gives chance values for a NaN point."""
    x = torch.tensor([0.0, -0.0, 1, -1, 0.5, -0.5, 2, -3, INF])
    n = torch.tensor([2.0, 3, 4, 7, 1, 0, 5, -2, 2])
    return [
        (x, n),
        (s.floats(60, dtype=F64, low=-1, high=1), s.ints(60, low=-1, high=12).double()),
        (s.floats(2, 30, low=-1, high=1), s.floats(30, low=0, high=6)),
        (s.floats(9, low=-2, high=2), 3),
        (0.25, n),
        (s.floats(3), torch.tensor([NAN, -INF, 1.5])),
        (s.ints(4, low=-2, high=3), s.ints(4, low=0, high=4)),
    ]


def some_floats(s: Sample) -> Cases:
    small = torch.tensor([1e-40, -3e-45, 5e-324, 1e-310], dtype=F64)
    return [(EDGES.clone(),), (small,), (small.float(),), (s.floats(7, dtype=torch.float16),), (s.floats(0),)]


def zetas(s: Sample) -> Cases:
    x = torch.tensor([1.0, 0.5, 2, 3, 3, 2.5, 2, 2, NAN, 2, INF, 3])
    q = torch.tensor([2.0, 2, -1, -1.5, -7.25, -1.5, 0, 1e4, 1, NAN, 2, INF])
    return [
        (x, q),
        (s.floats(99, low=1, high=9), s.floats(99, low=0.1, high=30)),
        (s.floats(99, dtype=F64, low=1, high=9), s.floats(99, dtype=F64, low=0.1, high=30)),
        (3.0, s.floats(5, low=1, high=2)),
        (s.floats(5, low=2, high=3), 1.0),
    ]


def polygammas(s: Sample) -> Cases:
    both = [
        s.floats(50, low=0.1, high=20),
        s.floats(50, dtype=F64, low=0.1, high=20),
        s.floats(9, low=-4.9, high=-4.1),
    ]
    return [(n, x) for n in (0, 1, 2, 5) for x in both] + [(3, torch.tensor([-INF, -3.0, 0.0, INF, NAN]))]


def gammas(s: Sample) -> Cases:
    return [(s.floats(30, dtype=d, low=0, high=9), s.floats(30, dtype=d, low=0, high=9)) for d in (torch.float32, F64)]


KINDS = (
    *(f"{shift}chebyshev_polynomial_{kind}" for shift in ("", "shifted_") for kind in "tuvw"),
    *("hermite_polynomial_h", "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p"),
)

ROWS: list[Row] = [
    row(
        ["aten.i0", *special("i0e", "i1", "i1e", "modified_bessel_i0", "modified_bessel_i1")],
        all_of(torch.i0, sp.i0e, sp.i1, sp.i1e, sp.modified_bessel_i0, sp.modified_bessel_i1),
        numbers(-12, 12),
        id="bessel-i",
        dynamic=vector,
        slack=2e-2,
    ),
    row(
        special("bessel_j0", "bessel_j1", "spherical_bessel_j0", "airy_ai", "erfcx", "log_ndtr"),
        all_of(sp.bessel_j0, sp.bessel_j1, sp.spherical_bessel_j0, sp.airy_ai, sp.erfcx, sp.log_ndtr),
        numbers(-4, 20),
        id="bessel-j",
        slack=1e-3,
    ),
    row(
        special(
            "bessel_y0", "bessel_y1", "modified_bessel_k0", "modified_bessel_k1", "scaled_modified_bessel_k0",
            "scaled_modified_bessel_k1",
        ),
        all_of(
            sp.bessel_y0, sp.bessel_y1, sp.modified_bessel_k0, sp.modified_bessel_k1, sp.scaled_modified_bessel_k0,
            sp.scaled_modified_bessel_k1,
        ),
        numbers(0.05, 20),
        id="bessel-y",
    ),
    row("aten.special_ndtri", sp.ndtri, numbers(0, 1)),
    row(special("i0e", "erfcx"), all_of(sp.i0e, sp.erfcx), whole_numbers, id="special-whole", slack=1e-2),
    *(
        row(
            special(*(f"{name}{overload}" for overload in ("", ".n_scalar", ".x_scalar") for name in names)),
            all_of(*(getattr(sp, name) for name in names)),
            degrees,
            id=f"polynomials-{names[0]}",
            slack=1e-2,
        )
        for names in (KINDS[:6], KINDS[6:])
    ),
    row(special("zeta", "zeta.self_scalar", "zeta.other_scalar"), sp.zeta, zetas),
    row("aten.polygamma", torch.polygamma, polygammas, slack=1e-3),
    row(["aten.igamma", "aten.igammac"], all_of(torch.igamma, torch.igammac), gammas),
    row(
        [
            *special("xlog1py", "xlog1py.self_scalar", "xlog1py.other_scalar"),
            *("aten.xlogy.Scalar_Self", "aten.xlogy.Scalar_Other"),
        ],
        all_of(sp.xlog1py, sp.xlogy),
        with_numbers,
        id="xlog1py",
    ),
    row(["aten.hypot", "aten.nextafter"], all_of(torch.hypot, torch.nextafter), pairs, id="hypot-nextafter"),
    row("aten.frexp.Tensor", torch.frexp, some_floats),
]  # fmt: skip
