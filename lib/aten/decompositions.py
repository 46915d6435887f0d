"""Ops in terms of other ops, where PyTorch has no decomposition, a wrong one, or one that asks for a tensor's values.

Each function takes what its op takes. Errors for values are assertions, which a compiled program keeps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decompositions as rnn

from torch_tvm.aten.gradients import GRADIENTS
from torch_tvm.aten.recurrent_layers import recurrent_layers

aten, prims = torch.ops.aten, torch.ops.prims
Function = Callable[..., Any]


def _demand(condition: Tensor, message: str) -> None:
    aten._assert_async.msg(condition, message)


# -- statistics ----------------------------------------------------------------------------------------


def cov(x: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None) -> Tensor:
    """aten::cov(Tensor self, *, int correction=1, Tensor? fweights=None, Tensor? aweights=None) -> Tensor"""
    rows = x.reshape(1, -1) if x.dim() < 2 else x
    for name, each in (("fweights", fweights), ("aweights", aweights)):
        if each is not None:
            _demand((each >= 0).all(), f"cov(): {name} cannot be negative")
    weights = [each for each in (fweights, aweights) if each is not None]
    weight = math.prod(weights[1:], start=weights[0]) if weights else None
    if weight is None:
        total = torch.full((), rows.shape[1], dtype=torch.int64)
        average = rows.sum(1) / total
    else:
        total = weight.sum()
        _demand(total != 0, "cov(): weights sum to zero, can't be normalized")
        average = (rows * weight).sum(1) / total
    if weight is not None and aweights is not None and correction != 0:
        factor = total - correction * (weight * aweights).sum() / total
    else:
        factor = total - correction
    centred = rows - average.unsqueeze(1)
    product = centred @ (centred if weight is None else centred * weight).mH
    return (product / factor.clamp_min(0)).squeeze()


def corrcoef(x: Tensor) -> Tensor:
    """aten::corrcoef(Tensor self) -> Tensor"""
    found = cov(x)
    if found.dim() == 0:
        return found / found
    deviation = found.diagonal().real.sqrt()
    value = found / deviation.unsqueeze(1) / deviation
    return torch.complex(value.real.clamp(-1, 1), value.imag.clamp(-1, 1)) if value.is_complex() else value.clamp(-1, 1)


def combinations(x: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """aten::combinations(Tensor self, int r=2, bool with_replacement=False) -> Tensor"""
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    if r == 0:
        return x.new_empty(0)
    places = list(choose(range(x.shape[0]), r))
    return x[torch.tensor(places, dtype=torch.int64).reshape(len(places), r)]


def cosine_similarity(x: Tensor, y: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """aten::cosine_similarity(Tensor x1, Tensor x2, int dim=1, float eps=1e-08) -> Tensor"""
    rank = max(x.dim(), y.dim())
    wide = [each.reshape([1] * (rank - each.dim()) + list(each.shape)) for each in (x, y)]
    scaled = [each / torch.linalg.vector_norm(each, 2, dim, True).clamp_min(eps) for each in wide]
    return (scaled[0] * scaled[1]).sum(dim)


def dist(x: Tensor, y: Tensor, p: float = 2) -> Tensor:
    """aten::dist(Tensor self, Tensor other, Scalar p=2) -> Tensor"""
    return torch.linalg.vector_norm(x - y, p)


def pdist(x: Tensor, p: float = 2) -> Tensor:
    """aten::pdist(Tensor self, float p=2) -> Tensor"""
    rows = torch.arange(x.shape[0])
    starts = rows * (2 * x.shape[0] - 1 - rows) // 2  # where the pairs of each row begin
    pairs = torch.arange(x.shape[0] * (x.shape[0] - 1) // 2)
    first = torch.searchsorted(starts, pairs, right=True) - 1
    second = pairs - starts[first] + first + 1
    return torch.linalg.vector_norm(x[first] - x[second], p, 1)


# -- products ------------------------------------------------------------------------------------------


def inner(x: Tensor, y: Tensor) -> Tensor:
    """aten::inner(Tensor self, Tensor other) -> Tensor"""
    if x.dim() == 0 or y.dim() == 0:
        return x * y
    return tensordot(x, y, [-1], [-1])


def tensordot(x: Tensor, y: Tensor, dims_self: Sequence[int], dims_other: Sequence[int]) -> Tensor:
    """aten::tensordot(Tensor self, Tensor other, int[] dims_self, int[] dims_other) -> Tensor"""
    (left, kept), (right, other) = _contracted(x, dims_self), _contracted(y, dims_other)
    rows = x.permute(kept + left).reshape(_count(x, kept), _count(x, left))
    columns = y.permute(right + other).reshape(_count(y, right), _count(y, other))
    return (rows @ columns).reshape([x.shape[dim] for dim in kept] + [y.shape[dim] for dim in other])


def _count(x: Tensor, dims: Sequence[int]) -> int:
    return math.prod(x.shape[dim] for dim in dims)


def _contracted(x: Tensor, dims: Sequence[int]) -> tuple[list[int], list[int]]:
    """Dimensions from the front that a product sums over, and the others."""
    summed = [dim % x.dim() for dim in dims]
    return summed, [dim for dim in range(x.dim()) if dim not in summed]


# -- areas under curves ----------------------------------------------------------------------------------


def trapezoid(y: Tensor, *, dx: float = 1, dim: int = -1) -> Tensor:
    """aten::trapezoid.dx(Tensor y, *, Scalar dx=1, int dim=-1) -> Tensor"""
    return _heights(y, dim).sum(dim) * (dx / 2.0)


def trapezoid_x(y: Tensor, x: Tensor, *, dim: int = -1) -> Tensor:
    """aten::trapezoid.x(Tensor y, Tensor x, *, int dim=-1) -> Tensor"""
    return (_widths(y, x, dim) * _heights(y, dim)).sum(dim) / 2.0


def cumulative_trapezoid(y: Tensor, *, dx: float = 1, dim: int = -1) -> Tensor:
    """aten::cumulative_trapezoid.dx(Tensor y, *, Scalar dx=1, int dim=-1) -> Tensor"""
    return _heights(y, dim).cumsum(dim) * (dx / 2.0)


def cumulative_trapezoid_x(y: Tensor, x: Tensor, *, dim: int = -1) -> Tensor:
    """aten::cumulative_trapezoid.x(Tensor y, Tensor x, *, int dim=-1) -> Tensor"""
    return (_widths(y, x, dim) * _heights(y, dim)).cumsum(dim) / 2.0


def _heights(y: Tensor, dim: int) -> Tensor:
    """The sum of each two that are next to each other; of nothing, nothing."""
    return aten.slice(y, dim, 0, -1) + _later(y, dim)


def _later(x: Tensor, dim: int) -> Tensor:
    """All but the first along a dimension: ``x[1:]``, with its size spelled as that of ``x[:-1]``."""
    return x.index_select(dim, _places_but_one(x.shape[dim]) + 1)


def _places_but_one(size: int) -> Tensor:
    return torch.arange(torch.sym_max(size - 1, 0))


def _widths(y: Tensor, x: Tensor, dim: int) -> Tensor:
    """The distance of each two; of a vector, along dimension ``dim`` of ``y``."""
    size = y.shape[dim]
    if x.dim() == 1 and y.dim() > 1 and dim % y.dim() < y.dim() - 1:
        x, dim = x.reshape([x.shape[0]] + [1] * (y.dim() - 1 - dim % y.dim())), 0
    if x.dim() < y.dim() and dim > 0:
        x = x.reshape([1] * (y.dim() - x.dim()) + list(x.shape))
    torch._check(x.shape[dim] == size, lambda: "trapezoid: there must be one x for each y")
    places = _places_but_one(size)
    return x.index_select(dim, places + 1) - x.index_select(dim, places)


# -- places --------------------------------------------------------------------------------------------


def fftshift(x: Tensor, dim: Sequence[int] | None = None) -> Tensor:
    """aten::fft_fftshift(Tensor self, int[1]? dim=None) -> Tensor"""
    return _turned(x, dim, lambda size: (size + 1) // 2)


def ifftshift(x: Tensor, dim: Sequence[int] | None = None) -> Tensor:
    """aten::fft_ifftshift(Tensor self, int[1]? dim=None) -> Tensor"""
    return _turned(x, dim, lambda size: size // 2)


def _turned(x: Tensor, dim: Sequence[int] | None, first: Callable[[Any], Any]) -> Tensor:
    """``x`` with the element at ``first(size)`` in front, along each of some dimensions."""
    for axis in range(x.dim()) if dim is None else dim:
        size = x.shape[axis]
        places = torch.arange(size) + first(size)
        x = x.index_select(axis, torch.where(places < size, places, places - size))
    return x


def one_hot(x: Tensor, num_classes: int = -1) -> Tensor:
    """aten::one_hot(Tensor self, int num_classes=-1) -> Tensor"""
    if num_classes != -1:
        return torch.ops.aten.one_hot.default(x, num_classes)
    _demand((x >= 0).all(), "Class values must be non-negative.")
    count: Any = x.max().item() + 1
    torch._check(count >= 1)
    return (x.unsqueeze(-1) == torch.arange(count)).to(torch.int64)


# -- losses --------------------------------------------------------------------------------------------


def _reduced(losses: Tensor, reduction: int) -> Tensor:
    """``losses`` as ``reduction`` says: 0 none, 1 mean, 2 sum."""
    return losses if reduction == 0 else losses.mean() if reduction == 1 else losses.sum()


def cross_entropy_loss(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: int = 1,
    ignore_index: Any = -100,
    label_smoothing: float = 0.0,
) -> Tensor:
    """aten::cross_entropy_loss(Tensor self, Tensor target, Tensor? weight=None, int reduction=Mean, …) -> Tensor"""
    dim = min(1, x.dim() - 1)
    scores = x.log_softmax(dim)
    classes = [-1 if axis == dim else 1 for axis in range(x.dim())]
    weighted = scores if weight is None else scores * weight.reshape(classes)
    if target.dim() == x.dim():
        if label_smoothing != 0:
            target = target * (1 - label_smoothing) + label_smoothing / x.shape[dim]
        losses = -(weighted * target).sum(dim)
        if reduction != 1:
            return _reduced(losses, reduction)
        count = torch.full((), math.prod(size for axis, size in enumerate(x.shape) if axis != dim), dtype=x.dtype)
        return losses.sum() / torch.where(torch.full((), x.shape[dim]) == 0, math.nan, count)
    is_kept = target != ignore_index
    labels = torch.where(is_kept, target, 0)
    worth = is_kept.to(x.dtype) if weight is None else torch.where(is_kept, weight[labels], 0)
    losses = -scores.gather(dim, labels.unsqueeze(dim)).squeeze(dim) * worth
    if label_smoothing != 0:
        smooth = torch.where(is_kept, -weighted.sum(dim), 0)
        losses = losses * (1 - label_smoothing) + smooth * (label_smoothing / x.shape[dim])
    return losses.sum() / worth.sum() if reduction == 1 else _reduced(losses, reduction)


def multi_margin_loss(
    x: Tensor,
    target: Tensor,
    p: float = 1,
    margin: float = 1,
    weight: Tensor | None = None,
    reduction: int = 1,
) -> Tensor:
    """aten::multi_margin_loss(Tensor self, Tensor target, Scalar p=1, Scalar margin=1, Tensor? weight=None, …)"""
    rows, labels = x.reshape(-1, x.shape[-1]) if x.dim() else x.reshape(1, 1), target.reshape(-1, 1)
    excess = margin - rows.gather(1, labels) + rows
    losses = torch.where(excess > 0, excess if p == 1 else excess * excess, 0)
    if weight is not None:
        losses = losses * weight[labels]
    own = torch.arange(rows.shape[1]) == labels
    losses = torch.where(own, 0, losses).sum(1) / rows.shape[1]
    return _reduced(losses.reshape(target.shape) if reduction == 0 else losses, reduction)


def multilabel_margin_loss_forward(x: Tensor, target: Tensor, reduction: int) -> tuple[Tensor, Tensor]:
    """aten::multilabel_margin_loss_forward(Tensor self, Tensor target, int reduction) -> (Tensor, Tensor is_target)"""
    count = x.shape[-1] if x.dim() else 1
    rows, labels = x.reshape(-1, count), target.reshape(-1, count)
    counts = (labels < 0).to(torch.int64).cumsum(1) == 0  # labels after the first -1 are none
    labels = torch.where(counts, labels, 0)
    is_target = ((labels.unsqueeze(2) == torch.arange(count)) & counts.unsqueeze(2)).any(1)
    excess = 1 - rows.gather(1, labels).unsqueeze(2) + rows.unsqueeze(1)
    adds = counts.unsqueeze(2) & ~is_target.unsqueeze(1) & (excess > 0)
    losses = torch.where(adds, excess, 0).sum((1, 2)) / count
    losses = losses.reshape(x.shape[:-1]) if reduction == 0 else losses
    return _reduced(losses, reduction), is_target.to(x.dtype).reshape(target.shape)


def multilabel_margin_loss(x: Tensor, target: Tensor, reduction: int = 1) -> Tensor:
    """aten::multilabel_margin_loss(Tensor self, Tensor target, int reduction=Mean) -> Tensor"""
    return multilabel_margin_loss_forward(x, target, reduction)[0]


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """``torch.nn.functional.gaussian_nll_loss``, which asks whether a variance is negative."""
    if isinstance(var, (int, float)):
        var = var * torch.ones_like(input)
    _demand(~(var < 0).any(), "var has negative entry/entries")
    if var.size() != input.size():
        if input.size()[:-1] == var.size():
            var = torch.unsqueeze(var, -1)
        elif not (input.dim() == var.dim() and all(v in (i, 1) for i, v in zip(input.shape, var.shape, strict=True))):
            raise ValueError("var is of incorrect size")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(reduction + " is not valid")
    bounded = var.clamp(min=eps)
    loss = 0.5 * (torch.log(bounded) + (input - target) ** 2 / bounded)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return _reduced(loss, ("none", "mean", "sum").index(reduction))


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: int = 1,
    zero_infinity: bool = False,
) -> Tensor:
    """aten::ctc_loss.Tensor(Tensor log_probs, Tensor targets, Tensor input_lengths, Tensor target_lengths, …)"""
    is_batch = log_probs.dim() == 3
    scores = log_probs if is_batch else log_probs.unsqueeze(1)
    of_tensors = isinstance(target_lengths, Tensor)
    counts = target_lengths.reshape(-1) if of_tensors else torch.tensor(target_lengths)
    times = input_lengths.reshape(-1) if of_tensors else input_lengths
    given = (scores, targets, times, counts if of_tensors else target_lengths, blank, zero_infinity)
    losses = (aten._ctc_loss.Tensor if of_tensors else aten._ctc_loss.default)(*given)[0]
    if zero_infinity:
        losses = torch.where(losses == math.inf, 0, losses)
    if reduction == 1:
        losses = losses / counts.clamp_min(1)
    return _reduced(losses if is_batch or reduction else losses.squeeze(0), reduction)


def _ctc_loss_of_tensors(
    log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, *options: Any, **named: Any
) -> Tensor:
    """``torch.nn.functional.ctc_loss``, which reads lists of lengths, with tensors of them."""
    lengths = (torch.as_tensor(each, dtype=torch.int64) for each in (input_lengths, target_lengths))
    return torch.nn.functional.ctc_loss(log_probs, targets, *lengths, *options, **named)


# -- several tensors, and numbers that only the run knows ---------------------------------------------------


def _each(overload: torch._ops.OpOverload, packet: Any) -> Function:
    """An op on each tensor of a list, and on what other lists have in its place."""
    arguments = overload._schema.arguments
    is_list = [str(argument.type).startswith("List[") for argument in arguments]

    def call(*given: Any, **named: Any) -> list[Tensor]:
        pick = lambda i: [each[i] if many else each for each, many in zip(given, is_list, strict=False)]
        return [packet(*pick(i), **named) for i in range(len(given[0]))]

    return call


def _foreach() -> dict[torch._ops.OpOverload, Function]:
    """``aten::_foreach_add.List`` and its kin, for what gives a list and has an op of the same name."""
    found: dict[torch._ops.OpOverload, Function] = {}
    for base, function in _EACH.items():
        packet = getattr(aten, f"_foreach_{base}")
        for overload in (getattr(packet, each) for each in packet.overloads()):
            if not overload._schema.is_mutable and len(overload._schema.returns) == 1:
                found[overload] = _each(overload, function)
    return found


_EACH: dict[str, Function] = {
    **{
        name: getattr(torch, name)
        for name in "abs acos asin atan ceil cos cosh erf erfc exp expm1 floor frac log log10 log1p log2 neg "
        "reciprocal round rsqrt sigmoid sign sin sinh sqrt tan tanh trunc add sub mul div pow lerp lgamma".split()
    },
    "norm": lambda x, p=2, dtype=None: torch.linalg.vector_norm(x, p, dtype=dtype),
    "addcmul": lambda x, a, b, value=1: torch.addcmul(x, a, b, value=value),
    "addcdiv": lambda x, a, b, value=1: torch.addcdiv(x, a, b, value=value),
    "clamp_min": torch.clamp_min,
    "clamp_max": torch.clamp_max,
    "maximum": torch.clamp_min,
    "minimum": torch.clamp_max,
}


def lcm(a: Tensor, b: Tensor) -> Tensor:
    """aten::lcm(Tensor self, Tensor other) -> Tensor"""
    shared = torch.gcd(a, b)
    return (torch.div(a, torch.where(shared == 0, 1, shared), rounding_mode="trunc") * b).abs()


def bilinear(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """aten::bilinear(Tensor input1, Tensor input2, Tensor weight, Tensor? bias=None) -> Tensor

    Two products of matrices, in eager's order: of ``x`` (…, n) and ``weight`` (out, n, m), and of that and ``y`` (…,
    m).
    """
    count, (out, n, m) = math.prod(x.shape[:-1]), weight.shape
    half = x.reshape(count, n) @ weight.permute(1, 0, 2).reshape(n, out * m)
    result = (half.reshape(count, out, m) @ y.reshape(count, m, 1)).reshape(*x.shape[:-1], out)
    return result if bias is None else result + bias


def isin(elements: Tensor, test_elements: Tensor, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """aten::isin.Tensor_Tensor(Tensor elements, Tensor test_elements, *, bool assume_unique=False, …) -> Tensor"""
    found = (elements.unsqueeze(-1) == test_elements.reshape(-1)).any(-1)
    return found.logical_not() if invert else found


def _shift(overload: torch._ops.OpOverload) -> Function:
    """``x << n`` and ``x >> n`` of tensors and numbers, by the form for two tensors."""

    def shift(x: Any, other: Any) -> Tensor:
        dtype = torch.result_type(x, other)
        a, b = (each if isinstance(each, Tensor) else torch.full((), each, dtype=dtype) for each in (x, other))
        return overload(a.to(dtype), b.to(dtype))

    return shift


def _shifts() -> dict[torch._ops.OpOverload, Function]:
    found: dict[torch._ops.OpOverload, Function] = {}
    for side in ("left", "right"):
        packet = getattr(aten, f"bitwise_{side}_shift")
        function = _shift(packet.Tensor)
        operator = getattr(aten, f"__{side[0]}shift__")
        found |= dict.fromkeys((operator.Scalar, operator.Tensor, packet.Tensor_Scalar, packet.Scalar_Tensor), function)
    return found


def fake_quantize_per_channel(
    x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, quant_min: int, quant_max: int
) -> Tensor:
    """aten::fake_quantize_per_channel_affine(Tensor self, Tensor scale, Tensor zero_point, int axis, …) -> Tensor"""
    sizes = [-1 if each == axis % x.dim() else 1 for each in range(x.dim())]
    by, offset = scale.reshape(sizes), zero_point.reshape(sizes).to(x.dtype)
    moved = torch.round(x * (1 / by)) + offset
    return (moved.clamp(quant_min, quant_max) - offset) * by


def new_empty_strided(
    x: Tensor, size: Sequence[Any], stride: Sequence[Any], *, dtype: torch.dtype | None = None, **_: Any
) -> Tensor:
    """aten::new_empty_strided(Tensor self, SymInt[] size, SymInt[] stride, *, ScalarType? dtype=None, …) -> Tensor"""
    return x.new_zeros(size, dtype=dtype)


def copysign_scalar(x: Tensor, other: Any) -> Tensor:
    """aten::copysign.Scalar(Tensor self, Scalar other) -> Tensor"""
    dtype = x.dtype if x.is_floating_point() else torch.float32
    return torch.copysign(x, torch.full((), float(other), dtype=dtype))


def scatter_value(x: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """aten::scatter.value(Tensor self, int dim, Tensor index, Scalar value) -> Tensor"""
    return x.scatter(dim, index, torch.full(index.shape, value, dtype=x.dtype))


# -- primitives ----------------------------------------------------------------------------------------


def _broadcast_in_dim(a: Tensor, shape: Sequence[Any], dimensions: Sequence[int]) -> Tensor:
    sizes: list[Any] = [1] * len(shape)
    for size, place in zip(a.shape, dimensions, strict=True):
        sizes[place] = size
    return a.reshape(sizes).expand(list(shape))


def _collapse(a: Tensor, start: int, end: int) -> Tensor:
    return a.flatten(start, end) if a.dim() else a.reshape(1)


def _split_dim(a: Tensor, dim: int, outer: Any) -> Tensor:
    return a.reshape([*a.shape[:dim], outer, a.shape[dim] // outer, *a.shape[dim + 1 :]])


def _prod(a: Tensor, dims: Sequence[int] | None, *, output_dtype: torch.dtype | None = None) -> Tensor:
    for dim in sorted(range(a.dim()) if dims is None else dims, reverse=True):
        a = aten.prod.dim_int(a, dim, False, dtype=output_dtype or a.dtype)
    return a


def _sum(a: Tensor, dims: Sequence[int] | None, *, output_dtype: torch.dtype | None = None) -> Tensor:
    if dims is not None and not dims:
        return a.to(output_dtype or a.dtype)
    return aten.sum.dim_IntList(a, dims, False, dtype=output_dtype or a.dtype)


def _extreme(overload: torch._ops.OpOverload) -> Function:
    def reduce(a: Tensor, dims: Sequence[int] | None, *, output_dtype: torch.dtype | None = None) -> Any:
        return overload(a, list(range(a.dim()) if dims is None else dims)).to(output_dtype or a.dtype)

    return reduce


def _div(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _iota(length: Any, *, start: Any, step: Any, dtype: torch.dtype, device: Any, requires_grad: bool) -> Tensor:
    return torch.arange(length, dtype=torch.int64).mul(step).add(start).to(dtype)


_SAME = (
    "abs acos acosh asin asinh atan atanh cos cosh bitwise_not ceil digamma erf erfc exp expm1 exp2 floor isfinite "
    "lgamma log log1p log2 log10 neg reciprocal round sign signbit sin sinh sqrt tan tanh trunc rsqrt add atan2 "
    "bitwise_and bitwise_or bitwise_xor eq fmax fmin fmod ge gt hypot le lt maximum minimum mul ne nextafter "
    "pow remainder sub clone cat reshape"
).split()
"""Primitives that ATen has by the same name."""

_PRIMITIVES: dict[str, Function] = {
    "erf_inv": torch.erfinv,
    "shift_left": aten.bitwise_left_shift.Tensor,
    "shift_right_arithmetic": aten.bitwise_right_shift.Tensor,
    "cbrt": lambda a: a.sign() * a.abs().pow(1 / 3),
    "div": _div,
    "fill": aten.fill.Scalar,
    "broadcast_in_dim": _broadcast_in_dim,
    "collapse_view": _collapse,
    "collapse": _collapse,
    "split_dim": _split_dim,
    "squeeze": aten.squeeze.dims,
    "transpose": aten.permute.default,
    "rev": aten.flip.default,
    "where": aten.where.self,
    "device_put": lambda a, device, non_blocking=False: a.to(device),
    "copy_strided": lambda a, stride: a.clone(),
    "amax": _extreme(aten.amax.default),
    "amin": _extreme(aten.amin.default),
    "prod": _prod,
    "sum": _sum,
    "scalar_tensor": lambda s, *, dtype=None, device=None: torch.full((), s, dtype=dtype),
    "iota": _iota,
    "var": lambda a, dims, correction=1, *, output_dtype=None: aten.var.correction(a, dims, correction=correction),
}


def _with_tensor_first(packet: Any) -> Function:
    """An op of ATen for operands of which only the second has to be a tensor."""

    def call(first: Any, *others: Any, **named: Any) -> Any:
        if others and isinstance(others[0], Tensor) and isinstance(first, (bool, int, float)):
            first = torch.full((), first, dtype=others[0].dtype)
        return packet(first, *others, **named)

    return call


# -- layers --------------------------------------------------------------------------------------------


def transformer_encoder_layer(
    x: Tensor,
    width: int,
    heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    *weights: Tensor,
    mask: Tensor | None = None,
    mask_type: int | None = None,
) -> Tensor:
    """aten::_transformer_encoder_layer_fwd: what ``nn.TransformerEncoderLayer`` calls where nothing needs a gradient.

    ``weights`` are those of two norms and two linear layers, each with its bias, and after them perhaps the mask and
    its type: 0 for (L, L), 1 for (N, L), 2 for (N, heads, L, L).
    """
    first, second, up, down = [weights[i : i + 2] for i in range(0, 8, 2)]
    mask, mask_type = [*weights[8:], *(mask, mask_type)[len(weights) - 8 :]]
    norm = lambda x, pair: aten.layer_norm.default(x, [width], *pair, eps)

    def attended(x: Tensor) -> Tensor:
        parts = aten.linear.default(x, qkv_weight, qkv_bias).unflatten(-1, (3, heads, width // heads))
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        hidden = mask
        if hidden is not None:
            hidden = hidden.to(torch.bool)
            hidden = hidden[:, None, None, :] if mask_type == 1 else hidden
        shown = None if hidden is None else hidden.logical_not()
        values = aten.scaled_dot_product_attention.default(q, k, v, shown)
        return aten.linear.default(values.transpose(1, 2).flatten(2), out_weight, out_bias)

    def fed_forward(x: Tensor) -> Tensor:
        inner = aten.linear.default(x, *up)
        return aten.linear.default(aten.gelu.default(inner) if use_gelu else aten.relu.default(inner), *down)

    if norm_first:
        x = x + attended(norm(x, first))
        return x + fed_forward(norm(x, second))
    x = norm(x + attended(x), first)
    return norm(x + fed_forward(x), second)


def lstm(
    x: Tensor,
    hx: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """aten::lstm.input, step by step: PyTorch's own has an op of oneDNN for each layer, or forgets the dropout."""
    grouped = rnn.gather_params(params, has_biases, hx[0].shape[2] != hx[1].shape[2])
    states = list(zip(*hx, strict=True))
    rest = has_biases, num_layers, dropout, train, bidirectional, batch_first, rnn.one_layer_lstm
    x, final = recurrent_layers(x, states, grouped, *rest)
    hidden, cells = (torch.stack(column) for column in zip(*final, strict=True))
    return x, hidden, cells


