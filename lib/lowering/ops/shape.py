"""Views of a tensor: reshaping, permuting, expanding, and the ops that are the identity on values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tvm
from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder, SizeLike
from torch_tvm.lowering.registry import DType, Number, Size, Tensor, lowers, register

R = relax.op
Expr = relax.Expr

_IDENTITY = {
    "torch.aten.contiguous": 1,
    "torch.aten.clone": 1,
    "torch.aten.detach": 0,
    "torch.aten.detach_copy": 0,
    "torch.aten.alias": 0,
    "torch.aten.alias_copy": 0,
    "torch.aten.lift_fresh_copy": 0,
    "torch.aten.dropout": 2,
    "torch.aten.cpu": 0,
}
_CUSTOM_IDENTITY = {
    "torch.aten.lift": 0,
    "torch.aten.lift_fresh": 0,
    "torch.aten.positive": 0,
    "torch.aten.resolve_conj": 0,
    "torch.aten.resolve_neg": 0,
    "torch.aten.conj": 0,
    "torch.aten.conj_physical": 0,
    "torch.aten._conj": 0,
    "torch.aten.feature_dropout": 2,
    "torch.aten.alpha_dropout": 2,
    "torch.aten.feature_alpha_dropout": 2,
}


def is_one(size: SizeLike) -> bool:
    return isinstance(size, int) and size == 1


def same_size(a: SizeLike, b: SizeLike) -> bool:
    """Whether two sizes are provably equal."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return bool(tvm.sym.Analyzer().can_prove_equal(a, b))


def same_shape(a: Sequence[SizeLike], b: Sequence[SizeLike]) -> bool:
    return len(a) == len(b) and all(same_size(x, y) for x, y in zip(a, b, strict=True))


def product(sizes: Sequence[SizeLike]) -> SizeLike:
    """The number of elements; a Python int when every size is."""
    total: SizeLike = 1
    for size in sizes:
        total = size if is_one(total) else total if is_one(size) else total * size
    return total


def quotient(numerator: Sequence[SizeLike], denominator: Sequence[SizeLike]) -> SizeLike:
    """``product(numerator) // product(denominator)`` with common factors cancelled."""
    above, below = list(numerator), []
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
    return tvm.sym.Analyzer().simplify(tirx.floordiv(left, right))


def permute(b: Builder, x: Expr, axes: Sequence[int]) -> Expr:
    """``x`` with its dimensions in the order ``axes``; nothing for the identity."""
    if list(axes) == list(range(len(axes))):
        return x
    return b.emit(R.permute_dims(x, list(axes)))


def reshape(b: Builder, x: Expr, shape: Sequence[SizeLike]) -> Expr:
    """``x`` with another shape; nothing when it has that shape."""
    return x if same_shape(b.shape(x), shape) else b.reshape(x, shape)


def unsqueeze_at(b: Builder, x: Expr, axis: int) -> Expr:
    return b.emit(R.expand_dims(x, axis))


def squeeze_at(b: Builder, x: Expr, axis: int) -> Expr:
    shape = b.shape(x)
    return reshape(b, x, shape[:axis] + shape[axis + 1 :])


def expand_to(b: Builder, x: Expr, shape: Sequence[SizeLike]) -> Expr:
    """``x`` broadcast to ``shape``; nothing when it has that shape."""
    if same_shape(b.shape(x), shape):
        return x
    return b.broadcast(x, shape)


def _identity(name: str, ignored: int, *, custom: bool = False) -> None:
    lowering: Callable[..., Expr]
    if ignored == 0:

        def lowering(b: Builder, x: Tensor) -> Expr:
            return x
    elif ignored == 1:

        def lowering(b: Builder, x: Tensor, memory_format: int | None) -> Expr:
            return x
    else:

        def lowering(b: Builder, x: Tensor, p: Number, train: bool) -> Expr:
            return x if not train or p == 0 else b.unsupported("dropout in training mode is random")

    lowering.__doc__ = f"{name}(Tensor self, …) -> Tensor, the same values"
    register(name, lowering, custom=custom)


for _name, _ignored in _IDENTITY.items():
    _identity(_name, _ignored)
for _name, _ignored in _CUSTOM_IDENTITY.items():
    _identity(_name, _ignored, custom=True)


# -- reshaping ---------------------------------------------------------------------------------------


@lowers("torch.aten.view", "torch.aten.reshape", "torch.aten._unsafe_view", "torch.aten.view_copy")
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
    return [quotient(shape, known) if i in unknown else s for i, s in enumerate(size)]


@lowers("torch.aten._reshape_alias", "torch.aten._reshape_alias_copy")
def _reshape_alias(b: Builder, x: Tensor, size: list[Size], stride: list[Size]) -> Expr:
    """aten::_reshape_alias(Tensor(a) self, SymInt[] size, SymInt[] stride) -> Tensor(a)"""
    return view(b, x, size)


@lowers("torch.aten.reshape_as")
def reshape_as(b: Builder, x: Tensor, other: Tensor) -> Expr:
    """aten::reshape_as(Tensor(a) self, Tensor other) -> Tensor(a)"""
    return view(b, x, b.shape(other))


