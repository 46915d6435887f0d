"""Max and average pooling, with fixed windows and adaptive ones.

Output sizes follow ATen: with ``ceil_mode`` the last window must still start inside the input or its left
padding. Relax gets that size as explicit padding after the input.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import tvm
from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.conversion import is_nan
from torch_tvm.lowering.ops.shapes.views import squeeze_at, unsqueeze_at
from torch_tvm.lowering.pointwise import larger
from torch_tvm.lowering.registry import Size, Tensor, lowers, register
from torch_tvm.tir import SizeLike, as_size, compute_dtype, is_float

R = relax.op
Expr: TypeAlias = relax.Expr
V = TypeVar("V")

_MAX_POOL = {1: R.nn.max_pool1d, 2: R.nn.max_pool2d, 3: R.nn.max_pool3d}
_WRITTEN_OUT = 32
"""Places in a window up to which a search for its largest is no loop."""

_AVG_POOL = {1: R.nn.avg_pool1d, 2: R.nn.avg_pool2d, 3: R.nn.avg_pool3d}


class Window:
    """Kernel, stride, padding and dilation per spatial dimension, and the sizes that follow from them."""

    def __init__(
        self,
        b: Builder,
        x: Expr,
        spatial: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        ceil_mode: bool,
    ) -> None:
        self.kernel = per_axis(kernel, spatial)
        self.stride = per_axis(stride, spatial) if stride else self.kernel
        self.padding = per_axis(padding, spatial)
        self.dilation = per_axis(dilation, spatial)
        if b.rank(x) not in (spatial + 1, spatial + 2):
            b.unsupported(f"an input of rank {b.rank(x)} for {spatial} dimensions")
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            b.unsupported("padding above half of the window")
        self.sizes = b.shape(x)[-spatial:]
        self.ceil_mode = ceil_mode
        self.output = [self._output(i) for i in range(spatial)]
        if any(isinstance(o, int) and o < 1 for o in self.output):
            b.unsupported("the output would be empty")
        for output in self.output:
            b.expect(as_size(output) >= 1, "the window is larger than the padded input")

    def _output(self, i: int) -> SizeLike:
        size, stride, pad = self.sizes[i], self.stride[i], self.padding[i]
        room = size + 2 * pad - self.dilation[i] * (self.kernel[i] - 1) - 1
        if not self.ceil_mode:
            return _floordiv(room, stride) + 1
        count = _floordiv(room + stride - 1, stride) + 1
        starts_outside = (count - 1) * stride >= size + pad
        if isinstance(starts_outside, bool):
            return count - 1 if starts_outside else count
        return tvm.sym.Analyzer().simplify(tirx.Select(starts_outside, count - 1, count))

    def pads_after(self) -> list[int] | None:
        """Padding after the input that gives the output size by flooring; ``None`` where it is not known."""
        if not self.ceil_mode:
            return list(self.padding)
        pads = []
        for i, (size, count) in enumerate(zip(self.sizes, self.output, strict=True)):
            if not isinstance(size, int) or not isinstance(count, int):
                return None
            extent = (count - 1) * self.stride[i] + self.dilation[i] * (self.kernel[i] - 1) + 1
            pads.append(max(self.padding[i], extent - size - self.padding[i]))
        return pads


def _floordiv(a: SizeLike, b: int) -> SizeLike:
    return a // b if isinstance(a, int) else tvm.sym.Analyzer().simplify(tirx.floordiv(a, b))


def per_axis(values: Sequence[V], count: int) -> list[V]:
    """A setting of a window for each of ``count`` spatial axes, where one number stands for all."""
    return list(values) * count if len(values) == 1 else list(values)


def _batched(b: Builder, x: Expr, spatial: int) -> tuple[Expr, bool]:
    batched = b.rank(x) == spatial + 2
    return (x if batched else unsqueeze_at(b, x, 0)), batched


def lowest(dtype: str) -> Any:
    """The identity of max: -inf, or the least integer."""
    return tirx.const(float("-inf"), dtype) if is_float(dtype) else tirx.min_value(dtype)


# -- max pooling --------------------------------------------------------------------------------------


def max_pool(b: Builder, x: Expr, spatial: int, window: Window) -> Expr:
    """The largest element of each window."""
    after = window.pads_after()
    value, batched = _batched(b, x, spatial)
    if after is None or not is_float(b.dtype(x)):
        result = b.te(lambda data, output: _largest(data, output, window), value, window.output)
    else:
        call = _MAX_POOL[spatial](
            value, window.kernel, window.stride, [*window.padding, *after], window.dilation, ceil_mode=False
        )
        result = b.emit(call)
    return result if batched else squeeze_at(b, result, 0)


def _largest(data: te.Tensor, output: Sequence[Any], window: Window) -> te.Tensor:
    """The same as loops: for sizes of which the padding is not known, and for whole numbers."""
    axes, reducer = _axes(window), te.comm_reducer(larger, lowest, name="largest")
    out = [*data.shape[:2], *map(as_size, output)]
    padded = _padded(data, out[2:], window)
    return te.compute(out, lambda *i: reducer(padded(*i[:2], *_places(i, axes, window)), axis=axes), name="max_pool")


def max_pool_indices(b: Builder, x: Expr, spatial: int, window: Window) -> list[Expr]:
    """The largest element of each window and its flat index: of the last NaN, else of the first that is as large.

    The largest are found first, then where they stand: each is a plain reduction, which vectors can do.
    """
    value, batched = _batched(b, x, spatial)
    largest = max_pool(b, value, spatial, window)
    where = b.te(lambda data, of: _where_largest(data, of, window), value, largest, name="max_pool_indices")
    results = [largest, where]
    return results if batched else [squeeze_at(b, r, 0) for r in results]


def _where_largest(data: te.Tensor, largest: te.Tensor, window: Window) -> te.Tensor:
    """Flat indices; -1 for a window that reads nothing but padding. Small windows are written out, without a loop."""
    none, sizes, counts = tirx.max_value("int32"), data.shape[2:], window.kernel

    def candidate(i: Sequence[Any], steps: Sequence[Any]) -> Any:
        sought, number, inside, places = largest(*i), tirx.const(0, "int32"), [], []
        for place, k, count, pad, size in zip(
            _places(i, steps, window), steps, counts, window.padding, sizes, strict=True
        ):
            places.append(place - pad)
            number = number * count + tirx.Cast("int32", k)
            inside += [places[-1] >= 0, places[-1] < size]
        element = data(*i[:2], *places)
        found = tirx.Select(element == sought, number, none)
        if is_float(str(data.dtype)):
            found = tirx.Select(is_nan(sought), tirx.Select(is_nan(element), -number, none), found)
        return tirx.if_then_else(tirx.all(*inside), found, none)

    def number(*i: Any) -> Any:
        if math.prod(counts) > _WRITTEN_OUT:
            axes = _axes(window)
            return te.min(candidate(i, [axis.var for axis in axes]), axis=axes)
        steps = itertools.product(*([as_size(k) for k in range(count)] for count in counts))
        return functools.reduce(tirx.min, (candidate(i, step) for step in steps))

    numbers = te.compute(largest.shape, number, name="number")

    def position(*i: Any) -> Any:
        rest, flat = tirx.abs(numbers(*i)), tirx.const(0, "int64")
        steps: list[Any] = []
        for count in reversed(counts):
            steps.insert(0, tirx.Cast("int64", tirx.floormod(rest, count)))
            rest = tirx.floordiv(rest, count)
        for place, pad, size in zip(_places(i, steps, window), window.padding, sizes, strict=True):
            flat = flat * size + place - pad
        return tirx.Select(numbers(*i) == none, tirx.const(-1, "int64"), flat)

    return te.compute(largest.shape, position, name="position")


def _places(i: Sequence[Any], axes: Sequence[Any], window: Window) -> list[Any]:
    """Where a window at ``i`` has an element, in the padded input."""
    return [o * s + k * d for o, s, k, d in zip(i[2:], window.stride, axes, window.dilation, strict=True)]


def _padded(data: te.Tensor, output: Sequence[Any], window: Window) -> te.Tensor:
    """What windows reach, its least element outside of ``data``: reads that need no guard are vectors."""
    reach = [
        (o - 1) * step + gap * (k - 1) + 1
        for o, step, gap, k in zip(output, window.stride, window.dilation, window.kernel, strict=True)
    ]
    analyzer = tvm.sym.Analyzer()
    fits = [analyzer.can_prove(r <= size) for r, size in zip(reach, data.shape[2:], strict=True)]
    if all(fits) and not any(window.padding):
        return data

    def element(*i: Any) -> Any:
        places = [place - pad for place, pad in zip(i[2:], window.padding, strict=True)]
        inside = [c for place, n in zip(places, data.shape[2:], strict=True) for c in (place >= 0, place < n)]
        return tirx.if_then_else(tirx.all(*inside), data(*i[:2], *places), lowest(str(data.dtype)))

    return te.compute([*data.shape[:2], *reach], element, name="padded")


def _axes(window: Window) -> list[tirx.IterVar]:
    return [te.reduce_axis((0, k), name=f"k{i}") for i, k in enumerate(window.kernel)]


def first_largest(dtype: str) -> Any:
    """A reducer of (index, value) pairs as ATen's: the last NaN, else the first of the largest."""

    def combine(a: Any, c: Any) -> Any:
        has_nan = is_float(dtype)
        a_nan = is_nan(a[1]) if has_nan else tirx.const(False, "bool")
        c_nan = is_nan(c[1]) if has_nan else tirx.const(False, "bool")
        ordered = tirx.Or(a[1] > c[1], tirx.And(a[1] == c[1], a[0] <= c[0]))
        later = a[0] > c[0]
        wins = tirx.Select(a_nan, tirx.Or(tirx.Not(c_nan), later), tirx.And(tirx.Not(c_nan), ordered))
        return tirx.Select(wins, a[0], c[0]), tirx.Select(wins, a[1], c[1])

    return te.comm_reducer(combine, lambda index, _: (tirx.max_value(index), lowest(dtype)), name="first_largest")


