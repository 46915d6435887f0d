"""Matrix products. Half precisions accumulate in float32, as ATen's do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from tvm import relax, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.shapes.views import common_shape, reshape, same_size
from torch_tvm.lowering.pointwise import agree, expanded, pointwise, scaled
from torch_tvm.lowering.registry import Tensor, lowers, register
from torch_tvm.tir import HALF, SizeLike, as_size, is_one, product

R = relax.op
Expr: TypeAlias = relax.Expr


def product_of(b: Builder, x: Expr, y: Expr) -> Expr:
    """``x @ y`` with batch dimensions broadcast; both of one dtype and of rank 1 or more."""
    dtype = b.dtype(x)
    if dtype == "bool":
        b.unsupported("a product of booleans")
    x, y = _of_one_batch(b, x, y)
    if dtype in HALF:
        return b.cast(b.emit(R.matmul(x, y, out_dtype="float32")), dtype)
    return b.emit(R.matmul(x, y))


def _of_one_batch(b: Builder, x: Expr, y: Expr) -> tuple[Expr, Expr]:
    """Both with the same batch sizes, or 1, checked at run time where they are not provably so.

    Relax knows no shape of a product otherwise, and no kernel for it.
    """
    left, right = list(b.shape(x)), list(b.shape(y))
    for axis in range(-3, -min(len(left), len(right)) - 1, -1):
        one, other = left[axis], right[axis]
        if same_size(one, other) or is_one(one) or is_one(other):
            continue
        b.check(tirx.EQ(as_size(one), as_size(other)), "the batch sizes of a product differ")
        left[axis] = right[axis] = other if isinstance(other, int) else one
    return _of_sizes(b, x, left), _of_sizes(b, y, right)


def _of_sizes(b: Builder, x: Expr, sizes: Sequence[SizeLike]) -> Expr:
    return x if all(map(same_size, b.shape(x), sizes)) else b.reshape(x, sizes)


def _check(b: Builder, x: Expr, y: Expr) -> None:
    rows, columns = b.shape(x), b.shape(y)
    if not rows or not columns:
        b.unsupported("a 0-d operand")
    inner, other = rows[-1], columns[-2 if len(columns) > 1 else -1]
    if isinstance(inner, int) and isinstance(other, int) and inner != other:
        b.unsupported(f"inner sizes {inner} and {other} differ")
    b.expect(tirx.EQ(as_size(inner), as_size(other)), "the inner sizes of a product differ")
    if b.dtype(x) != b.dtype(y):
        b.unsupported(f"operands of {b.dtype(x)} and {b.dtype(y)}")


@lowers("torch.aten.mm", "torch.aten.bmm", "torch.aten.matmul", "torch.aten.mv")
def matmul(b: Builder, x: Tensor, y: Tensor) -> Expr:
    """aten::matmul(Tensor self, Tensor other) -> Tensor"""
    if b.result.dtype == "int32" and b.dtype(x) == "int8":  # torch-mlir's canonical spelling of _int_mm
        return int_mm(b, x, y)
    _check(b, x, y)
    return product_of(b, x, y)


@lowers("torch.aten._int_mm")
def int_mm(b: Builder, x: Tensor, y: Tensor) -> Expr:
    """aten::_int_mm(Tensor self, Tensor mat2) -> Tensor; int8 operands, summed in int32"""
    _check(b, x, y)
    if b.dtype(x) != "int8":
        b.unsupported(f"operands of {b.dtype(x)}, int8 expected")
    return b.emit(R.matmul(x, y, out_dtype="int32"))


def vdot(b: Builder, x: Tensor, y: Tensor) -> Expr:
    """aten::vdot(Tensor self, Tensor other) -> Tensor; of real numbers"""
    return matmul(b, x, y)


@lowers("torch.aten.outer")
def outer(b: Builder, x: Tensor, y: Tensor) -> Expr:
    """aten::outer(Tensor self, Tensor vec2) -> Tensor"""
    dtype = b.result_dtype
    left = b.emit(R.expand_dims(b.cast(x, dtype), 1))
    right = b.emit(R.expand_dims(b.cast(y, dtype), 0))
    return b.emit(R.logical_and(left, right) if dtype == "bool" else R.multiply(left, right))


@lowers("torch.aten.linear")
def linear(b: Builder, x: Tensor, weight: Tensor, bias: Tensor | None) -> Expr:
    """aten::linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor"""
    transposed = b.emit(R.permute_dims(weight, [1, 0])) if b.rank(weight) == 2 else weight
    _check(b, x, transposed)
    result = product_of(b, x, transposed)
    if bias is None:
        return result
    _expect_broadcast(b, bias, result)
    return b.emit(R.add(*agree(b, [result, bias])))


def _expect_broadcast(b: Builder, x: Expr, result: Expr) -> None:
    """Check that ``x`` broadcasts to ``result``."""
    rank = b.rank(x)
    for size, other in zip(b.shape(x), b.shape(result)[-rank:] if rank else [], strict=True):
        if not isinstance(size, int) or not isinstance(other, int):
            fits = tirx.any(as_size(size) == as_size(other), as_size(size) == 1)
            b.expect(fits, "what is added does not fit the product")


def add_product(b: Builder, x: Expr, y: Expr, bias: Expr, beta: Any, alpha: Any, by_blas: bool | None = None) -> Expr:
    """``beta * bias + alpha * (x @ y)``; ``beta`` 0 drops ``bias`` even where it is NaN, as BLAS does the product."""
    _check(b, x, y)
    dtype = b.dtype(x)
    if dtype in HALF and not (_is(alpha, 1) and _is(beta, 0, 1)):  # a product too large for it may be scaled down
        by_blas = _is_by_blas(b, x, y) if by_blas is None else by_blas
        left, right, rest = (b.cast(value, "float32") for value in (x, y, bias))
        return b.cast(add_product(b, left, right, rest, beta, alpha, by_blas), dtype)
    result = product_of(b, x, y)
    is_read = not (_is_by_blas(b, x, y) if by_blas is None else by_blas)
    if not _is_known(alpha):
        result = _scaled_at_run_time(b, result, alpha, is_read)
    elif alpha == 0 and not is_read:
        result = b.emit(R.zeros(relax.ShapeExpr([as_size(size) for size in b.shape(result)]), b.dtype(result)))
    elif alpha != 1:
        result = scaled(b, result, alpha)
    if _is(beta, 0):
        return result
    _expect_broadcast(b, bias, result)
    if not _is_known(beta):
        bias = _scaled_at_run_time(b, bias, beta, False)
    elif beta != 1:
        bias = scaled(b, bias, beta)
    return b.emit(R.add(*agree(b, [result, bias])))


def _is(factor: Any, *numbers: float) -> bool:
    """Whether a factor is known, and one of these."""
    return _is_known(factor) and factor in numbers


def _is_known(factor: Any) -> bool:
    return isinstance(factor, (bool, int, float))


def _scaled_at_run_time(b: Builder, x: Expr, factor: Any, is_read: bool) -> Expr:
    """``x`` times a number that only the run knows; times 0, unless ``is_read``, zeros also where ``x`` is NaN."""
    dtype = b.dtype(x)
    zero = tirx.const(0, dtype)
    product = lambda u, v: u * v if is_read else tirx.Select(v == zero, zero, u * v)
    return pointwise(b, product, x, b.tensor(factor, dtype), compute=dtype, result=dtype, name="scale")


def _is_by_blas(b: Builder, x: Expr, y: Expr) -> bool:
    """Whether ATen calls BLAS, which reads no factor of a product that is scaled by zero."""
    if b.rank(x) < 3:
        return b.dtype(x) not in HALF
    size = product([*b.shape(x)[1:], b.shape(y)[-1]])
    return isinstance(size, int) and size >= _BLAS_FROM


_BLAS_FROM = 400
"""The multiplications of one product of a batch from which on ATen leaves it to BLAS."""


@lowers("torch.aten.addmm", "torch.aten.baddbmm")
def addmm(b: Builder, bias: Tensor, x: Tensor, y: Tensor, beta: Any, alpha: Any) -> Expr:
    """aten::addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    return add_product(b, x, y, bias, beta, alpha)