@lowers("torch.aten.flatten.using_ints")
def flatten(b: Builder, x: Tensor, start_dim: int, end_dim: int) -> Expr:
    """aten::flatten.using_ints(Tensor(a) self, int start_dim=0, int end_dim=-1) -> Tensor(a)"""
    shape = b.shape(x) or [1]
    start, end = b.axis(start_dim, len(shape)), b.axis(end_dim, len(shape))
    if start > end:
        b.unsupported("start_dim comes after end_dim")
    return reshape(b, x, [*shape[:start], product(shape[start : end + 1]), *shape[end + 1 :]])


def ravel(b: Builder, x: Tensor) -> Expr:
    """aten::ravel(Tensor(a) self) -> Tensor(a)"""
    return reshape(b, x, [product(b.shape(x))])


@lowers("torch.aten.unflatten.int")
def unflatten(b: Builder, x: Tensor, dim: int, sizes: list[Size]) -> Expr:
    """aten::unflatten.int(Tensor(a) self, int dim, SymInt[] sizes) -> Tensor(a)"""
    shape = b.shape(x)
    axis = b.axis(dim, len(shape))
    return reshape(b, x, [*shape[:axis], *_inferred(b, [shape[axis]], sizes), *shape[axis + 1 :]])


# -- dimensions of size one ---------------------------------------------------------------------------


@lowers("torch.aten.squeeze", "torch.aten.squeeze_copy")
def squeeze(b: Builder, x: Tensor) -> Expr:
    """aten::squeeze(Tensor(a) self) -> Tensor(a)"""
    shape = b.shape(x)
    return _squeezed(b, x, list(range(len(shape))))


@lowers("torch.aten.squeeze.dim", "torch.aten.squeeze_copy.dim")
def squeeze_dim(b: Builder, x: Tensor, dim: int) -> Expr:
    """aten::squeeze.dim(Tensor(a) self, int dim) -> Tensor(a)"""
    return _squeezed(b, x, [b.axis(dim, b.rank(x))])


def squeeze_dims(b: Builder, x: Tensor, dim: list[int]) -> Expr:
    """aten::squeeze.dims(Tensor(a) self, int[] dim) -> Tensor(a)"""
    return _squeezed(b, x, [b.axis(d, b.rank(x)) for d in dim])


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


@lowers("torch.aten.unsqueeze", "torch.aten.unsqueeze_copy")
def unsqueeze(b: Builder, x: Tensor, dim: int) -> Expr:
    """aten::unsqueeze(Tensor(a) self, int dim) -> Tensor(a)"""
    return unsqueeze_at(b, x, b.axis(dim, b.rank(x) + 1))


# -- permuting ----------------------------------------------------------------------------------------


@lowers("torch.aten.transpose.int", "torch.aten.transpose_copy.int")
def transpose(b: Builder, x: Tensor, dim0: int, dim1: int) -> Expr:
    """aten::transpose.int(Tensor(a) self, int dim0, int dim1) -> Tensor(a)"""
    rank = b.rank(x)
    first, second = b.axis(dim0, rank), b.axis(dim1, rank)
    axes = list(range(rank))
    if rank:
        axes[first], axes[second] = axes[second], axes[first]
    return permute(b, x, axes)


@lowers("torch.aten.permute", "torch.aten.permute_copy")
def permute_dims(b: Builder, x: Tensor, dims: list[int]) -> Expr:
    """aten::permute(Tensor(a) self, int[] dims) -> Tensor(a)"""
    axes = [b.axis(d, b.rank(x)) for d in dims]
    if sorted(axes) != list(range(b.rank(x))):
        b.unsupported("dims is no permutation")
    return permute(b, x, axes)


@lowers("torch.aten.t", "torch.aten.t_copy", "torch.aten.numpy_T")
def t(b: Builder, x: Tensor) -> Expr:
    """aten::t(Tensor(a) self) -> Tensor(a)"""
    return permute(b, x, list(reversed(range(b.rank(x)))))


def matrix_transpose(b: Builder, x: Tensor) -> Expr:
    """aten::mT(Tensor(a) self) -> Tensor(a)"""
    return transpose(b, x, -2, -1)


@lowers("torch.aten.movedim.int")
def movedim(b: Builder, x: Tensor, source: int, destination: int) -> Expr:
    """aten::movedim.int(Tensor(a) self, int source, int destination) -> Tensor(a)"""
    return movedim_intlist(b, x, [source], [destination])


def movedim_intlist(b: Builder, x: Tensor, source: list[int], destination: list[int]) -> Expr:
    """aten::movedim.intlist(Tensor(a) self, int[] source, int[] destination) -> Tensor(a)"""
    rank = b.rank(x)
    target = {b.axis(d, rank): b.axis(s, rank) for s, d in zip(source, destination, strict=True)}
    rest = iter(axis for axis in range(rank) if axis not in target.values())
    return permute(b, x, [target[axis] if axis in target else next(rest) for axis in range(rank)])


