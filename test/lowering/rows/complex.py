"""Complex numbers: arithmetic, functions, what takes them apart and puts them together, and ops that do the same with
both parts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lowering.rows import Cases, Inputs, Row, Sample, row
from torch import Tensor as T

C128 = torch.complex128


def numbers(s: Sample, *shape: int, dtype: torch.dtype = torch.complex64, low: float = -3, high: float = 3) -> T:
    real = dtype.to_real()
    return torch.complex(
        s.floats(*shape, dtype=real, low=low, high=high), s.floats(*shape, dtype=real, low=low, high=high)
    )


def special(s: Sample) -> T:
    re, im = s.special_pairs()
    return torch.complex(re + torch.zeros(16, 16), im + torch.zeros(16, 16))


def one(low: float = -3, high: float = 3) -> Inputs:
    """A matrix, one number, none, and numbers of double precision."""
    return lambda s: [
        (numbers(s, 5, 7, low=low, high=high).t(),),
        (numbers(s, low=low, high=high),),
        (numbers(s, 0, 3),),
        (numbers(s, 9, dtype=C128, low=low, high=high),),
    ]


def pair(s: Sample) -> Cases:
    return [
        (numbers(s, 5, 7), numbers(s, 7), s.floats(5, 1)),
        (numbers(s), numbers(s, 3, dtype=C128), s.ints(3)),
        (numbers(s, 0, 2), numbers(s, 2), s.floats(2)),
    ]


def arithmetic(z: T, w: T, x: T) -> tuple[T, ...]:
    return (
        z + w, z - x, x * z, z * w, w / z, 2 - z, z * 2.5, z / 4, (1 + 2j) * z, x * 2j, z - 1j, 3j - z, 1 / w,
        torch.add(z, w, alpha=2), torch.sub(z, w, alpha=1 - 2j), -z, torch.addcmul(z, w, x + 0 * w, value=2),
        torch.addcdiv(z, w, w, value=0.5j), torch.lerp(z, w.to(z.dtype), 0.25 + 0.5j),
    )  # fmt: skip


def arithmetic_ops(*names: str) -> list[str]:
    return [f"aten.{name}" for name in names]


_FUNCTIONS = (
    "exp expm1 log log1p sqrt rsqrt sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh sigmoid reciprocal "
    "sgn exp2 log2 log10 square conj_physical"
).split()


def functions(z: T) -> tuple[T, ...]:
    return (*(getattr(torch, name)(z) for name in _FUNCTIONS), F.silu(z))


def powers(z: T, w: T) -> tuple[T, ...]:
    return (
        z**2,
        z**3,
        z**0.5,
        z**-1,
        z**-0.5,
        z**1.7,
        z ** (1 - 2j),
        z**w,
        2.5**z,
        (1 + 1j) ** z,
        torch.float_power(z, w),
    )


def poles(z: T) -> tuple[T, ...]:
    """What C says of zeros and infinities, and of results that overflow; it leaves the sign of
    ``sinh(inf + nan j)``.
    """
    return (
        z.exp(), z.exp2(), torch.view_as_real(z.sinh()).abs(), z.cosh(), z.sin(), z.cos(), 1 / z,
        z.reciprocal(), z**-1, z**0, z**-2, (2 + 0j) / z,
    )  # fmt: skip


def edges(_: Sample) -> Cases:
    """Zeros, and what overflows without an imaginary or a real part; infinities without a direction."""
    inf, nan = float("inf"), float("nan")
    found = [0j, 95 + 0j, 1000 + 0j, -1000 + 0j, 95j, 1000j, -1000j]
    far = [complex(inf, 0), complex(-inf, 0), complex(-inf, inf), complex(-inf, nan), complex(0, inf)]
    numbers = torch.tensor(found + far)
    return [(numbers,), (numbers.to(C128),)]


def real_values(z: T) -> tuple[T, ...]:
    return (
        z.abs(), z.angle(), z.isnan(), z.isinf(), z.isfinite(), z.logical_not(), z.real, z.imag,
        torch.view_as_real(z), z.conj(), z.bool(),
    )  # fmt: skip


def compared(z: T, w: T) -> tuple[T, ...]:
    same = torch.where(w.real > 0, z, w)
    return (
        z == w, z != same, z == 1, z != 2j, z == z, torch.logical_and(z, w), torch.logical_or(z * 0, w),
        torch.logical_xor(z, w * 0),
    )  # fmt: skip


def converted(z: T, x: T) -> tuple[T, ...]:
    return (
        z.to(C128), z.to(torch.float32), x.to(torch.complex64), (x > 0).to(C128), torch.complex(x, x + 1),
        torch.polar(x.abs(), x), torch.view_as_complex(torch.stack([x, -x], -1)), z.mH, z.conj() * 2,
        torch.zeros(3, dtype=torch.complex64) + z[0, 0], torch.ones(2, dtype=C128) * z[0, 0],
        torch.full((2, 2), 1 - 2j) + z[0, 0], torch.full_like(z, 3.0) * z, torch.ones_like(z) * z,
        torch.zeros_like(z, dtype=torch.float64), z.new_full((2,), 1.5, dtype=torch.float32), z.repeat(0, 2),
        z.new_full((2,), 2j) * z[0, 0], z.new_ones(3) * z[0, 0], torch.zeros_like(z) - z,
        torch.constant_pad_nd(z, (1, 2, 0, 1), 2 - 1j), z.clone().fill_(1j) * z, z.clone().fill_(z[0, 0]) + z,
        z.masked_fill(x > 0, z[1, 1]), torch.where(x > 0, z, 0),
        torch.where(x > 0, 1j, z), torch.where(x > 0, 1.5, 2j), torch.where(x > 0, x, z),
    )  # fmt: skip


def moved(z: T, w: T, at: T) -> tuple[Any, ...]:
    return (
        z.reshape(-1), z.permute(2, 0, 1), z[:, None].expand(3, 2, 4, 5), z.squeeze(0), z[1:, ::2], z[0], z.T.flip(0),
        torch.cat([z, z.real], 1), torch.stack([z, w]), z.roll(1, 0), z.repeat(1, 2, 1), z.split(2, 1)[1],
        z.unbind(1)[2], z.diagonal(0, 1, 2), z.unfold(2, 2, 1), z.tril(), z[:, at], z.index_select(1, at),
        z.gather(1, at.expand(3, 5, at.shape[0]).mT), z.scatter(1, at.expand(3, 5, at.shape[0]).mT, w),
        z.index_add(1, at[:2], w[:, :2]), F.pad(z.real, (1, 1), "reflect") * 1j, z.cumsum(1),
        z.clone().index_put_((at[:1],), w[0]),
        z.select_scatter(w[:, 0], 1, 1), z.slice_scatter(w[:, :2], 1, 0, 2), z.repeat_interleave(2, 1),
    )  # fmt: skip


def folded(z: T) -> tuple[Any, ...]:
    return (
        z.sum(), z.sum(1), z.mean(), z.mean((0, 1), keepdim=True), z.prod(), z.prod(1), z.prod(0, keepdim=True),
        z.cumprod(1), z.var(), z.var(1), z.std(0), torch.var_mean(z, 1, correction=1),
        torch.linalg.vector_norm(z, 3, 1),
        z.any(), z.all(1), z.count_nonzero(1), F.l1_loss(z, z[0]),
    )  # fmt: skip


def logarithms(z: T, w: T) -> tuple[T, ...]:
    return torch.logaddexp(z, w), z.logsumexp(-1), z.logsumexp((0, 1), keepdim=True), z.logcumsumexp(0)


def created(z: T) -> tuple[T, ...]:
    return (
        torch.linspace(1j, 2, 5, dtype=z.dtype) + z[0], torch.logspace(0, 1j, 5, dtype=z.dtype) * z[0],
        torch.logspace(0, 1, 5, dtype=z.dtype) - z[0],
        z @ torch.eye(5, 3, dtype=z.dtype), z @ torch.eye(5, dtype=z.dtype), torch.linspace(0, 2, 5) * z,
    )  # fmt: skip


_ENDS = ("Tensor_Tensor", "Tensor_Scalar", "Scalar_Tensor")


def between_tensors(z: T, a: T, b: T) -> tuple[T, ...]:
    ends = (a, 2.0), (2.0, b), (a, b)
    lines = [torch.linspace(*each, 5, dtype=z.dtype) for each in ends]
    return *lines, *(torch.logspace(*each, 5, dtype=z.dtype) for each in ends)


def placed(z: T, w: T, x: T, at: T) -> tuple[Any, ...]:
    return (
        z.as_strided((3, 2), (2, 1), 1), torch.as_strided_scatter(z, w[:3, :2], (3, 2), (2, 1), 1), z.put(at, w[0, :3]),
        z.masked_scatter(x > 0, w),
    )  # fmt: skip


def moments(z: T) -> tuple[Any, ...]:
    means = torch.std_mean(z, unbiased=True), torch.std_mean(z, 0), torch.std_mean(z, 1, correction=2)
    return *torch.var_mean(z), *torch.var_mean(z, 1), *(each for pair in means for each in pair)


def products(a: T, c: T, v: T, u: T) -> tuple[Any, ...]:
    return (
        a @ c, a[None] @ c[None].expand(2, -1, -1), a @ v, torch.dot(v, v), torch.vdot(v, v * 1j), torch.outer(v, u),
        torch.einsum("ij,jk->ki", a, c), torch.einsum("ij,jk,k->i", a, c, u), F.linear(a, c.mT, u), F.linear(a, c.mH),
        torch.addmm(u, a, c, beta=2, alpha=1j), torch.addr(c, v, u), torch.addmv(u, c.mT, v, beta=0),
        torch.baddbmm(u, a[None], c[None]), torch.addbmm(u, a[None], c[None]),
    )  # fmt: skip


ROWS: list[Row] = [
    row(
        [f"aten.{n}" for n in ("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "neg", "addcmul", "addcdiv")],
        arithmetic,
        pair,
        id="complex-arithmetic",
    ),
    row(
        [f"aten.{n}" for n in _FUNCTIONS if n != "conj_physical"],
        functions,
        lambda s: [(numbers(s, 5, 7).t(),)],
        id="complex-functions",
    ),
    row(
        ["aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor"],
        powers,
        lambda s: [(numbers(s, 4, 5), numbers(s, 5, low=-1, high=1)), (numbers(s, 4), torch.zeros(4) + 0j)],
        id="complex-powers",
        slack=1e-4,
    ),
    row(
        arithmetic_ops("exp", "exp2", "sinh", "cosh", "sin", "cos", "reciprocal", "pow.Tensor_Scalar"),
        poles,
        edges,
        id="complex-poles",
    ),
    row(
        [
            *("aten.abs", "aten.angle", "aten.isnan", "aten.isinf", "aten.isfinite", "aten.logical_not", "aten.real"),
            *("aten.imag", "aten.view_as_real", "aten._conj", "aten.to.dtype"),
        ],
        real_values,
        lambda s: [*one()(s), (special(s),), (special(s).to(C128),)],
        id="complex-parts",
    ),
    row(
        ["aten.eq.Tensor", "aten.ne.Tensor", "aten.logical_and", "aten.logical_or", "aten.logical_xor"],
        compared,
        lambda s: [(special(s), special(s).t()), (numbers(s, 3), numbers(s, 2, 3, dtype=C128))],
        id="complex-comparisons",
    ),
    row(
        ["aten.complex", "aten.polar", "aten.view_as_complex", "aten.constant_pad_nd", "aten.fill.Tensor"],
        converted,
        lambda s: [(numbers(s, 3, 4), s.floats(3, 4))],
        id="complex-conversions",
    ),
    row(
        ["aten.view", "aten.permute", "aten.cat", "aten.scatter.src", "aten.index_put", "aten.slice_scatter"],
        moved,
        lambda s: [(numbers(s, 3, 4, 5), numbers(s, 3, 4, 5), torch.tensor([2, 0, 1, 3]))],
        id="complex-moves",
    ),
    row(
        ["aten.sum", "aten.mean", "aten.prod", "aten.prod.dim_int", "aten.cumprod", "aten.linalg_vector_norm"],
        folded,
        lambda s: [(numbers(s, 5, 7, low=-1.5, high=1.5),)],
        id="complex-reductions",
    ),
    row(
        ["aten.logaddexp", "aten.logsumexp", "aten.logcumsumexp"],
        logarithms,
        lambda s: [(numbers(s, 4, 9), numbers(s, 9))],
        id="complex-logarithms-of-sums",
    ),
    row(
        "aten.logaddexp",
        torch.logaddexp,
        lambda s: [(special(s), special(s).t())],
        id="complex-logarithms-of-special-sums",
    ),
    row(["aten.eye", "aten.logspace"], created, lambda s: [(numbers(s, 4, 5),)], id="complex-creation"),
    row(
        [f"aten.{n}space.{ends}" for n in ("lin", "log") for ends in _ENDS],
        between_tensors,
        lambda s: [(numbers(s, 2), numbers(s, high=1), numbers(s, high=1))],
        id="complex-creation-between-tensors",
    ),
    row(
        ["aten.as_strided", "aten.put", "aten.masked_scatter"],
        placed,
        lambda s: [(numbers(s, 4, 5), numbers(s, 4, 5), s.floats(4, 5), torch.tensor([7, 0, 19]))],
        id="complex-places",
    ),
    row(
        ["aten.nonzero", "aten.argwhere"],
        lambda z, x: (z[x > 0], z.nonzero(), torch.argwhere(z), z.nonzero(as_tuple=True)),
        lambda s: [(numbers(s, 4, 5) * (s.floats(4, 5) > 0), s.floats(4, 5))],
        id="complex-selection",
    ),
    row(
        ["aten.var_mean.dim", "aten.std_mean", "aten.std_mean.correction"],
        moments,
        lambda s: [(numbers(s, 4, 9),)],
        id="complex-moments",
    ),
    row(
        ["aten.mm", "aten.mv", "aten.vdot", "aten.outer", "aten.einsum", "aten.linear", "aten.addmm"],
        products,
        lambda s: [(numbers(s, 4, 6), numbers(s, 6, 5), numbers(s, 6), numbers(s, 5))],
        id="complex-products",
    ),
    row(
        ["aten.mul.Tensor", "aten.abs", "aten.einsum"],
        lambda z, w: ((z * w + 1j).abs(), torch.einsum("ij,kj->ik", z, w), torch.cat([z, w]), z.exp().sum(0),
                      z[:, None] * w),
        lambda s: [(numbers(s, 3, 4), numbers(s, 3, 4))],
        dynamic=lambda s, n: (numbers(s, n, 4), numbers(s, n, 4)),
        id="complex-unknown-sizes",
    ),
]  # fmt: skip
