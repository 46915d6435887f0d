"""Running sums and products: every axis, rows few and many, odd sizes, dtypes, symbolic sizes, infinities."""

from __future__ import annotations

import pytest
import torch
import tvm
from torch.export import Dim

from torch_tvm.backends import optimize, schedule

from ..programs import CompiledFunction, lowered
from ..relax_models import check

AVX2 = tvm.target.Target({"kind": "llvm", "mcpu": "haswell", "num-cores": 2})
SHAPES = [
    ((5,), 0),
    ((1,), 0),
    ((1, 1), 1),
    ((7, 33), 0),
    ((7, 33), 1),
    ((64, 257), 1),
    ((3, 5003), 1),
    ((100_003,), 0),
    ((2, 5, 37), 1),
    ((33, 7, 129), 0),
    ((9, 3, 2, 5), 2),
]


def scan_of(x: torch.Tensor, function, compiled: CompiledFunction | None = None) -> CompiledFunction:
    compiled = compiled or CompiledFunction(function, (x,))
    wide = x.double() if x.is_floating_point() else x
    check(compiled(x), function(x), function(wide))
    return compiled


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_matches_eager(name: str, shape: tuple[int, ...], axis: int) -> None:
    x = torch.randn(shape) if name == "cumsum" else torch.rand(shape) * 0.2 + 0.9
    assert scan_of(x, lambda x: getattr(x, name)(axis)).rules == ["scan"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool])
@pytest.mark.parametrize("axis", [0, 1])
def test_dtypes(dtype: torch.dtype, axis: int) -> None:
    scan_of((torch.randn(9, 1037) * 3).to(dtype), lambda x: x.cumsum(axis))


@pytest.mark.parametrize("axis", [0, 1])
def test_unknown_sizes(axis: int) -> None:
    sizes = {0: Dim("n", min=2), 1: Dim("m", min=2)}
    compiled = None
    for shape in ((5, 33), (2, 5000), (301, 129), (7, 1)):
        x = torch.randn(shape)
        function = lambda x: x.cumsum(axis)
        compiled = compiled or CompiledFunction(function, (x,), ((sizes,),))
        scan_of(x, function, compiled)


@pytest.mark.parametrize("axis", [0, 1])
def test_infinities_and_nan_spread(axis: int) -> None:
    x = torch.randn(6, 5000)
    x[0, 7], x[1, 4000], x[2, 2500], x[2, 2501] = torch.inf, torch.nan, torch.inf, -torch.inf
    scan_of(x[:3].contiguous() if axis else x, lambda x: x.cumsum(axis))


def test_a_zero_stays_a_zero_before_an_overflow() -> None:
    """Segments of a product would overflow on their own: inf * 0 is NaN."""
    x = torch.full((2, 5000), 1e30)
    x[:, 0] = 0
    scan_of(x, lambda x: x.cumprod(1))


@pytest.mark.parametrize(
    ("shape", "axis", "threads"),
    [((4, 100), 1, 0), ((4, 100), 0, 0), ((512, 1000), 1, 1), ((1, 1 << 20), 1, 2)],
)
def test_threads_where_the_work_is_worth_them(shape: tuple[int, ...], axis: int, threads: int) -> None:
    mod, _ = schedule(optimize(lowered(lambda x: x.cumsum(axis), (torch.randn(shape),)), AVX2), AVX2)
    (kernel,) = [f for f in mod.functions.values() if isinstance(f, tvm.tirx.PrimFunc)]
    assert kernel.script().count("T.parallel") == threads


def extrema(x: torch.Tensor, axis: int) -> list[torch.Tensor]:
    return [*torch.cummax(x, axis), *torch.cummin(x, axis), torch.logcumsumexp(x * 40, axis)]


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extrema_and_logarithms_match_eager(shape: tuple[int, ...], axis: int, dtype: torch.dtype) -> None:
    x = torch.randn(shape, dtype=dtype)
    x.view(-1)[::5] = x.view(-1)[0].round()
    compiled = CompiledFunction(lambda x: extrema(x, axis), (x,))
    assert set(compiled.rules) <= {"scan", "elementwise"}
    assert compiled.rules.count("scan") == 3
    for ours, eager, exact in zip(compiled(x), extrema(x, axis), extrema(x.double(), axis), strict=True):
        check(ours, eager, exact)


def test_the_last_of_equals_and_the_last_nan() -> None:
    x = torch.randint(-2, 3, (4, 5000)).float()
    x[0, 7], x[0, 300], x[1, 4000], x[2] = torch.nan, torch.nan, torch.nan, torch.inf
    for axis in (0, 1):
        results = CompiledFunction(lambda x, axis=axis: extrema(x, axis), (x,))(x)
        for ours, eager in zip(results, extrema(x, axis), strict=True):
            torch.testing.assert_close(ours, eager, equal_nan=True)
