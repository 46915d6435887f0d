"""Results whose sizes a formula gives for every size, where PyTorch's fake kernels settle for that of the example.

A fake kernel that computes in C++ asks for numbers and so makes a size constant, and one that is decomposed may divide
by a size that is 0. A rule gives the sizes of its op, and what it asks of those of the arguments; trying the op, as for
all others, finds what else there is to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import ceil, prod
from typing import Any

import sympy
import torch
from torch.utils import _pytree as pytree

aten = torch.ops.aten

Sizes = list[Any]
Found = tuple[Sizes, list[Any]] | tuple[Sizes, list[Any], torch.dtype] | None
Rule = Callable[..., Found]
"""From the arguments of an op to the sizes of its result, conditions, and its dtype if that is not the first
argument's; ``None`` where it does not apply.
"""

_RULES: dict[Any, Rule] = {}


def ruled(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, list[Any]] | None:
    """A fake result of an op and the conditions of its rule; ``None`` where there is no rule, or nothing unknown."""
    rule = _RULES.get(function)
    if rule is None:
        return None
    arguments = function._schema.arguments
    bound = {argument.name: argument.default_value for argument in arguments}
    bound |= {argument.name: value for argument, value in zip(arguments, args, strict=False)} | dict(kwargs)
    x = bound[arguments[0].name]
    if not any(isinstance(size, torch.SymInt) for size in [*x.shape, *pytree.tree_leaves([args, kwargs])]):
        return None
    found = rule(**bound)
    if found is None:
        return None
    sizes, conditions, *dtype = found
    wanted = [condition for condition in conditions if condition.free_symbols]
    if len(function._schema.returns) == 2:  # of windows: what is largest, and where
        return (x.new_empty(sizes), x.new_empty(sizes, dtype=torch.int64)), wanted
    if function in _VIEWS:
        return x.as_strided(sizes, _dense_strides(sizes), x.storage_offset()), wanted
    return x.new_empty(sizes, dtype=dtype[0] if dtype else x.dtype), wanted


def _rule(*functions: Any) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(functions, rule))
        return rule

    return register


def _expression(size: Any) -> Any:
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)


def _dense_strides(sizes: Sizes) -> Sizes:
    return [prod(sizes[axis + 1 :]) for axis in range(len(sizes))]


def _at_least(size: Any, number: int) -> Any:
    return sympy.Ge(_expression(size), number, evaluate=False)


def _divides(size: Any, factor: Any) -> Any:
    return sympy.Eq(sympy.Mod(_expression(size), _expression(factor)), 0)


# -- reshaping ---------------------------------------------------------------------------------------------


def _reshaped(x: torch.Tensor, shape: Sequence[Any]) -> Found:
    """Of a dense tensor; what lies otherwise is for PyTorch to say."""
    if not x.is_contiguous():
        return None
    total, inferred = prod(x.shape), [axis for axis, size in enumerate(shape) if _is(size, -1)]
    known = prod(size for axis, size in enumerate(shape) if axis not in inferred)
    if len(inferred) > 1 or _is(known, 0):
        return None
    if not inferred:
        fits = sympy.Eq(_expression(total), _expression(known))
        return list(shape), [fits, *(_at_least(size, 0) for size in shape)]
    sizes = [total // known if axis in inferred else size for axis, size in enumerate(shape)]
    return sizes, [_divides(total, known)]


def _is(size: Any, number: int) -> bool:
    return isinstance(size, int) and size == number


@_rule(aten.view.default, aten._unsafe_view.default)
def _view(*, self: torch.Tensor, size: Sequence[Any]) -> Found:
    return _reshaped(self, size)


@_rule(aten.reshape.default)
def _reshape(*, self: torch.Tensor, shape: Sequence[Any]) -> Found:
    return _reshaped(self, shape)


@_rule(aten.view_as.default, aten.reshape_as.default)
def _view_as(*, self: torch.Tensor, other: torch.Tensor) -> Found:
    return _reshaped(self, other.shape)


_VIEWS = (
    *(aten.view.default, aten._unsafe_view.default, aten.reshape.default),
    *(aten.view_as.default, aten.reshape_as.default),
)


# -- images ------------------------------------------------------------------------------------------------


@_rule(aten.pixel_unshuffle.default)
def _pixel_unshuffle(*, self: torch.Tensor, downscale_factor: int) -> Found:
    if self.dim() < 3 or downscale_factor < 1:
        return None
    *batch, channels, height, width = self.shape
    sizes = [*batch, channels * downscale_factor**2, height // downscale_factor, width // downscale_factor]
    return sizes, [_divides(size, downscale_factor) for size in (height, width)]


def _scaled(size: Any, factor: float) -> Any:
    """``int(size * factor)``, in integers where that is exact."""
    top, bottom = float(factor).as_integer_ratio()
    return size * top // bottom if abs(top) <= _EXACT and bottom <= _EXACT else torch.sym_int(size * factor)


_EXACT = 1 << 20


def _upsample(*, input: torch.Tensor, output_size: Any, scale_factors: Any, **_: Any) -> Found:
    if output_size is not None:
        return _upsample_to(self=input, output_size=output_size)
    if input.dim() != len(scale_factors) + 2:
        return None
    pairs = list(zip(input.shape[2:], scale_factors, strict=True))
    # what the new sizes ask, of the old ones: a rounded product has no form in the dialect
    wanted = [_at_least(size, ceil(1 / factor)) for size, factor in pairs if factor > 0]
    return [*input.shape[:2], *(_scaled(size, factor) for size, factor in pairs)], wanted


def _upsample_to(*, self: torch.Tensor, output_size: Any, **_: Any) -> Found:
    shape = [*self.shape[:2], *output_size]
    return (shape, [_at_least(size, 1) for size in shape[1:]]) if self.dim() == len(shape) else None


_UPSAMPLES = (
    *(f"{kind}{count}d" for kind in ("upsample_nearest", "_upsample_nearest_exact") for count in (1, 2, 3)),
    "upsample_linear1d",
    "upsample_bilinear2d",
    "upsample_trilinear3d",
    "upsample_bicubic2d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
)
for _name in _UPSAMPLES:
    _rule(getattr(aten, _name).vec)(_upsample)
    _rule(getattr(aten, _name).default)(_upsample_to)


def _places(size: Any, kernel: int, stride: int, padding: int, dilation: int) -> Any:
    """Where a window fits along a dimension."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _each(values: Sequence[int], count: int) -> list[int]:
    return list(values) * (count if len(values) == 1 else 1)


