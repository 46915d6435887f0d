"""Functions that take as many steps as their arguments say: orthogonal polynomials, Hurwitz' zeta and polygamma.

One kernel each, a loop for every element, in parallel where there are many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.elementwise.special import digamma
from torch_tvm.lowering.pointwise import named, pointwise
from torch_tvm.lowering.polynomials import constants
from torch_tvm.lowering.registry import Number, Tensor, register
from torch_tvm.lowering.script import allocate
from torch_tvm.tir import elements, static

Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr
Steps: TypeAlias = Callable[..., None]

PARALLEL_ELEMENTS = 1 << 9
"""From here on the elements are worth more than one thread."""


def iterated(b: Builder, steps: Steps, name: str, compute: str, *operands: Any) -> Expr:
    """``steps(write, value…)`` for every element of the broadcast operands, in ``compute``; the op's result."""
    picks = [lambda *values, index=index: values[index] for index in range(len(operands))]
    wide = [pointwise(b, pick, *operands, compute=compute, result=compute, name="expand") for pick in picks]

    def kernel(*sources: te.Tensor) -> te.Tensor:
        shape = list(sources[0].shape)
        total = elements(shape)
        size = static(total)
        loop = T.serial if size is not None and size < PARALLEL_ELEMENTS else T.parallel

        def body(ins: Any, outs: Any) -> tirx.Stmt:
            given, out = [T.buffer_proxy(buffer) for buffer in ins], T.buffer_proxy(outs[0])

            with IRBuilder() as builder:
                with loop(0, total) as i:

                    def write(value: Scalar) -> None:
                        out[i] = value

                    steps(write, *(source[i] for source in given))
                return builder.get()

        buffers = [tirx.decl_buffer(source.shape, compute, "given") for source in sources]
        result = tirx.decl_buffer(shape, compute, "found")
        return te.extern(
            [shape], list(sources), body, dtype=compute, in_buffers=buffers, out_buffers=[result], name=name
        )

    return b.cast(b.te(kernel, *wide, name=name), b.result_dtype)


def _variable(value: Scalar) -> Any:
    """A number that changes, with its first value."""
    held = allocate(1, str(value.ty.dtype))
    held[0] = value
    return held


# -- orthogonal polynomials ------------------------------------------------------------------------------------

Step: TypeAlias = Callable[[Scalar, Scalar, Scalar, Scalar], Scalar]


def _polynomial(first: Callable[[Scalar], Scalar], step: Step, limits: dict[str, int]) -> Steps:
    """The polynomial of degree ``n`` by ``p[k + 1] = step(x, p[k], p[k - 1], k)``, from 1 and ``first(x)`` on.

    0 for a degree that is no int64, as in ATen; NaN beyond the limit.
    """

    def steps(write: Callable[[Scalar], None], x: Scalar, degree: Scalar) -> None:
        constant = constants(x)
        zero, one = constant(0), constant(1)
        last, this, k = _variable(one), _variable(first(x)), _variable(one)
        n = tirx.trunc(degree)
        is_huge = degree >= constant(2.0**63)
        is_beyond = n > constant(limits.get(str(x.ty.dtype), 2.0**63))
        end = tirx.Select(tirx.any(is_huge, is_beyond), zero, n)
        with T.While(tirx.all(k[0] < end, tirx.Not(tirx.isnan(this[0])))):
            new = _variable(step(x, this[0], last[0], k[0]))
            last[0] = this[0]
            this[0] = new[0]
            k[0] = k[0] + one
        value = tirx.Select(n >= one, this[0], tirx.Select(n >= zero, one, zero))
        write(tirx.Select(is_huge, zero, tirx.Select(is_beyond, constant(math.nan), value)))

    return steps


def _two(x: Scalar) -> Scalar:
    return x + x


def _chebyshev(x: Scalar, this: Scalar, last: Scalar, k: Scalar) -> Scalar:
    return _two(x) * this - last


def _shifted(first: Callable[[Scalar], Scalar], step: Step) -> tuple[Callable[[Scalar], Scalar], Step]:
    moved = lambda x: x + x - constants(x)(1)
    return lambda x: first(moved(x)), lambda x, this, last, k: step(moved(x), this, last, k)


def _laguerre(x: Scalar, this: Scalar, last: Scalar, k: Scalar) -> Scalar:
    one = constants(x)(1)
    return ((_two(k) + (one - x)) * this - k * last) / (k + one)


def _legendre(x: Scalar, this: Scalar, last: Scalar, k: Scalar) -> Scalar:
    one = constants(x)(1)
    return ((_two(k) + one) * x * this - k * last) / (k + one)


_CHEBYSHEV: dict[str, Callable[[Scalar], Scalar]] = {
    "t": lambda x: x,
    "u": _two,
    "v": lambda x: _two(x) - constants(x)(1),
    "w": lambda x: _two(x) + constants(x)(1),
}
_HERMITE_LIMITS = {"float32": 128, "float64": 512}

POLYNOMIALS: dict[str, Steps] = {
    **{f"chebyshev_polynomial_{kind}": _polynomial(first, _chebyshev, {}) for kind, first in _CHEBYSHEV.items()},
    **{
        f"shifted_chebyshev_polynomial_{kind}": _polynomial(*_shifted(first, _chebyshev), {})
        for kind, first in _CHEBYSHEV.items()
    },
    "hermite_polynomial_h": _polynomial(
        _two, lambda x, this, last, k: _two(x) * this - _two(k) * last, _HERMITE_LIMITS
    ),
    "hermite_polynomial_he": _polynomial(lambda x: x, lambda x, this, last, k: x * this - k * last, _HERMITE_LIMITS),
    "laguerre_polynomial_l": _polynomial(lambda x: constants(x)(1) - x, _laguerre, {}),
    "legendre_polynomial_p": _polynomial(lambda x: x, _legendre, {}),
}


