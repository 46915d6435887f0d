"""Views of a tensor: reshaping, permuting, expanding, and the ops that are the identity on values."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.pointwise import expanded
from torch_tvm.lowering.registry import DType, Lowering, Size, Tensor, lowers, register
from torch_tvm.tir import SizeLike, as_size, bits_of, is_one, product

R = relax.op
Expr: TypeAlias = relax.Expr


def same_size(a: SizeLike, b: SizeLike) -> bool:
    """Whether two sizes are provably equal."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return bool(tvm.sym.Analyzer().can_prove_equal(a, b))


def same_shape(a: Sequence[SizeLike], b: Sequence[SizeLike]) -> bool:
    return len(a) == len(b) and all(same_size(x, y) for x, y in zip(a, b, strict=True))


def quotient(numerator: Sequence[SizeLike], denominator: Sequence[SizeLike]) -> SizeLike:
    """``product(numerator) // product(denominator)`` with common factors cancelled."""
    above: list[SizeLike] = list(numerator)
    below: list[SizeLike] = []
    for size in denominator:
        if isinstance(size, int):
            below.append(size)
            continue
        match = next((i for i, s in enumerate(above) if not isinstance(s, int) and same_size(s, size)), None)
        if match is None:
            below.append(size)
        else:
            above.pop(match)
    constant = math.prod(s for s in above if isinstance(s, int))
    divisor = math.prod(s for s in below if isinstance(s, int))
    common = math.gcd(constant, divisor) or 1
    left = product([constant // common, *(s for s in above if not isinstance(s, int))])
    right = product([divisor // common, *(s for s in below if not isinstance(s, int))])
    if is_one(right):
        return left
    if isinstance(left, int) and isinstance(right, int):
        return left // right if right else 0
    divisor_is_safe = isinstance(right, int) and right
    right = right if divisor_is_safe else tirx.max(as_size(right), as_size(1))
    return tvm.sym.Analyzer().simplify(tirx.floordiv(as_size(left), right))


def permute(b: Builder, x: Expr, axes: Sequence[int]) -> Expr:
    """``x`` with its dimensions in the order ``axes``; nothing for the identity."""
    if list(axes) == list(range(len(axes))):
        return x
    return b.emit(R.permute_dims(x, list(axes)))


def reshape(b: Builder, x: Expr, shape: Sequence[SizeLike]) -> Expr:
    """``x`` with another shape; nothing when it has that shape."""
    if same_shape(b.shape(x), shape):
        return x
    if any(isinstance(s, int) and s == 0 for s in shape):  # a 0 in a Relax reshape copies the old size
        return b.emit(R.zeros(relax.ShapeExpr([as_size(s) for s in shape]), b.dtype(x)))
    return b.reshape(x, shape)


def unsqueeze_at(b: Builder, x: Expr, axis: int) -> Expr:
    shape = b.shape(x)
    if any(isinstance(s, int) and s == 0 for s in shape):
        return reshape(b, x, [*shape[:axis], 1, *shape[axis:]])
    return b.emit(R.expand_dims(x, axis))


def squeeze_at(b: Builder, x: Expr, axis: int) -> Expr:
    shape = b.shape(x)
    return reshape(b, x, shape[:axis] + shape[axis + 1 :])


def expand_to(b: Builder, x: Expr, shape: Sequence[SizeLike]) -> Expr:
    """``x`` broadcast to ``shape``; nothing when it has that shape.

    A size that nobody knows may turn out to be 1, or to be an error, when the program runs.
    """
    x = expanded(b, x, shape)
    return x if same_shape(b.shape(x), shape) else b.broadcast(x, shape)


# -- reshaping ---------------------------------------------------------------------------------------


@lowers("torch.aten.view")
def view(b: Builder, x: Tensor, size: list[Size]) -> Expr:
    """aten::view(Tensor(a) self, SymInt[] size) -> Tensor(a)"""
    return reshape(b, x, _inferred(b, b.shape(x), size))


def _inferred(b: Builder, shape: Sequence[SizeLike], size: Sequence[SizeLike]) -> list[SizeLike]:
    unknown = [i for i, s in enumerate(size) if isinstance(s, int) and s == -1]
    known = [s for i, s in enumerate(size) if i not in unknown]
    if len(unknown) > 1:
        b.unsupported("only one size can be inferred")
    total, given = product(shape), product(known)
    if isinstance(total, int) and isinstance(given, int):
        fits = total == given if not unknown else given != 0 and total % given == 0
        if not fits:
            b.unsupported(f"shape {list(size)} is invalid for {total} elements")
    elif b.is_of_values(total) or b.is_of_values(given):
        rest = tirx.floormod(as_size(total), tirx.max(as_size(given), as_size(1)))
        agree = tirx.all(as_size(given) != 0, rest == 0) if unknown else tirx.EQ(as_size(total), as_size(given))
        b.check(agree, "the shape is invalid for the number of elements")
    return [quotient(shape, known) if i in unknown else s for i, s in enumerate(size)]


# -- dimensions of size one ---------------------------------------------------------------------------


@lowers("torch.aten.squeeze.dim")
def squeeze_dim(b: Builder, x: Tensor, dim: int) -> Expr:
    """aten::squeeze.dim(Tensor(a) self, int dim) -> Tensor(a)"""
    return _squeezed(b, x, [b.axis(dim, b.rank(x))])


def _squeezed(b: Builder, x: Expr, candidates: Sequence[int]) -> Expr:
    shape = b.shape(x)
    if not shape:
        return x
    drop = [axis for axis in candidates if is_one(shape[axis])]
    unsure = [axis for axis in candidates if not isinstance(shape[axis], int)]
    rank = None if b.result.shape is None else len(b.result.shape)
    if rank is not None and unsure and rank != len(shape) - len(drop):
        if rank != len(shape) - len(drop) - len(unsure):
            b.unsupported("which dimensions are one is known only at run time")
        drop += unsure
    return reshape(b, x, [s for axis, s in enumerate(shape) if axis not in drop])


@lowers("torch.aten.unsqueeze")
def unsqueeze(b: Builder, x: Tensor, dim: int) -> Expr:
    """aten::unsqueeze(Tensor(a) self, int dim) -> Tensor(a)"""
    return unsqueeze_at(b, x, b.axis(dim, b.rank(x) + 1))


# -- permuting ----------------------------------------------------------------------------------------


@lowers("torch.aten.permute")
def permute_dims(b: Builder, x: Tensor, dims: list[int]) -> Expr:
    """aten::permute(Tensor(a) self, int[] dims) -> Tensor(a)"""
    axes = [b.axis(d, b.rank(x)) for d in dims]
    if sorted(axes) != list(range(b.rank(x))):
        b.unsupported("dims is no permutation")
    return permute(b, x, axes)


# -- expanding ----------------------------------------------------------------------------------------


@lowers("torch.aten.expand")
def expand(b: Builder, x: Tensor, size: list[Size], implicit: bool) -> Expr:
    """aten::expand(Tensor(a) self, SymInt[] size, *, bool implicit=False) -> Tensor(a)"""
    shape = b.shape(x)
    offset = len(size) - len(shape)
    if offset < 0:
        b.unsupported("fewer sizes than dimensions")
    wanted = [shape[i - offset] if isinstance(s, int) and s == -1 and i >= offset else s for i, s in enumerate(size)]
    for have, want in zip(shape, wanted[offset:], strict=True):
        if isinstance(have, int) and isinstance(want, int) and have not in (1, want):
            b.unsupported(f"size {have} cannot expand to {want}")
        if have != 1 and (b.is_computed(have) or b.is_computed(want)):
            b.check(
                tirx.any(as_size(have) == as_size(want), as_size(have) == 1),
                "the expanded size must match the existing size",
            )
    return expand_to(b, x, wanted)


def common_shape(b: Builder, shapes: Sequence[Sequence[SizeLike]]) -> list[SizeLike]:
    """The common shape of tensors of these shapes."""
    rank = max((len(shape) for shape in shapes), default=0)
    result: list[SizeLike] = []
    for position in range(rank):
        size: SizeLike = 1
        for shape in shapes:
            axis = position - (rank - len(shape))
            if axis < 0 or is_one(shape[axis]):
                continue
            if isinstance(size, int) and isinstance(shape[axis], int) and size not in (1, shape[axis]):
                b.unsupported(f"sizes {size} and {shape[axis]} do not broadcast")
            size = shape[axis] if is_one(size) or isinstance(shape[axis], int) else size
        result.append(size)
    return result


@lowers("torch.aten.view.dtype")
def view_dtype(b: Builder, x: Tensor, dtype: DType) -> Expr:
    """aten::view.dtype(Tensor(a) self, ScalarType dtype) -> Tensor(a)"""
    source = b.dtype(x)
    if dtype == source:
        return x
    shape = b.shape(x)
    few, many = bits_of(source) // bits_of(dtype), bits_of(dtype) // bits_of(source)
    if few > 1:
        shape = [*shape[:-1], shape[-1] * few]
    elif many > 1:
        shape = [
            *shape[:-1],
            product([shape[-1]]) // many if isinstance(shape[-1], int) else quotient(shape[-1:], [many]),
        ]

    def body(values: te.Tensor, goal: Any) -> te.Tensor:
        def element(*i: Any) -> tvm.ir.Expr:
            if few <= 1 and many <= 1:
                return _bits_as(dtype, values(*i))
            if few > 1:
                whole = _bits_as(_bits(source), values(*i[:-1], tirx.floordiv(i[-1], few)))
                place = tirx.Cast(_bits(source), tirx.floormod(i[-1], few) * bits_of(dtype))
                return _bits_as(dtype, tirx.Cast(_bits(dtype), whole >> place))
            parts = [
                tirx.Cast(_bits(dtype), _word(values(*i[:-1], i[-1] * many + part)))
                << tirx.const(part * bits_of(source), _bits(dtype))
                for part in range(many)
            ]
            return _bits_as(dtype, functools.reduce(tirx.bitwise_or, parts))

        return te.compute(list(goal), element, name="view")

    return b.te(body, x, relax.ShapeExpr([as_size(size) for size in shape]))


def _bits(dtype: str) -> str:
    """The unsigned integer as wide as ``dtype``."""
    return f"uint{max(bits_of(dtype), 8)}"


def _word(value: tvm.ir.Expr) -> tvm.ir.Expr:
    """The bits of a value as an integer; TVM cannot reinterpret a vector of bfloat16 that it widens afterwards."""
    if str(value.ty.dtype) != "bfloat16":
        return _bits_as(_bits(str(value.ty.dtype)), value)
    wide = tirx.reinterpret("uint32", tirx.Cast("float32", value))
    return tirx.Cast("uint16", wide >> tirx.const(16, "uint32"))


def _bits_as(dtype: str, value: tvm.ir.Expr) -> tvm.ir.Expr:
    """The bits of a value as another dtype of that width; a bool is a byte."""
    own = str(value.ty.dtype)
    if own == "bool":
        value, own = tirx.Cast("uint8", value), "uint8"
    if dtype == "bool":
        return tirx.NE(_bits_as("uint8", value), tirx.const(0, "uint8"))
    return value if own == dtype else tirx.reinterpret(dtype, value)


# -- sizes --------------------------------------------------------------------------------------------


@lowers("torch.aten.size.int")
def size_int(b: Builder, x: Tensor, dim: int) -> SizeLike:
    """aten::size.int(Tensor self, int dim) -> int"""
    return b.shape(x)[b.axis(dim, b.rank(x))]


@lowers("torch.aten.numel")
def numel(b: Builder, x: Tensor) -> SizeLike:
    """aten::numel(Tensor self) -> int"""
    return product(b.shape(x))


def conj_physical(b: Builder, x: Tensor) -> Expr:
    """aten::conj_physical(Tensor self) -> Tensor; of real numbers"""
    return x


_LOWERINGS: dict[str, Lowering] = {
    "torch.aten.conj_physical": conj_physical,
}

for _name, _function in _LOWERINGS.items():
    register(_name, _function, custom=True)
