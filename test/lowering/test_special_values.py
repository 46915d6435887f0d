"""Zeros of both signs, infinities, NaN, the largest numbers: elementwise ops, reductions and pools as eager has them.

The operands are long enough for vectors and a rest. Signs of zeros count. Where eager itself is off (its vectors give
NaN for ``gelu(inf)``, infinity for ``sinh(88.8)``), its float64 result counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor as T
from torch import nn

import torch_tvm

NAN, INF = float("nan"), float("inf")
VALUES = (
    *(
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1.5,
        2.5,
        -2.5,
        3.0,
        -3.0,
        1e-5,
        -1e-5,
        INF,
        -INF,
        NAN,
        20.5,
        88.5,
        -88.5,
    ),
    *(104.0, -104.0, 6e4, -6e4, 0.9999),
)
CLOSE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}

_UNARY = (
    "abs neg sign ceil floor round trunc frac sqrt rsqrt exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos "
    "atan sinh cosh tanh asinh acosh atanh erf erfc sigmoid isnan isinf isfinite reciprocal square positive "
    "nan_to_num signbit relu selu celu logical_not"
)
_ACTIVATIONS = (
    "logsigmoid relu6 leaky_relu elu gelu silu mish softplus softsign hardtanh hardswish hardsigmoid hardshrink "
    "softshrink tanhshrink"
)
_BINARY = (
    "add sub mul div fmod remainder pow atan2 maximum minimum fmax fmin copysign nextafter hypot eq ne lt ge logaddexp "
    "xlogy heaviside floor_divide logical_and"
)


def _power(exponent: float) -> Callable[[T], T]:
    return lambda x: x**exponent


UNARY: dict[str, Callable[..., T]] = {
    **{name: getattr(torch, name) for name in _UNARY.split()},
    **{name: getattr(F, name) for name in _ACTIVATIONS.split()},
    **{f"pow {k}": _power(k) for k in (0.0, 1.0, 2.0, 3.0, 0.5, -0.5, -1.0, -2.0, INF, -INF, NAN, 2.5)},
    "power of -1": lambda x: torch.pow(-1.0, x),
    "clamp": lambda x: x.clamp(0, 1),
    "clamp from -0": lambda x: x.clamp_min(-0.0),
    "clamp from NaN": lambda x: x.clamp(min=NAN),
    "clamp to NaN": lambda x: x.clamp(0.0, NAN),
    "clamp crossed": lambda x: x.clamp(2.0, 1.0),
    "remainder": lambda x: x % -1.5,
    "remainder of infinity": lambda x: x % INF,
    "plus 0": lambda x: x + 0.0,
    "minus 0": lambda x: x - 0.0,
    "minus -0": lambda x: x - -0.0,
    "less 0 times 1": lambda x: torch.rsub(x, 1.0, alpha=0),
    "times zeros": lambda x: x * torch.zeros_like(x),
    "leaky_relu of slope 0": lambda x: F.leaky_relu(x, 0.0),
    "elu of 0": lambda x: F.elu(x, 0.0),
    "softplus of 0": lambda x: F.softplus(x, 0.0),
    "softshrink of 0": lambda x: F.softshrink(x, 0.0),
    "by 0 down": lambda x: torch.floor_divide(x, 0.0),
    "by 0 towards 0": lambda x: torch.div(x, -0.0, rounding_mode="trunc"),
    "times 0": lambda x: x * 0.0,
    "by 0": lambda x: x / 0.0,
    "full": lambda x: torch.full_like(x, -INF),
    "int32": lambda x: x.int(),
    "int64": lambda x: x.long(),
    "uint8": lambda x: x.to(torch.uint8),
}

BINARY: dict[str, Callable[..., T]] = {
    **{name: getattr(torch, name) for name in _BINARY.split()},
    "div floor": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "div trunc": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    "clamp from": lambda x, y: x.clamp(min=y),
    "clamp to": lambda x, y: x.clamp(max=y),
    "lerp": lambda x, y: torch.lerp(x, y, x),
    "where": lambda x, y: torch.where(x > y, x, y),
    "add 0 times": lambda x, y: torch.add(x, y, alpha=0),
    "sub 0 times": lambda x, y: torch.sub(x, y, alpha=0.0),
    "lerp by 0": lambda x, y: torch.lerp(x, y, 0.0),
    "lerp by 1": lambda x, y: torch.lerp(x, y, 1.0),
    "addcmul of 0": lambda x, y: torch.addcmul(x, x, y, value=0),
    "addcdiv of 0": lambda x, y: torch.addcdiv(x, x, y, value=0.0),
}


def _by_row(function: Callable[..., Any], part: int | None = None, dim: int = 1) -> Callable[[T], T]:
    return lambda x: function(x, dim=dim) if part is None else function(x, dim=dim)[part]


def _norm(p: float) -> Callable[[T], T]:
    return lambda x: torch.linalg.vector_norm(x, p, dim=1)


REDUCTIONS: dict[str, Callable[..., T]] = {
    **{
        f"{name} over {dim}": _by_row(getattr(torch, name), dim=dim)
        for name in (
            "sum",
            "mean",
            "amax",
            "amin",
            "argmax",
            "argmin",
            "logsumexp",
            "softmax",
            "log_softmax",
            "cumsum",
        )
        for dim in (0, 1)
    },
    **{f"{name} {part}": _by_row(getattr(torch, name), part) for name in ("max", "min", "cummax") for part in (0, 1)},
    **{f"norm {p}": _norm(p) for p in (0, 1, 2, INF, -INF, 0.5)},
    "var": lambda x: x.var(1),
    "var of one": lambda x: x[:, :1].var(1),
    "deviation of one": lambda x: x[:, :1].std(1),
    "variance of one": lambda x: x[:, :1].var(1, unbiased=False),
    "mean of nothing": lambda x: x[:, :0].mean(1),
    "logsumexp of nothing": lambda x: x[:, :0].logsumexp(1),
    "sorted": lambda x: x.abs().sort(1)[0],
    "largest": lambda x: x.abs().topk(3, 1)[0],
    "max_pool1d": lambda x: F.max_pool1d(x[None], 3, 1, 1),
    "max_pool2d": lambda x: F.max_pool2d(x[None], 3, 2, 1),
    "max_pool2d of infinities": lambda x: F.max_pool2d(x[None] * 0 - INF, 2),
    "places of max_pool1d": lambda x: F.max_pool1d(x[None], 3, 1, 1, return_indices=True)[1],
    "places of max_pool2d": lambda x: F.max_pool2d(x[None], 3, 2, 1, return_indices=True)[1],
    "places of adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x[None], (5, 4), return_indices=True)[1],
}
ANY_ZERO = {
    "amax over 0",
    "amax over 1",
    "amin over 0",
    "amin over 1",
    "softshrink",
    "softshrink of 0",
    "logsigmoid",
}
"""Eager's vectors give zeros of another sign than its loop over the rest, or take zeros in an order of their own."""