def _max_pool(name: str, spatial: int) -> None:
    def lowering(
        b: Builder,
        x: Tensor,
        kernel_size: list[int],
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        ceil_mode: bool,
    ) -> Expr:
        return max_pool(b, x, spatial, Window(b, x, spatial, kernel_size, stride, padding, dilation, ceil_mode))

    def with_indices(
        b: Builder,
        x: Tensor,
        kernel_size: list[int],
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        ceil_mode: bool,
    ) -> list[Expr]:
        window = Window(b, x, spatial, kernel_size, stride, padding, dilation, ceil_mode)
        return max_pool_indices(b, x, spatial, window)

    tail = "int[] kernel_size, int[] stride=[], int[] padding=0, int[] dilation=1, bool ceil_mode=False"
    lowering.__doc__ = f"aten::{name}(Tensor self, {tail}) -> Tensor"
    with_indices.__doc__ = f"aten::{name}_with_indices(Tensor self, {tail}) -> (Tensor, Tensor)"
    register(f"torch.aten.{name}", lowering)
    register(f"torch.aten.{name}_with_indices", with_indices)


for _count in (1, 2, 3):
    _max_pool(f"max_pool{_count}d", _count)


# -- average pooling ----------------------------------------------------------------------------------


def avg_pool(b: Builder, x: Expr, spatial: int, window: Window, count_include_pad: bool, divisor: int | None) -> Expr:
    """The mean of each window; windows are cut at the padding's end, as in ATen."""
    value, batched = _batched(b, x, spatial)
    dtype = b.dtype(x)
    if divisor == 0:
        b.unsupported("a divisor of zero")
    if not window.ceil_mode and divisor is None and dtype in ("float32", "float64"):
        pads = [*window.padding, *window.padding]
        result = b.emit(
            _AVG_POOL[spatial](
                value,
                window.kernel,
                window.stride,
                pads,
                ceil_mode=False,
                count_include_pad=count_include_pad,
            )
        )
    else:
        result = b.te(
            lambda v, output: _windowed_mean(v, output, window, count_include_pad, divisor),
            value,
            window.output,
        )
    return result if batched else squeeze_at(b, result, 0)