@lowers("torch.aten.addbmm")
def addbmm(b: Builder, bias: Tensor, x: Tensor, y: Tensor, beta: Any, alpha: Any) -> Expr:
    """aten::addbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    batch, rows, inner = b.shape(x)
    columns = b.shape(y)[2]
    left = reshape(b, b.emit(R.permute_dims(x, [1, 0, 2])), [rows, product([batch, inner])])
    right = reshape(b, y, [product([batch, inner]), columns])
    return add_product(b, left, right, bias, beta, alpha)


def addr(b: Builder, bias: Tensor, x: Tensor, y: Tensor, beta: Any, alpha: Any) -> Expr:
    """aten::addr(Tensor self, Tensor vec1, Tensor vec2, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    left, right = b.emit(R.expand_dims(x, 1)), b.emit(R.expand_dims(y, 0))
    return add_product(b, left, right, bias, beta, alpha, by_blas=False)


register("torch.aten.addmv", addmm, custom=True)
register("torch.aten.addr", addr, custom=True)
register("torch.aten.vdot", vdot, custom=True)


# -- einsum: permute both operands to batch, rows, inner and batch, inner, columns, one product ---------


@lowers("torch.aten.einsum")
def einsum(b: Builder, equation: str, tensors: list[Tensor], path: list[int] | None) -> Expr:
    """aten::einsum(str equation, Tensor[] tensors, *, int[]? path=None) -> Tensor"""
    terms, result = _parsed(b, equation, [b.rank(x) for x in tensors])
    tensors = [b.cast(x, b.result_dtype) for x in tensors]  # a sum of integers is int64
    value, labels = tensors[0], terms[0]
    for index, (other, other_labels) in enumerate(zip(tensors[1:], terms[1:], strict=True)):
        needed = set(result).union(*terms[index + 2 :])
        value, labels = _contract(b, value, labels, other, other_labels, needed)
    value, labels = _sum_out(b, value, labels, set(result))
    return b.emit(R.permute_dims(value, [labels.index(label) for label in result])) if len(labels) > 1 else value


def _parsed(b: Builder, equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    text = equation.replace(" ", "")
    left, arrow, result = text.partition("->")
    terms = left.split(",")
    if "." in text:
        b.unsupported("einsum with an ellipsis")
    if any(len(set(term)) != len(term) for term in terms):
        b.unsupported("einsum with a repeated subscript in one operand")
    if len(terms) != len(ranks) or any(len(t) != rank for t, rank in zip(terms, ranks, strict=True)):
        b.unsupported("einsum subscripts that do not fit the operands")
    if not arrow:
        letters = left.replace(",", "")
        result = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return terms, result


def _sum_out(b: Builder, x: Expr, labels: str, keep: set[str]) -> tuple[Expr, str]:
    drop = [axis for axis, label in enumerate(labels) if label not in keep]
    if not drop:
        return x, labels
    return b.emit(R.sum(x, axis=drop)), "".join(c for c in labels if c in keep)


def _contract(b: Builder, x: Expr, xs: str, y: Expr, ys: str, needed: set[str]) -> tuple[Expr, str]:
    """One pair of operands as a batched matrix product."""
    x, xs = _sum_out(b, x, xs, needed | set(ys))
    y, ys = _sum_out(b, y, ys, needed | set(xs))
    lone = {c for c in set(xs) & set(ys) - needed if _is_one_of_many(b, x, xs, y, ys, c)}
    (x, xs), (y, ys) = _sum_out(b, x, xs, set(xs) - lone), _sum_out(b, y, ys, set(ys) - lone)
    shared = [c for c in xs if c in ys]
    batch = [c for c in shared if c in needed]
    inner = [c for c in shared if c not in needed]
    rows, columns = [c for c in xs if c not in shared], [c for c in ys if c not in shared]
    sizes: dict[str, SizeLike] = {}
    for label in set(xs + ys):
        found = [[b.shape(v)[ls.index(label)]] for v, ls in ((x, xs), (y, ys)) if label in ls]
        sizes[label] = found[-1][0] if label in inner else common_shape(b, found)[0]
        if label in inner and isinstance(found[0][0], int):
            sizes[label] = found[0][0]
    x = _repeated(b, x, xs, {c: sizes[c] for c in inner})
    y = _repeated(b, y, ys, {c: sizes[c] for c in inner})
    left = _arranged(b, x, xs, batch, rows, inner)
    right = _arranged(b, y, ys, batch, inner, columns)
    value = product_of(b, left, right)
    labels = "".join([*batch, *rows, *columns])
    return reshape(b, value, [sizes[c] for c in labels]), labels


def _repeated(b: Builder, x: Expr, labels: str, sizes: dict[str, SizeLike]) -> Expr:
    """A size that only run time knows to be 1 as that of the other operand."""
    return expanded(b, x, [sizes.get(c, size) for c, size in zip(labels, b.shape(x), strict=True)])


def _is_one_of_many(b: Builder, x: Expr, xs: str, y: Expr, ys: str, label: str) -> bool:
    """Whether a label is of size 1 in one operand and not in the other: products with one number sum up first."""
    return is_one(b.shape(x)[xs.index(label)]) != is_one(b.shape(y)[ys.index(label)])


def _arranged(
    b: Builder, x: Expr, labels: str, batch: Sequence[str], rows: Sequence[str], columns: Sequence[str]
) -> Expr:
    order = [labels.index(c) for c in (*batch, *rows, *columns)]
    value = b.emit(R.permute_dims(x, order)) if len(order) > 1 else x
    shape = b.shape(value)
    first, second = len(batch), len(batch) + len(rows)
    return reshape(b, value, [*shape[:first], product(shape[first:second]), product(shape[second:])])