# -- expanding ----------------------------------------------------------------------------------------


@lowers("torch.aten.expand", "torch.aten.expand_copy")
def expand(b: Builder, x: Tensor, size: list[Size], implicit: bool) -> Expr:
    """aten::expand(Tensor(a) self, SymInt[] size, *, bool implicit=False) -> Tensor(a)"""
    return broadcast_to(b, x, size)


@lowers("torch.aten.broadcast_to")
def broadcast_to(b: Builder, x: Tensor, size: list[Size]) -> Expr:
    """aten::broadcast_to(Tensor(a) self, SymInt[] size) -> Tensor(a)"""
    shape = b.shape(x)
    offset = len(size) - len(shape)
    if offset < 0:
        b.unsupported("fewer sizes than dimensions")
    wanted = [
        shape[i - offset] if isinstance(s, int) and s == -1 and i >= offset else s for i, s in enumerate(size)
    ]
    for have, want in zip(shape, wanted[offset:], strict=True):
        if isinstance(have, int) and isinstance(want, int) and have not in (1, want):
            b.unsupported(f"size {have} cannot expand to {want}")
    return expand_to(b, x, wanted)


@lowers("torch.aten.expand_as")
def expand_as(b: Builder, x: Tensor, other: Tensor) -> Expr:
    """aten::expand_as(Tensor(a) self, Tensor other) -> Tensor(a)"""
    return broadcast_to(b, x, b.shape(other))


def broadcast_shape(b: Builder, shapes: Sequence[Sequence[SizeLike]]) -> list[SizeLike]:
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


@lowers("torch.aten.broadcast_tensors")
def broadcast_tensors(b: Builder, tensors: list[Tensor]) -> list[Expr]:
    """aten::broadcast_tensors(Tensor[] tensors) -> Tensor[]"""
    shape = broadcast_shape(b, [b.shape(x) for x in tensors])
    return [expand_to(b, x, shape) for x in tensors]


@lowers("torch.aten.atleast_1d")
def atleast_1d(b: Builder, x: Tensor) -> Expr:
    """aten::atleast_1d(Tensor self) -> Tensor"""
    return x if b.rank(x) else b.reshape(x, [1])


@lowers("torch.aten.atleast_2d")
def atleast_2d(b: Builder, x: Tensor) -> Expr:
    """aten::atleast_2d(Tensor self) -> Tensor"""
    return x if b.rank(x) > 1 else b.reshape(x, [1, *(b.shape(x) or [1])])


@lowers("torch.aten.view.dtype", "torch.aten.view_copy.dtype")
def view_dtype(b: Builder, x: Tensor, dtype: DType) -> Expr:
    """aten::view.dtype(Tensor(a) self, ScalarType dtype) -> Tensor(a)"""
    source = b.dtype(x)
    if dtype == source:
        return x
    if tvm.DataType(dtype).bits != tvm.DataType(source).bits or "bool" in (dtype, source):
        b.unsupported("reinterpreting between dtypes of different width")
    return b.te(lambda v: te.compute(v.shape, lambda *i: tirx.reinterpret(dtype, v(*i)), name="view"), x)


# -- sizes --------------------------------------------------------------------------------------------


@lowers("torch.aten.size.int")
def size_int(b: Builder, x: Tensor, dim: int) -> SizeLike:
    """aten::size.int(Tensor self, int dim) -> int"""
    return b.shape(x)[b.axis(dim, b.rank(x))]


@lowers("torch.aten.size")
def size(b: Builder, x: Tensor) -> list[SizeLike]:
    """aten::size(Tensor self) -> int[]"""
    return b.shape(x)


@lowers("torch.aten.numel")
def numel(b: Builder, x: Tensor) -> SizeLike:
    """aten::numel(Tensor self) -> int"""
    return product(b.shape(x))


@lowers("torch.aten.dim")
def dim(b: Builder, x: Tensor) -> int:
    """aten::dim(Tensor self) -> int"""
    return b.rank(x)


@lowers("torch.aten.len.Tensor")
def len_tensor(b: Builder, x: Tensor) -> SizeLike:
    """aten::len.Tensor(Tensor t) -> int"""
    return b.shape(x)[0] if b.rank(x) else b.unsupported("a 0-d tensor has no length")


for _name, _function in {
    "torch.aten.squeeze.dims": squeeze_dims,
    "torch.aten.ravel": ravel,
    "torch.aten.movedim.intlist": movedim_intlist,
    "torch.aten.moveaxis.int": movedim,
    "torch.aten.moveaxis.intlist": movedim_intlist,
    "torch.aten.swapaxes": transpose,
    "torch.aten.swapdims": transpose,
    "torch.aten.mT": matrix_transpose,
    "torch.aten.mH": matrix_transpose,
    "torch.aten.adjoint": matrix_transpose,
    "torch.aten.view_as": reshape_as,
    "torch.aten.sym_size.int": size_int,
    "torch.aten.sym_numel": numel,
}.items():
    register(_name, _function, custom=True)