def covered(o: Any, stride: int, pad: int, kernel: int, size: Any, include_pad: bool) -> Any:
    """How many places window ``o`` has along an axis, those of the padding among them or not."""
    start = o * stride - pad
    end = tirx.min(start + kernel, size + pad)
    if not include_pad:
        start, end = tirx.max(start, 0), tirx.min(end, size)
    return end - start


def _windowed_mean(
    data: te.Tensor, output: list[Any], window: Window, include_pad: bool, divisor: int | None
) -> te.Tensor:
    dtype = str(data.dtype)
    wide = compute_dtype(dtype)
    axes = [te.reduce_axis((0, k), name=f"k{i}") for i, k in enumerate(window.kernel)]
    spatial = list(zip(window.stride, window.padding, window.kernel, data.shape[2:], strict=True))

    def total(*i: Any) -> Any:
        places = [o * s - p + k for o, k, (s, p, _, _) in zip(i[2:], axes, spatial, strict=True)]
        inside = [c for place, (*_, n) in zip(places, spatial, strict=True) for c in (place >= 0, place < n)]
        element = tirx.if_then_else(tirx.all(*inside), data(*i[:2], *places), tirx.const(0, dtype))
        return te.sum(tirx.Cast(wide, element), axis=axes)

    def count(i: Sequence[Any]) -> Any:
        value: Any = tirx.const(1, "int64")
        for o, (s, p, k, n) in zip(i, spatial, strict=True):
            value = value * covered(o, s, p, k, n, include_pad)
        return value

    sums = te.compute([*data.shape[:2], *(as_size(s) for s in output)], total, name="window_sum")
    if not is_float(dtype):
        return te.compute(
            sums.shape,
            lambda *i: tirx.Cast(
                dtype,
                tirx.truncdiv(tirx.Cast("int64", sums(*i)), count(i[2:]) if divisor is None else divisor),
            ),
            name="avg_pool",
        )
    return te.compute(
        sums.shape,
        lambda *i: tirx.Cast(dtype, sums(*i) / tirx.Cast(wide, count(i[2:]) if divisor is None else divisor)),
        name="avg_pool",
    )