class All(nn.Module):
    def __init__(self, table: Mapping[str, Callable[..., T]]) -> None:
        super().__init__()
        self.functions = list(table.values())

    def forward(self, *operands: T) -> tuple[T, ...]:
        return tuple(function(*operands) for function in self.functions)


def _wrong(ours: T, eager: T) -> T:
    """Where two results differ: in a NaN, an infinity, the sign of a zero or by more than rounding."""
    if not eager.dtype.is_floating_point:
        return ours != eager
    u, v = ours.double(), eager.double()
    same = (u == v) & ((v != 0) | (u.signbit() == v.signbit()))
    close = (u - v).abs() <= CLOSE[eager.dtype] * v.abs() + 100 * torch.finfo(eager.dtype).tiny
    close &= (u != 0) | (v != 0)  # two zeros are the same or not
    return ~(same | close | (u.isnan() & v.isnan()))


PRODUCTS: dict[str, Callable[..., T]] = {
    "addmm without product": lambda x, y, z: torch.addmm(x, y, z, alpha=0),
    "addmm without either": lambda x, y, z: torch.addmm(x, y, z, alpha=0, beta=0),
    "addmm without bias": lambda x, y, z: torch.addmm(x, y, z, beta=0),
    "addmv without product": lambda x, y, z: torch.addmv(x[0], y, z[1], alpha=0),
    "addr": lambda x, y, z: torch.addr(x, y[0], z[1], alpha=0),
    "addr without bias": lambda x, y, z: torch.addr(x, y[0], z[1], alpha=0.0, beta=0.0),
    "addbmm without product": lambda x, y, z: torch.addbmm(x, y[None], z[None], alpha=0),
    "baddbmm": lambda x, y, z: torch.baddbmm(x[None], y[None], z[None], alpha=0),
    "baddbmm without bias": lambda x, y, z: torch.baddbmm(x[None], y[None], z[None], beta=0),
    "index_add": lambda x, y, z: torch.index_add(x, 0, torch.arange(len(y)) // 2, y, alpha=0),
    "attention": lambda x, y, z: F.scaled_dot_product_attention(x[None], y[None], z[None], scale=0.0),
    "mean that stays": lambda x, y, z: _statistics(x, y, z, 0.0)[0],
    "variance that stays": lambda x, y, z: _statistics(x, y, z, 0.0)[1],
    "mean that goes": lambda x, y, z: _statistics(x, y, z, 1.0)[0],
}


def _statistics(x: T, y: T, z: T, momentum: float) -> tuple[T, ...]:
    wide = torch.promote_types(x.dtype, torch.float32)
    results = torch.ops.aten._native_batch_norm_legit_functional(
        x, None, None, y[1].to(wide), z[1].to(wide), True, momentum, 1e-5
    )
    return tuple(results[3:])


def _rows(dtype: torch.dtype) -> T:
    """Rows of 35 with a few special values each, and rows of nothing else."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(20, 35, generator=generator)
    sets = ([NAN], [NAN, NAN, NAN], [INF], [-INF], [INF, -INF], [NAN, INF], [NAN, -INF, INF], [-0.0, 0.0])
    for row, values in zip(rows, sets, strict=False):
        row[torch.randperm(35, generator=generator)[: len(values)]] = torch.tensor(values)
    rows[10:16] = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 5.0])[:, None]
    rows[16, ::2], rows[17, ::3] = -INF, NAN
    return rows.to(dtype)


def _check(table: Mapping[str, Callable[..., T]], *operands: T) -> None:
    given = {name: function for name, function in table.items() if _runs(function, operands)}
    results = torch_tvm.compile(All(given), operands)(*operands)
    failures = []
    for (name, function), ours in zip(given.items(), results, strict=True):
        eager = function(*operands)
        assert (ours.dtype, ours.shape) == (eager.dtype, eager.shape), name
        exact = function(*[operand.double() for operand in operands]).to(eager.dtype)
        wrong = _wrong(ours, eager) & _wrong(ours, exact)
        if name in ANY_ZERO:
            wrong &= eager != 0
        if wrong.any():
            at = wrong.nonzero()[0].tolist()
            failures.append(f"{name}: {int(wrong.sum())} wrong, at {at}: {ours[tuple(at)]}, eager {eager[tuple(at)]}")
    assert not failures, "\n".join(failures)


def _runs(function: Callable[..., T], operands: tuple[T, ...]) -> bool:
    """Whether eager has the op for this dtype."""
    try:
        function(*operands)
    except (RuntimeError, NotImplementedError):
        return False
    return True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [3, 9])
def test_products(dtype: torch.dtype, size: int) -> None:
    """Of a product that is scaled by zero: BLAS does not read its factors, ATen's own loops do."""
    x, y, z = torch.randn(3, size, size, generator=torch.Generator().manual_seed(4)).to(dtype)
    x[0, 1], y[0, 0], y[2, 1], z[1, 1] = NAN, INF, NAN, -INF
    _check(PRODUCTS, x, y, z)


def _sampled(mode: str, padding: str, corners: bool) -> Callable[..., T]:
    return lambda image, volume, places: F.grid_sample(volume, places, mode, padding, corners)


def _resized(mode: str, size: tuple[int, int]) -> Callable[..., T]:
    return lambda image, *_: F.interpolate(image, size, mode=mode, antialias=True)


SAMPLED: dict[str, Callable[..., T]] = {
    **{
        f"{mode} {padding} {corners}": _sampled(mode, padding, corners)
        for mode in ("bilinear", "nearest")
        for padding in ("zeros", "border", "reflection")
        for corners in (False, True)
    },
    **{f"{mode} {size}": _resized(mode, size) for mode in ("bilinear", "bicubic") for size in ((3, 4), (5, 22))},
}


def test_sampling() -> None:
    """Places far outside of a volume, and infinite pixels under a filter that is narrower at the border."""
    image, volume = torch.randn(1, 2, 9, 11), torch.randn(1, 2, 3, 4, 5)
    image[0, :, 3, 4], image[0, 0, 8, 10], image[0, 1, 0, 0] = INF, INF, NAN
    places = torch.randn(1, 1, 3, 5, 3) * torch.tensor([1.0, 7.0, 1e6])[:, None, None]
    places[0, 0, 0, :4] = torch.tensor([[1e10, 0.3, -0.2], [-1e20, 3e9, 5.0], [INF, 0.0, NAN], [-1.0, 1.0, 2.5]])
    _check(SAMPLED, image, volume, places)


PLACES: dict[str, Callable[..., T]] = {
    "searchsorted": torch.searchsorted,
    "searchsorted right": lambda edges, x: torch.searchsorted(edges, x, right=True),
    "bucketize": lambda edges, x: torch.bucketize(x, edges),
    "bucketize right": lambda edges, x: torch.bucketize(x, edges, right=True),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_places_in_sorted_numbers(dtype: torch.dtype) -> None:
    """NaN is sorted last; a search of eager that meets it goes to the end, which a value below the last number does
    not.
    """
    edges = torch.tensor([-INF, -3.0, 0.0, 1.0, 1.0, 5.0, INF, NAN])
    _check(PLACES, edges.to(dtype), torch.tensor([NAN, -INF, 0.0, -0.0, 1.0, 4.0, -5.0]).to(dtype))


_OF_ONE = "acos asin acosh asinh atanh tan log sqrt exp sin".split()
COMPLEX: dict[str, Callable[..., T]] = {
    **{name: lambda z, w, name=name: getattr(torch, name)(z) for name in _OF_ONE},
    "log1p": lambda z, w: torch.log1p(z.real.clamp(-2, 2).nan_to_num() + 3e38j),
    "add": torch.add, "add real": lambda z, w: z + w.real, "rsub": lambda z, w: 1.5 - z,
    "addcmul": lambda z, w: torch.addcmul(z, w, w, value=0.5), "pow": lambda z, w: (z / 7) ** w,
    "addcdiv": lambda z, w: torch.addcdiv(z, w, w, value=0.5),
}  # fmt: skip


def test_complex_numbers() -> None:
    """Poles, branch cuts, infinities, NaN, and what has a modulus that overflows."""
    parts = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, -2.0, INF, -INF, NAN, 100.0, 1e-20, 1e20, 3e38])
    few = parts[[*range(9), 4, 2, 5, 3]]
    z, w = (torch.complex(*torch.meshgrid(each, each, indexing="ij")) for each in (parts, few))
    z, w = z.flatten(), w.t().flatten()
    results = torch_tvm.compile(All(COMPLEX), (z, w), fallback=False)(z, w)
    failures = []
    for (name, function), ours in zip(COMPLEX.items(), results, strict=True):
        mine, eager = torch.view_as_real(ours), torch.view_as_real(function(z, w))
        wrong = ~torch.isclose(mine, eager, rtol=1e-4, atol=1e-6, equal_nan=True)
        for at in wrong.any(-1).nonzero()[:1].flatten().tolist():
            failures.append(f"{name} of {z[at]}, {w[at]}: {ours[at]}, eager {eager[at].tolist()}")
    assert not failures, "\n".join(failures)


