"""The discrete Fourier transform along one dimension, of any length, as kernels for lengths of small primes.

- Up to :data:`LONGEST` one kernel transforms many vectors side by side.
- Longer ones, and few of them, become two transforms of about the root of the length with factors between: Bailey, FFTs
  in external or hierarchical memory, 1990.
- A length with a large prime becomes a convolution, transforms of the next length that has none: Bluestein, A linear
  filtering approach to the computation of the discrete Fourier transform, 1970.

Real numbers of an even length are transformed as half as many complex ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import tvm
from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.complex_parts import dense, parts_of, together
from torch_tvm.lowering.ops.shapes.views import permute, reshape
from torch_tvm.lowering.registry import Parts
from torch_tvm.lowering.script import allocate
from torch_tvm.tir import SizeLike, as_size, product
from torch_tvm.workloads.fourier import FourierWorkload, factors

R = relax.op
Expr: TypeAlias = relax.Expr

LONGEST = 2048
"""The longest vectors that one kernel transforms: several of them beside each other fit the second cache."""

FEW = 16
"""Vectors below which each is cut: side by side they would leave lanes of a register empty."""

SHORT = 64
"""The shortest vector that is worth cutting."""


@dataclass(frozen=True)
class Direction:
    """Which way a transform goes, and what its results are multiplied by."""

    is_inverse: bool
    scale: float = 1.0

    @property
    def sign(self) -> int:
        return 1 if self.is_inverse else -1


def transform(b: Builder, z: Parts, axis: int, way: Direction) -> Parts:
    """The transform of complex numbers along ``axis``, whose size is a constant."""
    pairs = together(b, z)
    shape = b.shape(pairs)[:-1]
    length, inner = shape[axis], product(shape[axis + 1 :])
    assert isinstance(length, int)
    if isinstance(inner, int) and (inner == 1 or inner < FEW):
        order = [i for i in range(len(shape)) if i != axis] + [axis]
        moved = permute(b, pairs, [*order, len(shape)])
        rows = reshape(b, moved, [product([shape[i] for i in order[:-1]]), length, 2])
        result = reshape(b, _rows(b, rows, length, way), [*(shape[i] for i in order), 2])
        return parts_of(b, permute(b, result, [*np.argsort(order).tolist(), len(shape)]))
    if factors(length) is None or length > LONGEST:
        return _along_last(b, pairs, axis, way)
    columns = reshape(b, pairs, [product(shape[:axis]), length, inner, 2])
    work = FourierWorkload(length, way.is_inverse, False, False, False, way.scale)
    return parts_of(b, reshape(b, _kernel(b, columns, work), [*shape, 2]))


def _along_last(b: Builder, pairs: Expr, axis: int, way: Direction) -> Parts:
    """The transform along another axis than the last by moving it there."""
    rank = b.rank(pairs) - 1
    order = [*(i for i in range(rank) if i != axis), axis, rank]
    moved = permute(b, pairs, order)
    *outer, length, _ = shape = b.shape(moved)
    assert isinstance(length, int)
    rows = reshape(b, moved, [product(outer), length, 2])
    result = reshape(b, _rows(b, rows, length, way), shape)
    return parts_of(b, permute(b, result, np.argsort(order).tolist()))


def _rows(b: Builder, x: Expr, length: int, way: Direction) -> Expr:
    """The transform of pairs ``[count, length, 2]`` along ``length``."""
    count, dtype = b.shape(x)[0], b.dtype(x)
    if length == 1:
        return x if way.scale == 1 else b.emit(R.multiply(x, b.const(way.scale, dtype)))
    if factors(length) is None:
        return _bluestein(b, x, length, way)
    cut = _halves(length) if length > LONGEST or (_is_few(count) and length >= SHORT) else None
    if cut is None:
        if length > LONGEST:
            b.unsupported(f"a Fourier transform of length {length}")
        work = FourierWorkload(length, way.is_inverse, True, True, False, way.scale)
        return reshape(b, _kernel(b, reshape(b, x, [1, count, length, 2]), work), [count, length, 2])
    first, second = cut
    columns = FourierWorkload(first, way.is_inverse, False, False, True, 1.0)
    twisted = _kernel(b, reshape(b, x, [count, first, second, 2]), columns, _twiddles(first, second, way.sign, dtype))
    rows = FourierWorkload(second, way.is_inverse, True, False, False, way.scale)
    return reshape(b, _kernel(b, twisted, rows), [count, length, 2])


def _is_few(count: SizeLike) -> bool:
    return isinstance(count, int) and count < FEW


def _halves(length: int) -> tuple[int, int] | None:
    """Two factors near the root of a length, both of which one kernel transforms."""
    best = None
    for first in range(2, math.isqrt(length) + 1):
        if length % first == 0 and length // first <= LONGEST:
            best = (first, length // first)
    return best


# -- the kernel ----------------------------------------------------------------------------------------------


def _kernel(b: Builder, x: Expr, work: FourierWorkload, twiddles: np.ndarray | None = None) -> Expr:
    outer, *_ = shape = b.shape(x)
    count = shape[1 if work.rows_in else 2]
    result = [outer, count, work.length, 2] if work.rows_out else [outer, work.length, count, 2]
    if any(isinstance(size, int) and size == 0 for size in shape):
        return reshape(b, x, result)
    dtype = b.dtype(x)
    tables = [
        _roots(work.length, 1 if work.is_inverse else -1, dtype),
        *([] if twiddles is None else [twiddles]),
    ]
    operands = [x, *(relax.const(table, dtype) for table in tables)]
    loops = lambda *tensors: _plain(work, tensors, result)
    return b.te(loops, *operands, name="fourier", attributes=work.to_attr())


def _plain(work: FourierWorkload, tensors: Sequence[te.Tensor], shape: Sequence[SizeLike]) -> te.Tensor:
    """The sums as they are defined; a target that has a rule for transforms makes its own loops."""
    dtype = str(tensors[0].dtype)
    sizes = [as_size(size) for size in shape]
    outer, count, length = sizes[0], sizes[1 if work.rows_out else 2], work.length

    def body(ins: Any, outs: Any) -> tvm.tirx.Stmt:
        with IRBuilder() as builder:
            x, roots, *twiddles = (T.buffer_proxy(buffer) for buffer in ins)
            out = T.buffer_proxy(outs[0])
            with T.parallel(0, outer * count) as vector:
                o, lane = vector // count, vector % count
                total = allocate(2, dtype, "local")
                with T.serial(0, length) as k:
                    total[0] = tirx.const(0, dtype)
                    total[1] = tirx.const(0, dtype)
                    with T.serial(0, length) as j:
                        at = (o, lane, j) if work.rows_in else (o, j, lane)
                        turn = (j * k) % length
                        re, im = x[(*at, 0)], x[(*at, 1)]
                        cosine, sine = roots[turn, 0], roots[turn, 1]
                        total[0] = total[0] + re * cosine - im * sine
                        total[1] = total[1] + re * sine + im * cosine
                    scale = tirx.const(work.scale, dtype)
                    re, im = total[0] * scale, total[1] * scale
                    place = (o, lane, k) if work.rows_out else (o, k, lane)
                    if twiddles:
                        cosine, sine = twiddles[0][k, lane, 0], twiddles[0][k, lane, 1]
                        re, im = re * cosine - im * sine, re * sine + im * cosine
                    out[(*place, 0)] = re
                    out[(*place, 1)] = im
            return builder.get()

    return te.extern(
        [sizes],
        list(tensors),
        body,
        dtype=[dtype],
        in_buffers=[tirx.decl_buffer(t.shape, dtype, f"in{i}") for i, t in enumerate(tensors)],
        out_buffers=[tirx.decl_buffer(sizes, dtype, "out")],
        name="fourier",
    )


# -- constants -------------------------------------------------------------------------------------------------


def _pairs(parts: np.ndarray, dtype: str) -> np.ndarray:
    """``exp(2 pi i parts)`` as pairs."""
    angles = 2 * np.pi * parts
    return np.stack([np.cos(angles), np.sin(angles)], -1).astype(dtype)


@lru_cache(maxsize=64)
def _roots(length: int, sign: int, dtype: str) -> np.ndarray:
    return _pairs(sign * np.arange(length) / length, dtype)


@lru_cache(maxsize=16)
def _twiddles(first: int, second: int, sign: int, dtype: str) -> np.ndarray:
    products: np.ndarray = np.outer(np.arange(first), np.arange(second)) % (first * second)
    return _pairs(sign * products / (first * second), dtype)


# -- lengths with large primes -----------------------------------------------------------------------------------


def _bluestein(b: Builder, x: Expr, length: int, way: Direction) -> Expr:
    """``jk = (j² + k² - (k - j)²) / 2``, so a transform is a convolution with ``exp(-way i pi j² / length)``."""
    padded = _next_smooth(2 * length - 1)
    dtype = b.dtype(x)
    squares: np.ndarray = np.arange(length, dtype=np.int64) ** 2 % (2 * length)
    chirp = np.exp(way.sign * 1j * np.pi * squares / length)
    filter_: np.ndarray = np.zeros(padded, np.complex128)
    filter_[:length] = chirp.conj()
    filter_[padded - length + 1 :] = chirp.conj()[1:][::-1]
    spectrum = np.fft.fft(filter_) / padded
    twisted = _times(b, parts_of(b, x), chirp, dtype)
    wide = Parts(
        *(b.emit(R.nn.pad(part, [0, 0, 0, padded - length], "constant", 0.0)) for part in (twisted.re, twisted.im))
    )
    forth = parts_of(b, _rows(b, together(b, wide), padded, Direction(False)))
    product_ = together(b, _times(b, forth, spectrum, dtype))
    back = parts_of(b, _rows(b, product_, padded, Direction(True)))
    kept = Parts(*(b.emit(R.strided_slice(part, [1], [0], [length])) for part in (back.re, back.im)))
    return together(b, _times(b, kept, chirp * way.scale, dtype))


def _times(b: Builder, z: Parts, factor: np.ndarray, dtype: str) -> Parts:
    constant = Parts(relax.const(factor.real.astype(dtype), dtype), relax.const(factor.imag.astype(dtype), dtype))
    z = dense(b, z)
    re = b.emit(R.subtract(R.multiply(z.re, constant.re), R.multiply(z.im, constant.im)))
    im = b.emit(R.add(R.multiply(z.re, constant.im), R.multiply(z.im, constant.re)))
    return Parts(re, im)


def _next_smooth(length: int) -> int:
    """The least length from this one on that kernels transform, made of 2, 3 and 5."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1 and (length <= LONGEST or _halves(length)):
            return length
        length += 1