def _register(name: str, steps: Steps, compute: str | None, numbers: tuple[str, str]) -> None:
    def of_tensors(b: Builder, x: Tensor, n: Tensor) -> Expr:
        return iterated(b, steps, name, compute or b.result_dtype, x, n)

    def of_first(b: Builder, x: Number, n: Tensor) -> Expr:
        return iterated(b, steps, name, compute or b.result_dtype, x, n)

    def of_second(b: Builder, x: Tensor, n: Number) -> Expr:
        return iterated(b, steps, name, compute or b.result_dtype, x, n)

    for overload, lowering in (("", of_tensors), (numbers[0], of_first), (numbers[1], of_second)):
        lowering.__doc__ = f"aten::special_{name}{overload}(x, n) -> Tensor"
        register(f"torch.aten.special_{name}{overload}", lowering, custom=True)


for _name, _steps in POLYNOMIALS.items():
    _register(_name, _steps, None, (".x_scalar", ".n_scalar"))


# -- zeta ------------------------------------------------------------------------------------------------------

EULER_MACLAURIN = (
    12.0, -720.0, 30240.0, -1209600.0, 47900160.0, -1.8924375803183791606e9, 7.47242496e10, -2.950130727918164224e12,
    1.1646782814350067249e14, -4.5979787224074726105e15, 1.8152105401943546773e17, -7.1661652561756670113e18,
)  # fmt: skip
"""``(2k)! / B[2k]``"""


def _zeta(write: Callable[[Scalar], None], x: Scalar, q: Scalar) -> None:
    """Hurwitz' zeta function, ``Σ (q + k)⁻ˣ``: some terms, and the rest by Euler and Maclaurin (Cephes)."""
    constant = constants(x)
    zero, one, nine = constant(0), constant(1), constant(9)
    power = lambda base: tirx.pow(base, zero - x)
    is_pole = tirx.all(q <= zero, tirx.EQ(q, tirx.floor(q)))  # so is -inf, which never gets anywhere by ones
    is_defined = tirx.all(x > one, tirx.Not(is_pole), tirx.any(q > zero, tirx.EQ(x, tirx.floor(x))))
    a = _variable(q)
    term, total = _variable(power(q)), _variable(power(q))
    count = _variable(zero)
    with T.While(tirx.all(is_defined, tirx.any(count[0] < nine, a[0] <= nine))):
        count[0] = count[0] + one
        a[0] = a[0] + one
        term[0] = power(a[0])
        total[0] = total[0] + term[0]
    w = a[0]
    rest = _variable(term[0] * w / (x - one) - constant(0.5) * term[0])
    factor, k = _variable(one), 0
    for coefficient in EULER_MACLAURIN:
        factor[0] = factor[0] * (x + constant(k))
        term[0] = term[0] / w
        rest[0] = rest[0] + tirx.Select(tirx.EQ(term[0], zero), zero, factor[0] * term[0] / constant(coefficient))
        factor[0] = factor[0] * (x + constant(k + 1))
        term[0] = term[0] / w
        k += 2
    infinity = tirx.infinity(str(x.ty.dtype))
    value = tirx.Select(tirx.any(tirx.isnan(x), tirx.isnan(q), tirx.isinf(x)), constant(math.nan), total[0] + rest[0])
    outside = tirx.Select(x < one, constant(math.nan), tirx.Select(is_pole, infinity, value))
    outside = tirx.Select(tirx.all(q < zero, tirx.Not(is_pole), tirx.Not(is_defined)), constant(math.nan), outside)
    write(tirx.Select(tirx.EQ(x, one), infinity, outside))


_register("zeta", _zeta, "float64", (".self_scalar", ".other_scalar"))


def _trigamma(x: Scalar) -> Scalar:
    constant = constants(x)
    one, half = constant(1), constant(0.5)
    is_mirrored = x < half

    def beyond(z: Scalar) -> Scalar:
        total = constant(0)
        for i in range(6):
            shifted = z + constant(i)
            total = total + one / (shifted * shifted)
        series = lambda w: named(
            one / (w * w),
            lambda s: (one + half / w + s * (constant(1 / 6) - s * (constant(1 / 30) - s * constant(1 / 42)))) / w,
        )
        return total + named(z + constant(6), series)

    mirror = named(tirx.sin(constant(math.pi) * x), lambda s: constant(math.pi**2) / (s * s))
    value = named(tirx.Select(is_mirrored, one - x, x), beyond)
    return named(value, lambda v: tirx.Select(is_mirrored, mirror - v, v))


def polygamma(b: Builder, n: int, x: Tensor) -> Expr:
    """aten::polygamma(int n, Tensor self) -> Tensor"""
    if n == 0:
        return pointwise(b, digamma, x)
    if n == 1:
        return pointwise(b, _trigamma, x)
    dtype = b.result_dtype
    values = iterated(b, _zeta, "polygamma", "float64", float(n + 1), x)
    factor = math.exp(math.lgamma(n + 1)) if n < 171 else math.inf
    return pointwise(b, lambda u: u * constants(u)(factor if n % 2 else -factor), values, result=dtype)


register("torch.aten.polygamma", polygamma, custom=True)