@lowers("torch.aten.avg_pool1d")
def avg_pool1d(
    b: Builder,
    x: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
) -> Expr:
    """aten::avg_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=0,
    bool ceil_mode=False, bool count_include_pad=True) -> Tensor"""
    window = Window(b, x, 1, kernel_size, stride, padding, [1], ceil_mode)
    return avg_pool(b, x, 1, window, count_include_pad, None)


def _avg_pool(spatial: int) -> None:
    def lowering(
        b: Builder,
        x: Tensor,
        kernel_size: list[int],
        stride: list[int],
        padding: list[int],
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> Expr:
        window = Window(b, x, spatial, kernel_size, stride, padding, [1], ceil_mode)
        return avg_pool(b, x, spatial, window, count_include_pad, divisor_override)

    lowering.__doc__ = (
        f"aten::avg_pool{spatial}d(Tensor self, int[{spatial}] kernel_size, int[{spatial}] stride=[], "
        f"int[{spatial}] padding=0, bool ceil_mode=False, bool count_include_pad=True, int? divisor_override=None) "
        "-> Tensor"
    )
    register(f"torch.aten.avg_pool{spatial}d", lowering)


for _count in (2, 3):
    _avg_pool(_count)


# -- adaptive pooling ---------------------------------------------------------------------------------


def bounds_of(o: Any, size: SizeLike, count: SizeLike) -> tuple[Any, Any]:
    """First element and end of window ``o`` of ``count`` over ``size``."""
    return tirx.floordiv(o * size, count), tirx.floordiv((o + 1) * size + count - 1, count)


def _check_adaptive(b: Builder, x: Expr, spatial: int, output_size: Sequence[SizeLike]) -> list[SizeLike]:
    if b.rank(x) not in (spatial + 1, spatial + 2):
        b.unsupported(f"an input of rank {b.rank(x)} for {spatial} dimensions")
    counts = per_axis(output_size, spatial)
    if any(isinstance(count, int) and count < 1 for count in counts):
        b.unsupported("an empty output")
    for count in counts:
        b.expect(as_size(count) >= 1, "an empty output")
    if any(isinstance(s, int) and s < 1 for s in b.shape(x)[-spatial:]):
        b.unsupported("an empty input")
    for size in b.shape(x)[-spatial:]:
        b.expect(as_size(size) >= 1, "an empty input")
    return counts


def adaptive_avg_pool(b: Builder, x: Expr, spatial: int, output_size: Sequence[SizeLike]) -> Expr:
    """The mean over windows that cut each dimension into ``output_size`` parts."""
    counts = _check_adaptive(b, x, spatial, output_size)
    value, batched = _batched(b, x, spatial)
    is_known = all(isinstance(size, int) for size in (*counts, *b.shape(x)[-2:]))
    if spatial == 2 and b.dtype(x) in ("float32", "float64") and is_known:
        result = b.emit(R.nn.adaptive_avg_pool2d(value, counts))
    else:
        result = b.te(lambda v, counts: _adaptive_mean(v, list(map(as_size, counts))), value, counts)
    return result if batched else squeeze_at(b, result, 0)


def _adaptive_mean(data: te.Tensor, counts: Sequence[Any]) -> te.Tensor:
    sizes, dtype = list(data.shape[2:]), str(data.dtype)
    wide = compute_dtype(dtype)

    def total(*i: Any) -> Any:
        bounds = [bounds_of(o, n, c) for o, n, c in zip(i[2:], sizes, counts, strict=True)]
        axes = [te.reduce_axis((0, end - start), name=f"k{j}") for j, (start, end) in enumerate(bounds)]
        places = [start + k for k, (start, _) in zip(axes, bounds, strict=True)]
        return te.sum(tirx.Cast(wide, data(*i[:2], *places)), axis=axes)

    def mean(*i: Any) -> Any:
        count: Any = tirx.const(1, "int64")
        for o, n, c in zip(i[2:], sizes, counts, strict=True):
            start, end = bounds_of(o, n, c)
            count = count * (end - start)
        return tirx.Cast(dtype, sums(*i) / tirx.Cast(wide, count))

    sums = te.compute((data.shape[0], data.shape[1], *counts), total, name="window_sum")
    return te.compute(sums.shape, mean, name="adaptive_avg_pool")


def adaptive_max_pool(b: Builder, x: Expr, spatial: int, output_size: Sequence[SizeLike]) -> list[Expr]:
    """The largest element of each adaptive window and its flat index."""
    counts = _check_adaptive(b, x, spatial, output_size)
    value, batched = _batched(b, x, spatial)
    dtype = b.dtype(x)

    def pool(data: te.Tensor, counts: list[Any]) -> list[te.Tensor]:
        sizes, counts = list(data.shape[2:]), list(map(as_size, counts))

        def at(*i: Any) -> Any:
            bounds = [bounds_of(o, n, c) for o, n, c in zip(i[2:], sizes, counts, strict=True)]
            axes = [te.reduce_axis((0, end - start), name=f"k{j}") for j, (start, end) in enumerate(bounds)]
            places = [start + k for k, (start, _) in zip(axes, bounds, strict=True)]
            flat: Any = tirx.const(0, "int64")
            for place, size in zip(places, sizes, strict=True):
                flat = flat * size + place
            return first_largest(dtype)((tirx.Cast("int64", flat), data(*i[:2], *places)), axis=axes)

        return list(te.compute((data.shape[0], data.shape[1], *counts), at, name="adaptive_max_pool"))

    both = b.te(pool, value, counts)
    index, largest = (b.emit(relax.TupleGetItem(both, i)) for i in range(2))
    results = [largest, index]
    return results if batched else [squeeze_at(b, r, 0) for r in results]


def _adaptive(spatial: int) -> None:
    def average(b: Builder, x: Tensor, output_size: list[Size]) -> Expr:
        return adaptive_avg_pool(b, x, spatial, output_size)

    def largest(b: Builder, x: Tensor, output_size: list[Size]) -> list[Expr]:
        return adaptive_max_pool(b, x, spatial, output_size)

    average.__doc__ = f"aten::adaptive_avg_pool{spatial}d(Tensor self, SymInt[] output_size) -> Tensor"
    largest.__doc__ = f"aten::adaptive_max_pool{spatial}d(Tensor self, int[] output_size) -> (Tensor, Tensor)"
    register(f"torch.aten.adaptive_avg_pool{spatial}d", average)
    register(f"torch.aten.adaptive_max_pool{spatial}d", largest)


for _count in (1, 2, 3):
    _adaptive(_count)
