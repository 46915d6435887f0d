"""Products, norms and moments of complex tensors, and matrix products with something added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from tvm import relax, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.complex_parts import dense, product
from torch_tvm.lowering.ops.complex import numbers
from torch_tvm.lowering.ops.complex.conversion import conj
from torch_tvm.lowering.ops.complex.elementwise import elementwise, real_valued, truth_of
from torch_tvm.lowering.ops.networks import matmul  # noqa: F401  (its lowerings are asked here, as are those of moments)
from torch_tvm.lowering.ops.reductions import folds, statistics  # noqa: F401
from torch_tvm.lowering.ops.shapes.creation import filled
from torch_tvm.lowering.ops.shapes.views import reshape
from torch_tvm.lowering.pointwise import pointwise
from torch_tvm.lowering.registry import COMPLEX, LOWERINGS, Complex, Entry, Parts, lowers_complex

R = relax.op
Expr: TypeAlias = relax.Expr


# -- what a real lowering computes of something real ---------------------------------------------------------


def _derived(name: str, lowering: Callable[..., Any]) -> None:
    """Register ``lowering(b, z, *rest)``, whose other operands are those of the real lowering."""
    entry = LOWERINGS[name]
    (first, _), *others = entry.parameters
    lowering.__doc__ = entry.function.__doc__
    COMPLEX[name] = Entry(name, lowering, ((first, Complex), *others))


def _of(name: str, real: Callable[[Builder, Parts], Expr]) -> None:
    """The real lowering of what ``real`` makes of the numbers: ``any`` asks which are zero, a norm how long they are."""
    _derived(name, lambda b, z, *rest: LOWERINGS[name].function(b, real(b, z), *rest))


def _moment(name: str, join: Callable[[Builder, Any, Any], Any]) -> None:
    """What is joined of the real lowering of both parts."""

    def lowering(b: Builder, z: Parts, *rest: Any) -> Any:
        z = dense(b, z)
        return join(b, *(LOWERINGS[name].function(b, part, *rest) for part in (z.re, z.im)))

    _derived(name, lowering)


def _lengths(b: Builder, z: Parts) -> Expr:
    return real_valued(b, numbers.magnitude, z)


def _sum(b: Builder, re: Expr, im: Expr) -> Expr:
    return b.emit(R.add(re, im))


for _name in ("any", "any.dim", "any.dims", "all", "all.dim", "count_nonzero", "count_nonzero.dim_IntList"):
    _of(f"torch.aten.{_name}", truth_of)
for _name in ("linalg_vector_norm", "norm.Scalar"):
    _of(f"torch.aten.{_name}", _lengths)
for _name in ("", ".dim", ".correction"):
    _moment(f"torch.aten.var{_name}", _sum)
    _moment(
        f"torch.aten.std{_name}",
        lambda b, re, im: pointwise(b, lambda u, v: tirx.sqrt(u * u + v * v), re, im, name="deviation"),
    )
_moment("torch.aten.var_mean.correction", lambda b, re, im: [_sum(b, re[0], im[0]), Parts(re[1], im[1])])


# -- products --------------------------------------------------------------------------------------------------


def _halved(b: Builder, z: Parts, axis: int) -> Parts:
    """The product of the first and the second half along ``axis``; of an odd number the last element comes after."""
    size = b.shape(z.re)[axis]
    if not isinstance(size, int):
        b.unsupported("a product of an unknown number of complex numbers")

    def piece(begin: int, end: int) -> Parts:
        cut = lambda x: b.emit(R.strided_slice(x, [axis], [begin], [end]))
        return Parts(cut(z.re), cut(z.im))

    half = size // 2
    result = elementwise(b, lambda u, v: u * v, piece(0, half), piece(half, 2 * half))
    if size % 2 == 0:
        return result
    last = piece(size - 1, size)
    return Parts(*(b.emit(R.concat([x, y], axis)) for x, y in ((result.re, last.re), (result.im, last.im))))


@lowers_complex("torch.aten.prod.dim_int")
def prod_dim(b: Builder, z: Complex, dim: int, keepdim: bool, dtype: Any) -> Parts:
    """aten::prod.dim_int(Tensor self, int dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    z = dense(b, z)
    rank = b.rank(z.re)
    if rank == 0:
        return Parts(*(b.cast(part, b.result_dtype) for part in (z.re, z.im)))
    axis, shape = b.axis(dim, rank), b.shape(z.re)
    z = Parts(*(b.cast(part, b.result_dtype) for part in (z.re, z.im)))
    kept = [*shape[:axis], 1, *shape[axis + 1 :]]
    if shape[axis] == 0:
        z = Parts(filled(b, kept, 1), filled(b, kept, 0))
    while b.shape(z.re)[axis] != 1:
        z = _halved(b, z, axis)
    result = kept if keepdim else [*shape[:axis], *shape[axis + 1 :]]
    return Parts(*(reshape(b, part, result) for part in (z.re, z.im)))


@lowers_complex("torch.aten.prod")
def prod_all(b: Builder, z: Complex, dtype: Any) -> Parts:
    """aten::prod(Tensor self, *, ScalarType? dtype=None) -> Tensor"""
    z = dense(b, z)
    count = folds.count_of(b, z.re, range(b.rank(z.re)))
    return prod_dim(b, Parts(*(reshape(b, part, [count]) for part in (z.re, z.im))), 0, False, dtype)


@lowers_complex("torch.aten.cumprod")
def cumprod(b: Builder, z: Complex, dim: int, dtype: Any) -> Parts:
    """aten::cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor

    Hillis and Steele, Data parallel algorithms, 1986: after step ``s`` each element has the product of the last ``2**s``.
    """
    z = Parts(*(b.cast(part, b.result_dtype) for part in (z.re, dense(b, z).im)))
    rank = b.rank(z.re)
    if rank == 0:
        return z
    axis = b.axis(dim, rank)
    size, reach = b.shape(z.re)[axis], 1
    if not isinstance(size, int):
        b.unsupported("products of an unknown number of complex numbers")
    while reach < size:
        cut = lambda x, begin, end: b.emit(R.strided_slice(x, [axis], [begin], [end]))
        early, late = (
            Parts(*(cut(part, *ends) for part in (z.re, z.im))) for ends in ((0, size - reach), (reach, size))
        )
        first = Parts(*(cut(part, 0, reach) for part in (z.re, z.im)))
        rest = elementwise(b, lambda u, v: u * v, early, late)
        z = Parts(*(b.emit(R.concat([x, y], axis)) for x, y in ((first.re, rest.re), (first.im, rest.im))))
        reach *= 2
    return z


# -- matrix products ---------------------------------------------------------------------------------------------


def _matmul(b: Builder, x: Parts, y: Parts) -> Parts:
    return product(b, LOWERINGS["torch.aten.matmul"], [x, y], (0, 1))


def _added(b: Builder, value: Parts, bias: Parts, beta: Parts, alpha: Parts) -> Parts:
    """``beta * bias + alpha * value``; ``beta`` 0 drops ``bias`` even where it is NaN."""
    scaled = value if alpha == _ONE else elementwise(b, lambda u, v: u * v, value, alpha)
    if beta == Parts(0, 0):
        return scaled
    rest = bias if beta == _ONE else elementwise(b, lambda u, v: u * v, bias, beta)
    return elementwise(b, lambda u, v: u + v, scaled, rest)


_ONE = Parts(1, 0)


@lowers_complex("torch.aten.addmm", "torch.aten.baddbmm", "torch.aten.addmv")
def addmm(b: Builder, bias: Complex, x: Complex, y: Complex, beta: Complex, alpha: Complex) -> Parts:
    """aten::addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    return _added(b, _matmul(b, x, y), bias, beta, alpha)


@lowers_complex("torch.aten.addbmm")
def addbmm(b: Builder, bias: Complex, x: Complex, y: Complex, beta: Complex, alpha: Complex) -> Parts:
    """aten::addbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    each = _matmul(b, x, y)
    summed = Parts(*(b.emit(R.sum(part, axis=[0])) for part in (each.re, each.im)))
    return _added(b, summed, bias, beta, alpha)


@lowers_complex("torch.aten.addr")
def addr(b: Builder, bias: Complex, x: Complex, y: Complex, beta: Complex, alpha: Complex) -> Parts:
    """aten::addr(Tensor self, Tensor vec1, Tensor vec2, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    return _added(b, product(b, LOWERINGS["torch.aten.outer"], [x, y], (0, 1)), bias, beta, alpha)


@lowers_complex("torch.aten.vdot")
def vdot(b: Builder, x: Complex, y: Complex) -> Parts:
    """aten::vdot(Tensor self, Tensor other) -> Tensor"""
    return _matmul(b, conj(b, x), y)


@lowers_complex("torch.aten.linear")
def linear(b: Builder, x: Complex, weight: Complex, bias: Complex | None) -> Parts:
    """aten::linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor"""
    value = product(b, LOWERINGS["torch.aten.linear"], [x, weight, None], (0, 1))
    return value if bias is None else elementwise(b, lambda u, v: u + v, value, bias)
