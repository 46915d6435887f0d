"""Spectra of overlapping pieces of a signal, and the signal of such spectra."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.complex_parts import dense, together
from torch_tvm.lowering.ops.fourier.transform import Direction, of_reals, to_reals, transform
from torch_tvm.lowering.ops.shapes.slicing import unfold
from torch_tvm.lowering.ops.shapes.views import permute, reshape
from torch_tvm.lowering.registry import Complex, Parts, Tensor, lowers_complex
from torch_tvm.tir import as_size, ceil_div

R = relax.op
Expr: TypeAlias = relax.Expr

LEAST_WINDOW = 1e-11
"""What the squares of overlapping windows add up to at least, as ``istft`` has it."""


def _window(b: Builder, window: Expr | None, size: int, length: int, dtype: str) -> Expr | None:
    """The window in the middle of ``length`` zeros; ``None`` for a rectangle of that length."""
    if window is None:
        if size == length:
            return None
        window = relax.const(np.ones(size, dtype), dtype)
    before = (length - size) // 2
    value = b.cast(window, dtype)
    if size == length:
        return value
    return b.emit(R.nn.pad(value, [before, length - size - before], "constant", 0.0))


def stft(
    b: Builder,
    x: Complex,
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    window: Tensor | None,
    normalized: bool,
    onesided: bool | None,
    return_complex: bool | None,
    align_to_window: bool | None,
) -> Any:
    """aten::stft(Tensor self, int n_fft, int? hop_length=None, int? win_length=None, Tensor?
    window=None, …) -> Tensor
    """
    if align_to_window:
        b.unsupported("frames that are aligned to the window")
    is_complex = not isinstance(x.im, int)
    hop = n_fft // 4 if hop_length is None else hop_length
    weights = _window(b, window, n_fft if win_length is None else win_length, n_fft, b.result_dtype)

    def framed(part: Expr) -> Expr:
        frames = unfold(b, part, b.rank(part) - 1, n_fft, hop)
        return frames if weights is None else b.emit(R.multiply(frames, weights))

    way = Direction(False, 1 / math.sqrt(n_fft) if normalized else 1.0)
    frames, last = framed(x.re), b.rank(x.re)
    if is_complex or onesided is False:
        z = transform(b, Parts(frames, framed(x.im) if is_complex else 0), last, way)
    else:
        z = of_reals(b, frames, last, way)
    order = [*range(last - 1), last, last - 1]
    z = Parts(*(permute(b, part, order) for part in (z.re, z.im)))
    return together(b, z) if return_complex is False else z


@lowers_complex("torch.aten.stft.center")
def stft_center(
    b: Builder,
    x: Complex,
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    window: Tensor | None,
    center: bool,
    pad_mode: str,
    normalized: bool,
    onesided: bool | None,
    return_complex: bool | None,
    align_to_window: bool | None,
) -> Any:
    """aten::stft.center(Tensor self, int n_fft, …, bool center=True, str pad_mode="reflect", …) -> Tensor

    ``torch.stft`` has padded the signal itself.
    """
    if center:
        b.unsupported("a signal that is padded by the operator itself")
    rest = (window, normalized, onesided, return_complex, align_to_window)
    return stft(b, x, n_fft, hop_length, win_length, *rest)


@lowers_complex("torch.aten.istft")
def istft(
    b: Builder,
    z: Complex,
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    window: Tensor | None,
    center: bool,
    normalized: bool,
    onesided: bool | None,
    length: int | None,
    return_complex: bool,
) -> Any:
    """aten::istft(Tensor self, int n_fft, int? hop_length=None, int? win_length=None, Tensor?
    window=None, …) -> Tensor
    """
    hop = n_fft // 4 if hop_length is None else hop_length
    z, dtype = dense(b, z), b.result_dtype
    rank = b.rank(z.re)
    frames = b.shape(z.re)[-1]
    if not isinstance(frames, int):
        b.unsupported("an unknown number of frames")
    way = Direction(True, 1 / math.sqrt(n_fft) if normalized else 1 / n_fft)
    signals = _pieces(b, z, n_fft, way, return_complex)
    weights = _window(b, window, n_fft if win_length is None else win_length, n_fft, dtype)
    if weights is None:
        weights = relax.const(np.ones(n_fft, dtype), dtype)
    whole = n_fft + hop * (frames - 1)
    begin = n_fft // 2 if center else 0
    end = begin + length if length is not None else whole - n_fft // 2 if center else whole
    overlap = _Overlap(n_fft, hop, frames, begin, min(end, whole))
    envelope = _envelope(b, weights, overlap)
    results = []
    for signal in signals:
        shape = b.shape(signal)
        rows = reshape(b, signal, [shape[0] if rank == 3 else 1, frames, n_fft])
        value = b.emit(R.divide(_added(b, rows, weights, overlap), envelope))
        if end > whole:
            value = b.emit(R.nn.pad(value, [0, 0, 0, end - whole], "constant", 0.0))
        results.append(value if rank == 3 else b.reshape(value, [end - begin]))
    return Parts(*results) if return_complex else results[0]


def _pieces(b: Builder, z: Complex, n_fft: int, way: Direction, is_complex: bool) -> list[Expr]:
    """The samples of each frame, ``[…, frames, n_fft]``: real and imaginary ones, or those of a real signal."""
    rank = b.rank(z.re)
    order = [*range(rank - 2), rank - 1, rank - 2]
    z = Parts(*(permute(b, part, order) for part in (z.re, z.im)))
    if is_complex:
        pieces = transform(b, z, rank - 1, way)
        return [pieces.re, pieces.im]
    if b.shape(z.re)[-1] != n_fft // 2 + 1:
        cut = lambda x: b.emit(R.strided_slice(x, [rank - 1], [0], [n_fft // 2 + 1]))
        z = Parts(cut(z.re), cut(z.im))
    return [to_reals(b, z, rank - 1, n_fft, way)]


@dataclass(frozen=True)
class _Overlap:
    """Frames of ``size`` samples, each ``hop`` after the one before; ``begin`` to ``end`` of what they add up to."""

    size: int
    hop: int
    frames: int
    begin: int
    end: int


def _envelope(b: Builder, weights: Expr, overlap: _Overlap) -> Expr:
    """What the squares of the windows add up to at each sample; a program where that is zero somewhere raises."""
    dtype = b.dtype(weights)
    ones = relax.const(np.ones((1, overlap.frames, overlap.size), dtype), dtype)
    envelope = _added(b, ones, b.emit(R.multiply(weights, weights)), overlap)
    least = b.emit(R.min(R.abs(envelope)))
    b.check(
        b.emit(R.greater_equal(least, b.const(LEAST_WINDOW, dtype))),
        "istft: the windows add up to zero somewhere (window overlap add min)",
    )
    return envelope


def _added(b: Builder, pieces: Expr, weights: Expr, overlap: _Overlap) -> Expr:
    """The sum of weighted frames, each at its place: ``[batch, frames, size]`` becomes ``[batch, end - begin]``."""
    dtype, o = b.dtype(pieces), overlap

    def kernel(x: te.Tensor, w: te.Tensor) -> te.Tensor:
        back = te.reduce_axis((0, as_size(ceil_div(o.size, o.hop))), name="back")

        def sample(row: Any, t: Any) -> Any:
            place = t + o.begin
            frame = tirx.floordiv(place, o.hop) - back
            inside = tirx.floormod(place, o.hop) + back * o.hop
            there = tirx.all(frame >= 0, frame < o.frames, inside < o.size)
            value = tirx.if_then_else(there, x(row, frame, inside) * w(inside), tirx.const(0, dtype))
            return te.sum(value, axis=back)

        return te.compute((x.shape[0], as_size(o.end - o.begin)), sample, name="overlap")

    return b.te(kernel, pieces, weights, name="overlap_add")