@_rule(aten.convolution.default, aten._convolution.default, aten._convolution.deprecated)
def _convolution(
    *,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool = False,
    output_padding: Sequence[int] = (0,),
    groups: int = 1,
    **_: Any,
) -> Found:
    count = input.dim() - 2
    if count < 1 or weight.dim() != input.dim() or input.dtype != weight.dtype or groups < 1:
        return None
    if (
        isinstance(input.shape[1], int) and not input.shape[1]
    ):  # PyTorch's result has no channels then, whatever the weight says
        return None
    lists = [_each(values, count) for values in (stride, padding, dilation, output_padding)]
    if any(len(values) != count for values in lists) or min(lists[0]) < 1:
        return None
    sizes, kernels = input.shape[2:], weight.shape[2:]
    if transposed:
        channels, takes = weight.shape[1] * groups, weight.shape[0]
        places = [
            (size - 1) * s - 2 * p + d * (k - 1) + o + 1
            for size, k, s, p, d, o in zip(sizes, kernels, *lists, strict=True)
        ]
    else:
        channels, takes = weight.shape[0], weight.shape[1] * groups
        places = [_places(size, k, s, p, d) for size, k, s, p, d, _ in zip(sizes, kernels, *lists, strict=True)]
    fits = [sympy.Eq(_expression(input.shape[1]), _expression(takes)), _divides(weight.shape[0], groups)]
    fits.append(_at_least(input.shape[1], 1))
    if bias is not None:
        fits.append(sympy.Eq(_expression(bias.shape[0]), _expression(channels)))
    return [input.shape[0], channels, *places], [*fits, *(_at_least(place, 1) for place in places)]


_CONVOLUTIONS = {
    **{getattr(aten, f"conv{count}d").default: False for count in (1, 2, 3)},
    aten.conv_transpose1d.default: True,
    aten.conv_transpose2d.input: True,
    aten.conv_transpose3d.input: True,
}