LAYERS: dict[torch._ops.OpOverload, Function] = {aten._transformer_encoder_layer_fwd.default: transformer_encoder_layer}
"""For layers that PyTorch has one op for."""


def _table() -> dict[torch._ops.OpOverload, Function]:
    found: dict[torch._ops.OpOverload, Function] = {
        **LAYERS,
        **GRADIENTS,
        **_foreach(),
        aten.lcm.default: lcm,
        aten.bilinear.default: bilinear,
        **_shifts(),
        aten.fake_quantize_per_channel_affine.default: fake_quantize_per_channel,
        aten.new_empty_strided.default: new_empty_strided,
        aten.scatter.value: scatter_value,
        aten.lstm.input: lstm,
        aten.cov.default: cov,
        aten.corrcoef.default: corrcoef,
        aten.combinations.default: combinations,
        aten.copysign.Scalar: copysign_scalar,
        aten.ctc_loss.IntList: ctc_loss,
        aten.ctc_loss.Tensor: ctc_loss,
        aten.isin.Tensor_Tensor: isin,
        aten.dist.default: dist,
        aten.inner.default: inner,
        aten.tensordot.default: tensordot,
        aten.trapezoid.dx: trapezoid,
        aten.trapezoid.x: trapezoid_x,
        aten.trapz.dx: trapezoid,
        aten.trapz.x: trapezoid_x,
        aten.cumulative_trapezoid.dx: cumulative_trapezoid,
        aten.cumulative_trapezoid.x: cumulative_trapezoid_x,
        aten.cosine_similarity.default: cosine_similarity,
        aten.fft_fftshift.default: fftshift,
        aten.fft_ifftshift.default: ifftshift,
        aten.cross_entropy_loss.default: cross_entropy_loss,
        aten.pdist.default: pdist,
        aten._pdist_forward.default: pdist,
        aten.multi_margin_loss.default: multi_margin_loss,
        aten.multilabel_margin_loss_forward.default: multilabel_margin_loss_forward,
        aten.multilabel_margin_loss.default: multilabel_margin_loss,
    }
    same = {name: _with_tensor_first(getattr(aten, name)) for name in _SAME}
    for name, function in {**same, **_PRIMITIVES}.items():
        if hasattr(prims, name):
            found[getattr(prims, name).default] = function
    return found


DECOMPOSITIONS = _table()
"""The function for each op."""

WITHOUT_QUESTIONS: dict[Any, Function] = {
    aten.cov.default: cov,
    aten.corrcoef.default: corrcoef,
    aten.combinations.default: combinations,
    torch.cov: cov,
    torch.Tensor.cov: cov,
    torch.corrcoef: corrcoef,
    torch.Tensor.corrcoef: corrcoef,
    torch.combinations: combinations,
    aten.one_hot.default: one_hot,
    torch.nn.functional.one_hot: one_hot,
    aten.ctc_loss.IntList: ctc_loss,
    torch.nn.functional.ctc_loss: _ctc_loss_of_tensors,
    torch.nn.functional.gaussian_nll_loss: gaussian_nll_loss,
}
"""For functions that ask for a tensor's values, which an importer does not have, what gives the same without."""

__all__ = ["DECOMPOSITIONS", "LAYERS", "WITHOUT_QUESTIONS"]