# -- real numbers --------------------------------------------------------------------------------------------------


def of_reals(b: Builder, x: Expr, axis: int, way: Direction) -> Parts:
    """The first ``n // 2 + 1`` results of real numbers along ``axis``; the others are their conjugates."""
    shape = b.shape(x)
    length = shape[axis]
    assert isinstance(length, int)
    if axis != len(shape) - 1 or length % 2 or length < 4:
        z = transform(b, Parts(x, 0), axis, way)
        cut = lambda part: b.emit(R.strided_slice(part, [axis], [0], [length // 2 + 1]))
        return Parts(cut(z.re), cut(z.im))
    half, count = length // 2, product(shape[:-1])
    halves = _rows(b, reshape(b, x, [count, half, 2]), half, way)
    roots = relax.const(_roots(length, way.sign, b.dtype(x)), b.dtype(x))

    def result(z: Any, w: Any, row: Any, k: Any) -> tuple[Any, Any]:
        """``E + w O`` of the transforms of even and odd elements, which are the parts that are (not) symmetric."""
        here, there = k % half, (half - k) % half
        a, c = (z[row, here, 0], z[row, here, 1]), (z[row, there, 0], -z[row, there, 1])
        factor = tirx.const(0.5, b.dtype(x))
        even = ((a[0] + c[0]) * factor, (a[1] + c[1]) * factor)
        odd = ((a[1] - c[1]) * factor, (c[0] - a[0]) * factor)
        return even[0] + odd[0] * w[k, 0] - odd[1] * w[k, 1], even[1] + odd[0] * w[k, 1] + odd[1] * w[k, 0]

    pairs = _mapped(b, halves, roots, count, half + 1, result)
    return parts_of(b, reshape(b, pairs, [*shape[:-1], half + 1, 2]))


def to_reals(b: Builder, z: Parts, axis: int, length: int, way: Direction) -> Expr:
    """The ``length`` real numbers whose transform begins with ``z`` (``length // 2 + 1`` numbers) along ``axis``."""
    z = dense(b, z)
    shape = b.shape(z.re)
    if axis != len(shape) - 1 or length % 2 or length < 4:
        return transform(b, _whole(b, z, axis, length), axis, way).re
    half, count = length // 2, product(shape[:-1])
    pairs = reshape(b, together(b, z), [count, half + 1, 2])
    roots = relax.const(_roots(length, way.sign, b.dtype(z.re)), b.dtype(z.re))

    def result(x: Any, w: Any, row: Any, k: Any) -> tuple[Any, Any]:
        """``E + i O`` of what even and odd elements transform to; first and last number count as real ones."""
        zero = tirx.const(0, b.dtype(z.re))
        imaginary = lambda at: tirx.Select(tirx.any(at == 0, at == half), zero, x[row, at, 1])
        a, c = (x[row, k, 0], imaginary(k)), (x[row, half - k, 0], -imaginary(half - k))
        even, rest = (a[0] + c[0], a[1] + c[1]), (a[0] - c[0], a[1] - c[1])
        odd = (rest[0] * w[k, 0] - rest[1] * w[k, 1], rest[0] * w[k, 1] + rest[1] * w[k, 0])
        return even[0] - odd[1], even[1] + odd[0]

    joined = _mapped(b, pairs, roots, count, half, result)
    return reshape(b, _rows(b, joined, half, way), [*shape[:-1], length])


def _whole(b: Builder, z: Parts, axis: int, length: int) -> Parts:
    """All ``length`` numbers of which the first ``length // 2 + 1`` are given and the rest are conjugates."""
    shape = b.shape(z.re)
    sizes = [as_size(size) for size in [*shape[:axis], length, *shape[axis + 1 :]]]
    rest = length // 2

    def full(x: te.Tensor, is_imaginary: bool) -> te.Tensor:
        def element(*i: Any) -> Any:
            k = i[axis]
            mirrored = [*i[:axis], length - k, *i[axis + 1 :]]
            value = tirx.if_then_else(k <= rest, x(*i), -x(*mirrored) if is_imaginary else x(*mirrored))
            if not is_imaginary:
                return value
            alone = tirx.any(k == 0, k == rest) if length % 2 == 0 else k == 0
            return tirx.if_then_else(alone, tirx.const(0, str(x.dtype)), value)

        return te.compute(sizes, element, name="mirrored")

    return Parts(*(b.te(lambda x, w=w: full(x, w), part, name="mirrored") for w, part in ((False, z.re), (True, z.im))))


def _mapped(b: Builder, z: Expr, roots: Expr, count: SizeLike, length: int, result: Any) -> Expr:
    """Pairs ``[count, length, 2]``, each made by ``result`` of some of ``z`` and the roots."""
    dtype, sizes = b.dtype(z), [as_size(count), as_size(length), as_size(2)]
    if isinstance(count, int) and count == 0:
        return b.emit(R.zeros(relax.ShapeExpr(sizes), dtype))

    def loops(source: te.Tensor, table: te.Tensor) -> te.Tensor:
        def body(ins: Any, outs: Any) -> tvm.tirx.Stmt:
            with IRBuilder() as builder:
                x, w, out = (T.buffer_proxy(buffer) for buffer in (*ins, outs[0]))
                with T.parallel(0, sizes[0]) as row:
                    with T.serial(0, length) as k:
                        re, im = result(x, w, row, k)
                        out[row, k, 0] = re
                        out[row, k, 1] = im
                return builder.get()

        return te.extern(
            [sizes],
            [source, table],
            body,
            dtype=[dtype],
            in_buffers=[tirx.decl_buffer(t.shape, dtype, n) for t, n in ((source, "z"), (table, "roots"))],
            out_buffers=[tirx.decl_buffer(sizes, dtype, "out")],
            name="split",
        )

    return b.te(loops, z, roots, name="real_split")


__all__ = ["Direction", "of_reals", "to_reals", "transform"]
