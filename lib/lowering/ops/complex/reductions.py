"""Products, norms and moments of complex tensors, and matrix products with something added."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.complex_parts import dense, product
from torch_tvm.lowering.ops.complex import numbers
from torch_tvm.lowering.ops.complex.conversion import conj
from torch_tvm.lowering.ops.complex.elementwise import abs_, elementwise, truth_of
from torch_tvm.lowering.ops.complex.numbers import Complex as Number
from torch_tvm.lowering.ops.indexing import finding  # noqa: F401
from torch_tvm.lowering.ops.networks import matmul  # noqa: F401  (its lowerings are asked here, as are those of moments)
from torch_tvm.lowering.ops.reductions import folds, statistics  # noqa: F401
from torch_tvm.lowering.ops.shapes.creation import filled
from torch_tvm.lowering.ops.shapes.views import reshape
from torch_tvm.lowering.pointwise import larger, pointwise
from torch_tvm.lowering.registry import COMPLEX, LOWERINGS, Complex, Entry, Parts, lowers_complex
from torch_tvm.lowering.script import allocate
from torch_tvm.tir import as_size
from torch_tvm.tir import product as product_of

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
    """The real lowering of what ``real`` makes of the numbers: ``any`` asks which are zero, a norm
    how long they are.
    """
    _derived(name, lambda b, z, *rest: LOWERINGS[name].function(b, real(b, z), *rest))


def _moment(name: str, join: Callable[[Builder, Any, Any], Any]) -> None:
    """What is joined of the real lowering of both parts."""

    def lowering(b: Builder, z: Parts, *rest: Any) -> Any:
        z = dense(b, z)
        return join(b, *(LOWERINGS[name].function(b, part, *rest) for part in (z.re, z.im)))

    _derived(name, lowering)


def _sum(b: Builder, re: Expr, im: Expr) -> Expr:
    return b.emit(R.add(re, im))


def _length(b: Builder, re: Expr, im: Expr) -> Expr:
    return pointwise(b, lambda u, v: tirx.sqrt(u * u + v * v), re, im, result=b.dtype(re), name="deviation")


for _name in (
    *("any", "any.dim", "any.dims", "all", "all.dim", "count_nonzero", "count_nonzero.dim_IntList"),
    *("nonzero", "nonzero_numpy", "nonzero_static", "argwhere", "where"),
):
    _of(f"torch.aten.{_name}", truth_of)
for _name in ("linalg_vector_norm", "norm.Scalar"):
    _of(f"torch.aten.{_name}", abs_)
for _name in ("", ".dim", ".correction"):
    _moment(f"torch.aten.var{_name}", _sum)
    _moment(f"torch.aten.std{_name}", _length)
    _moment(f"torch.aten.var_mean{_name}", lambda b, re, im: [_sum(b, re[0], im[0]), Parts(re[1], im[1])])
    _moment(f"torch.aten.std_mean{_name}", lambda b, re, im: [_length(b, re[0], im[0]), Parts(re[1], im[1])])


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


def _running(b: Builder, z: Parts, dim: int, start: float, combine: Callable[..., Number]) -> Parts:
    """What ``combine`` makes of ``start`` and all elements so far along ``dim``, in float64: a loop over lines."""
    dtype = b.result_dtype
    z = Parts(*(b.cast(part, dtype) for part in (z.re, dense(b, z).im)))
    shape = b.shape(z.re)
    if 0 in shape:
        return z
    axis = b.axis(dim, len(shape))
    sizes = relax.ShapeExpr([as_size(size) for size in shape or [1]])

    def lines(ins: Any, outs: Any, shape: Any) -> tirx.Stmt:
        before, length, after = product_of(shape[:axis]), shape[axis], as_size(product_of(shape[axis + 1 :]))
        data, targets = ([T.buffer_proxy(buffer) for buffer in buffers] for buffers in (ins, outs))
        with IRBuilder() as builder:
            with T.parallel(0, before * after) as line:
                base = tirx.floordiv(line, after) * length * after + tirx.floormod(line, after)
                totals = [allocate(1, "float64", "local") for _ in targets]
                for total, value in zip(totals, (start, 0.0), strict=True):
                    total[0] = tirx.const(value, "float64")
                with T.serial(0, length) as k:
                    at = base + k * after
                    element = Number(*(tirx.Cast("float64", part[at]) for part in data))
                    new = stored(combine(Number(totals[0][0], totals[1][0]), stored(element)))
                    for total, target, part in zip(totals, targets, (new.re, new.im), strict=True):
                        total[0] = part
                        target[at] = tirx.Cast(dtype, part)
            return builder.get()

    def kernel(re: te.Tensor, im: te.Tensor, goal: Any) -> te.Tensor:
        return te.extern(
            [re.shape] * 2,
            [re, im],
            lambda ins, outs: lines(ins, outs, list(goal)),
            dtype=[dtype] * 2,
            name="running",
        )

    flat = [reshape(b, part, [product_of(shape)]) for part in (z.re, z.im)]
    both = b.te(kernel, *flat, sizes, name="running")
    return Parts(*(reshape(b, b.emit(relax.TupleGetItem(both, i)), shape) for i in range(2)))


def stored(z: Number) -> Number:
    """A number in memory of the kernel that is being built: what reads it many times stays short."""
    cells = [allocate(1, "float64", "local") for _ in range(2)]
    for cell, part in zip(cells, (z.re, z.im), strict=True):
        cell[0] = part
    return Number(*(cell[0] for cell in cells))


@lowers_complex("torch.aten.cumprod")
def cumprod(b: Builder, z: Complex, dim: int, dtype: Any) -> Parts:
    """aten::cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor"""
    return _running(b, z, dim, 1.0, lambda u, v: u * v)


@lowers_complex("torch.aten.logcumsumexp")
def logcumsumexp(b: Builder, z: Complex, dim: int) -> Parts:
    """aten::logcumsumexp(Tensor self, int dim) -> Tensor"""
    return _running(b, z, dim, -math.inf, lambda u, v: numbers.log_add_exp(v, u, stored))


@lowers_complex("torch.aten.logsumexp")
def logsumexp(b: Builder, z: Complex, dim: list[int], keepdim: bool) -> Parts:
    """aten::logsumexp(Tensor self, int[1] dim, bool keepdim=False) -> Tensor; from the largest real
    part that is finite
    """
    z = Parts(*(b.cast(part, b.result_dtype) for part in (z.re, dense(b, z).im)))
    axes = folds.axes_of(b, z.re, dim)
    top = folds.reduce(b, z.re, axes, True, larger, folds.lowest, accumulate=b.result_dtype, name="max")
    top = pointwise(b, lambda u: tirx.Select(tirx.isinf(u), tirx.const(0, b.result_dtype), u), top, name="finite")
    shifted = elementwise(b, lambda u, v: numbers.exp(u - v), z, Parts(top, 0))
    summed = Parts(*(b.emit(R.sum(part, axis=axes, keepdims=True)) for part in (shifted.re, shifted.im)))
    value = elementwise(b, lambda u, v: numbers.log(u) + v, summed, Parts(top, 0))
    if keepdim:
        return value
    kept = [size for axis, size in enumerate(b.shape(value.re)) if axis not in axes]
    return Parts(reshape(b, value.re, kept), reshape(b, value.im, kept))


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