_E2E = [pytest.param(dtype, marks=pytest.mark.e2e) for dtype in (torch.float64, torch.bfloat16)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, *_E2E])
def test_elementwise(dtype: torch.dtype) -> None:
    values = torch.tensor(VALUES).to(dtype)
    column = torch.cat([values, values.flip(0), values, values[:5]])
    _check(UNARY, column)
    pairs = torch.cartesian_prod(values, values)
    _check(BINARY, torch.cat([pairs[:, 0], values]), torch.cat([pairs[:, 1], values]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, *[pytest.param(torch.float16, marks=pytest.mark.e2e)], *_E2E])
def test_reductions(dtype: torch.dtype) -> None:
    _check(REDUCTIONS, _rows(dtype))


def test_the_sign_of_a_number() -> None:
    """``copysign`` by a number has no lowering: PyTorch's decomposition compiles."""

    class Program(torch.nn.Module):
        def forward(self, x: torch.Tensor, i: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return x.copysign(-1), i.copysign(-0.0), x.half().copysign(2.5)

    for x, i in ((torch.randn(4, 5), torch.arange(7)), (torch.tensor(2.5), torch.arange(0))):
        compiled = torch_tvm.compile(Program(), (x, i), fallback=False)
        torch.testing.assert_close(compiled(x, i), Program()(x, i), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_infinities_in_transposed_convolutions_with_gaps(dtype: torch.dtype) -> None:
    """What lies between the taps of a kernel is multiplied with nothing."""
    x, weight = torch.ones(1, 2, 5, 5, dtype=dtype), torch.ones(2, 3, 3, 3, dtype=dtype)
    x[0, 0, 2, 2] = INF
    program = lambda x, weight: F.conv_transpose2d(x, weight, dilation=2)
    compiled = torch_tvm.compile(program, (x, weight), fallback=False)
    assert torch.equal(compiled(x, weight), program(x, weight))