for _op, _is_transposed in _CONVOLUTIONS.items():
    _rule(_op)(partial(_convolution, transposed=_is_transposed))


@_rule(aten._convolution_mode.default, *(getattr(aten, f"conv{count}d").padding for count in (1, 2, 3)))
def _padded_convolution(*, padding: str, **arguments: Any) -> Found:
    x, dilation = arguments["input"], arguments["dilation"]
    found = _convolution(padding=(0,), **arguments)
    if found is None or padding == "valid":
        return found
    kernels = zip(arguments["weight"].shape[2:], _each(dilation, x.dim() - 2), strict=True)
    sizes = [size + step * (k - 1) for size, (k, step) in zip(x.shape[2:], kernels, strict=True)]
    return _convolution(padding=(0,), **{**arguments, "input": x.new_empty([*x.shape[:2], *sizes])})


def _pool(
    count: int,
    *,
    self: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] = (1,),
    ceil_mode: bool,
    **_: Any,
) -> Found:
    """With ``ceil_mode`` the last window may end outside, and starts inside or in the padding before."""
    lists = [_each(values, count) for values in (kernel_size, stride or kernel_size, padding, dilation)]
    if self.dim() not in (count + 1, count + 2) or any(len(values) != count for values in lists) or min(lists[1]) < 1:
        return None
    sizes, wanted = [], []
    for size, k, s, p, d in zip(self.shape[-count:], *lists, strict=True):
        places = _places(size + (s - 1 if ceil_mode else 0), k, s, p, d)
        wanted.append(_at_least(places, 1))
        sizes.append(torch.sym_min(places, (size + p - 1) // s + 1) if ceil_mode else places)
    return [*self.shape[:-count], *sizes], [
        *wanted,
        *(_at_least(size, 1) for size in self.shape[-count - 1 :]),
    ]


for _count in (1, 2, 3):
    for _name in (
        f"max_pool{_count}d",
        f"avg_pool{_count}d",
        *([f"max_pool{_count}d_with_indices"] if _count > 1 else []),
    ):
        _rule(getattr(aten, _name).default)(partial(_pool, _count))


@_rule(aten.im2col.default)
def _im2col(
    *,
    self: torch.Tensor,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Found:
    if self.dim() not in (3, 4):
        return None
    *batch, channels, height, width = self.shape
    windows = zip((height, width), kernel_size, stride, padding, dilation, strict=True)
    blocks = [_places(*window) for window in windows]
    return [*batch, channels * prod(kernel_size), prod(blocks)], [_at_least(block, 1) for block in blocks]


@_rule(aten.col2im.default)
def _col2im(*, self: torch.Tensor, output_size: Sequence[Any], kernel_size: Sequence[int], **_: Any) -> Found:
    *batch, channels, blocks = self.shape
    if self.dim() not in (2, 3) or isinstance(blocks, torch.SymInt):
        return None
    factor = prod(kernel_size)
    return [*batch, channels // factor, *output_size], [_divides(channels, factor)]


def _baddbmm(self: torch.Tensor, batch1: torch.Tensor, batch2: torch.Tensor, **_: Any) -> torch.Tensor:
    return self + batch1 @ batch2


def _convolution_backward(*args: Any, **kwargs: Any) -> Any:
    """A bias whose sizes are not told has those of its gradient."""
    bound = dict(zip((each.name for each in aten.convolution_backward.default._schema.arguments), args, strict=False))
    bound |= kwargs
    if bound["bias_sizes"] is None:
        bound["bias_sizes"] = [bound["grad_output"].shape[1]]
    return aten.convolution_backward.default(**bound)


ALIKE: Mapping[Any, Callable[..., Any]] = {
    aten.baddbmm.default: _baddbmm,
    aten.convolution_backward.default: _convolution_backward,
    aten.trace.default: lambda self: self.sum(),
}
"""For ops whose fake kernel does not take some unknown sizes, another computation with results of the same sizes."""

# -- several operands --------------------------------------------------------------------------------------


@_rule(aten.add.Scalar, aten.sub.Scalar)
def _with_number(*, self: torch.Tensor, other: Any, **_: Any) -> Found:
    """Where the number changes the dtype: the fake kernel converts the tensor, as one of known sizes."""
    dtype = torch.result_type(self, other)
    return None if dtype == self.dtype else (list(self.shape), [], dtype)


@_rule(aten.fft_rfft.default)
def _rfft(*, self: torch.Tensor, n: Any, dim: int, **_: Any) -> Found:
    if (not isinstance(n, int) and n is not None) or not -self.dim() <= dim < self.dim() or self.is_complex():
        return None
    size, axis = self.shape[dim] if n is None else n, dim % self.dim()
    real = self.dtype if self.is_floating_point() else torch.get_default_dtype()
    dtype = real.to_complex()
    return [*self.shape[:axis], size // 2 + 1, *self.shape[axis + 1 :]], [_at_least(size, 1)], dtype


@_rule(aten.addcmul.default, aten.addcdiv.default, aten.lerp.Tensor)
def _of_three(*, self: torch.Tensor, **others: Any) -> Found:
    operands = [other for other in others.values() if isinstance(other, torch.Tensor)]
    if any(other.dtype != self.dtype for other in operands):
        return None
    return list(sum(operands, self).shape), []


@_rule(aten.take_along_dim.default)
def _take_along_dim(*, self: torch.Tensor, indices: torch.Tensor, dim: int | None) -> Found:
    rank = self.dim()
    if dim is None or rank != indices.dim() or not -rank <= dim < rank:
        return None
    sizes, wanted = [], []
    for axis, (own, other) in enumerate(zip(self.shape, indices.shape, strict=True)):
        if axis != dim % rank and not _is(own, 1) and not _is(other, 1):
            wanted.append(sympy.Eq(_expression(own), _expression(other)))
        sizes.append(other if axis == dim % rank or _is(own, 1) else own)
    return sizes, wanted


@_rule(aten.diagonal_scatter.default)
def _diagonal_scatter(*, self: torch.Tensor, src: torch.Tensor, offset: int, dim1: int, dim2: int) -> Found:
    rank = self.dim()
    if rank < 2 or src.dim() != rank - 1 or any(not -rank <= dim < rank for dim in (dim1, dim2)):
        return None
    if dim1 % rank == dim2 % rank:
        return None
    kept = [size for axis, size in enumerate(self.shape) if axis not in (dim1 % rank, dim2 % rank)]
    rows, columns = _expression(self.shape[dim1]), _expression(self.shape[dim2])
    length = sympy.Max(sympy.Min(rows + min(offset, 0), columns - max(offset, 0)), 0)
    wanted = [sympy.Eq(*map(_expression, pair)) for pair in zip(src.shape, kept, strict=False)]
    own = _expression(src.shape[-1])  # two bounds: a size that is a minimum of two is no size of an argument
    return list(self.shape), [*wanted, sympy.Ge(own, length), sympy.Le(own, length)]


# -- padding -----------------------------------------------------------------------------------------------


def _padded(x: torch.Tensor, pad: Sequence[Any]) -> Found:
    are_numbers = all(isinstance(each, (int, torch.SymInt)) for each in pad)
    if len(pad) % 2 or len(pad) > 2 * x.dim() or not are_numbers:
        return None
    sizes, wanted = list(x.shape), []
    for place in range(0, len(pad), 2):
        axis, before, after = x.dim() - 1 - place // 2, *pad[place : place + 2]
        # What is negative cuts: neither of the two, nor both together, may cut more than there is.
        cuts = [each if isinstance(each, torch.SymInt) else min(each, 0) for each in (before, after)]
        wanted += [_at_least(sizes[axis] + cut, 0) for cut in (*cuts, sum(cuts))]
        sizes[axis] = sizes[axis] + before + after
    return sizes, wanted


@_rule(aten.constant_pad_nd.default)
def _constant_pad(*, self: torch.Tensor, pad: Sequence[Any], **_: Any) -> Found:
    return _padded(self, pad)


@_rule(aten.pad.default)
def _pad(*, self: torch.Tensor, pad: Sequence[Any], mode: str, **_: Any) -> Found:
    return _padded(self, pad) if mode == "constant" else None


__all__ = ["ALIKE", "ruled"]
