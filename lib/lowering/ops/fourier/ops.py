"""The operators of ``torch.fft``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

from tvm import relax

from torch_tvm.aten.libraries import FOURIER_TRANSFORMS
from torch_tvm.lowering.builder import Builder, InLibrary
from torch_tvm.lowering.complex_parts import dense
from torch_tvm.lowering.ops.complex.conversion import conj
from torch_tvm.lowering.ops.fourier.transform import Direction, of_reals, to_reals, transform
from torch_tvm.lowering.registry import Complex, Parts, Tensor, lowers_complex

R = relax.op
Expr: TypeAlias = relax.Expr


def _scale(norm: str | None, lengths: Sequence[int], is_inverse: bool) -> float:
    """What ``norm`` multiplies results by."""
    count = math.prod(lengths)
    if norm == "ortho":
        return 1 / math.sqrt(count)
    return 1 / count if (norm == "forward") != is_inverse else 1.0


def _kernel_scale(mode: int, lengths: Sequence[int]) -> float:
    return {0: 1.0, 1: 1 / math.sqrt(math.prod(lengths)), 2: 1 / math.prod(lengths)}[mode]


def _length(b: Builder, x: Expr, axis: int) -> int:
    """How many numbers are transformed; of an unknown number, PyTorch's kernel is called."""
    size = b.shape(x)[axis]
    if not isinstance(size, int):
        raise InLibrary(FOURIER_TRANSFORMS)
    if size == 0:
        b.unsupported("a Fourier transform of nothing, which ATen reports as an error")
    return size


def _floating(b: Builder, z: Parts) -> Parts:
    """The parts in the dtype of the results."""
    return Parts(*(part if isinstance(part, int) else b.cast(part, b.result_dtype) for part in (z.re, z.im)))


def _resized(b: Builder, z: Parts, axis: int, length: int | None) -> Parts:
    """``z`` cut or filled up with zeros to ``length`` along ``axis``."""
    if length is None:
        return z

    def part(x: Any) -> Any:
        if isinstance(x, int):
            return x
        size = b.shape(x)[axis]
        if not isinstance(size, int):
            raise InLibrary(FOURIER_TRANSFORMS)
        if size > length:
            return b.emit(R.strided_slice(x, [axis], [0], [length]))
        if size == length:
            return x
        after = [n for i in range(b.rank(x)) for n in (0, length - size if i == axis else 0)]
        return b.emit(R.nn.pad(x, after, "constant", 0.0))

    return Parts(part(z.re), part(z.im))


def _along(b: Builder, z: Parts, axes: Sequence[int], is_inverse: bool, scale: float) -> Parts:
    """The transform along several axes; the last one scales."""
    z = dense(b, z)
    for number, axis in enumerate(reversed(axes)):
        _length(b, z.re, axis)
        z = transform(b, z, axis, Direction(is_inverse, scale if number == len(axes) - 1 else 1.0))
    return z


# -- ATen's own kernels ------------------------------------------------------------------------------------------


@lowers_complex("torch.aten._fft_c2c")
def fft_c2c(b: Builder, z: Complex, dim: list[int], normalization: int, forward: bool) -> Parts:
    """aten::_fft_c2c(Tensor self, SymInt[] dim, int normalization, bool forward) -> Tensor"""
    axes = [b.axis(d, b.rank(z.re)) for d in dim]
    scale = _kernel_scale(normalization, [_length(b, z.re, axis) for axis in axes])
    return _along(b, z, axes, not forward, scale) if axes else z


@lowers_complex("torch.aten._fft_r2c")
def fft_r2c(b: Builder, x: Tensor, dim: list[int], normalization: int, onesided: bool) -> Parts:
    """aten::_fft_r2c(Tensor self, int[] dim, int normalization, bool onesided) -> Tensor"""
    axes = [b.axis(d, b.rank(x)) for d in dim]
    scale = _kernel_scale(normalization, [_length(b, x, axis) for axis in axes])
    if not onesided:
        return _along(b, Parts(x, 0), axes, False, scale)
    return _real_along(b, x, axes, scale)


def _real_along(b: Builder, x: Expr, axes: Sequence[int], scale: float) -> Parts:
    z = of_reals(b, x, axes[-1], Direction(False, scale if len(axes) == 1 else 1.0))
    return _along(b, z, axes[:-1], False, scale) if len(axes) > 1 else z


@lowers_complex("torch.aten._fft_c2r")
def fft_c2r(b: Builder, z: Complex, dim: list[int], normalization: int, last_dim_size: int) -> Expr:
    """aten::_fft_c2r(Tensor self, int[] dim, int normalization, SymInt last_dim_size) -> Tensor"""
    axes = [b.axis(d, b.rank(z.re)) for d in dim]
    lengths = [_length(b, z.re, axis) for axis in axes[:-1]] + [last_dim_size]
    return _real_from(b, z, axes, last_dim_size, _kernel_scale(normalization, lengths))


def _real_from(b: Builder, z: Parts, axes: Sequence[int], length: int, scale: float) -> Expr:
    if len(axes) > 1:
        z = _along(b, z, axes[:-1], True, 1.0)
    z = _resized(b, z, axes[-1], length // 2 + 1)
    return to_reals(b, z, axes[-1], length, Direction(True, scale))


# -- one dimension -------------------------------------------------------------------------------------------------


def _one(name: str, is_inverse: bool) -> None:
    def lowering(b: Builder, z: Complex, n: int | None, dim: int, norm: str | None) -> Parts:
        axis = b.axis(dim, b.rank(z.re))
        z = _resized(b, _floating(b, z), axis, n)
        return _along(b, z, [axis], is_inverse, _scale(norm, [_length(b, z.re, axis)], is_inverse))

    lowering.__doc__ = f"aten::{name}(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor"
    lowers_complex(f"torch.aten.{name}")(lowering)


_one("fft_fft", False)
_one("fft_ifft", True)


@lowers_complex("torch.aten.fft_rfft")
def fft_rfft(b: Builder, x: Tensor, n: int | None, dim: int, norm: str | None) -> Parts:
    """aten::fft_rfft(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor"""
    axis = b.axis(dim, b.rank(x))
    x = _resized(b, _floating(b, Parts(x, 0)), axis, n).re
    return of_reals(b, x, axis, Direction(False, _scale(norm, [_length(b, x, axis)], False)))


@lowers_complex("torch.aten.fft_ihfft")
def fft_ihfft(b: Builder, x: Tensor, n: int | None, dim: int, norm: str | None) -> Parts:
    """aten::fft_ihfft(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor"""
    axis = b.axis(dim, b.rank(x))
    x = _resized(b, _floating(b, Parts(x, 0)), axis, n).re
    return conj(b, of_reals(b, x, axis, Direction(False, _scale(norm, [_length(b, x, axis)], True))))


def _to_real(name: str, is_inverse: bool) -> None:
    def lowering(b: Builder, z: Complex, n: int | None, dim: int, norm: str | None) -> Expr:
        axis = b.axis(dim, b.rank(z.re))
        z = _floating(b, z)
        length = 2 * (_length(b, z.re, axis) - 1) if n is None else n
        if length < 1:
            b.unsupported("a Fourier transform of nothing, which ATen reports as an error")
        z = _resized(b, z if is_inverse else conj(b, z), axis, length // 2 + 1)
        return to_reals(b, z, axis, length, Direction(True, _scale(norm, [length], is_inverse)))

    lowering.__doc__ = f"aten::{name}(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor"
    lowers_complex(f"torch.aten.{name}")(lowering)


_to_real("fft_irfft", True)
_to_real("fft_hfft", False)


# -- more dimensions -------------------------------------------------------------------------------------------------


def _axes(b: Builder, x: Expr, sizes: list[int] | None, dim: list[int] | None) -> tuple[list[int], list[int | None]]:
    """The transformed axes, and what length each is given."""
    rank = b.rank(x)
    if dim is None:
        axes = list(range(rank)) if sizes is None else list(range(rank - len(sizes), rank))
    else:
        axes = [b.axis(d, rank) for d in dim]
    given: list[int | None] = [None] * len(axes) if sizes is None else [None if n == -1 else n for n in sizes]
    if len(given) != len(axes):
        b.unsupported("sizes that do not fit the dimensions")
    return axes, given


def _several(name: str, is_inverse: bool) -> None:
    def lowering(b: Builder, z: Complex, s: list[int] | None, dim: list[int] | None, norm: str | None) -> Parts:
        axes, given = _axes(b, z.re, s, dim)
        z = _floating(b, z)
        for axis, length in zip(axes, given, strict=True):
            z = _resized(b, z, axis, length)
        lengths = [_length(b, z.re, axis) for axis in axes]
        return _along(b, z, axes, is_inverse, _scale(norm, lengths, is_inverse)) if axes else z

    lowering.__doc__ = f"aten::{name}(Tensor self, SymInt[1]? s=None, int[1]? dim=None, str? norm=None) -> Tensor"
    lowers_complex(f"torch.aten.{name}")(lowering)


def _real_several(name: str, is_inverse: bool) -> None:
    def lowering(b: Builder, x: Tensor, s: list[int] | None, dim: list[int] | None, norm: str | None) -> Parts:
        axes, given = _axes(b, x, s, dim)
        z = _floating(b, Parts(x, 0))
        for axis, length in zip(axes, given, strict=True):
            z = _resized(b, z, axis, length)
        lengths = [_length(b, z.re, axis) for axis in axes]
        found = _real_along(b, z.re, axes, _scale(norm, lengths, is_inverse))
        return conj(b, found) if is_inverse else found

    lowering.__doc__ = f"aten::{name}(Tensor self, SymInt[1]? s=None, int[1]? dim=None, str? norm=None) -> Tensor"
    lowers_complex(f"torch.aten.{name}")(lowering)


def _to_real_several(name: str, is_inverse: bool) -> None:
    def lowering(b: Builder, z: Complex, s: list[int] | None, dim: list[int] | None, norm: str | None) -> Expr:
        axes, given = _axes(b, z.re, s, dim)
        z = _floating(b, z)
        for axis, length in zip(axes[:-1], given[:-1], strict=True):
            z = _resized(b, z, axis, length)
        lengths = [_length(b, z.re, axis) for axis in axes[:-1]]
        last = 2 * (_length(b, z.re, axes[-1]) - 1) if given[-1] is None else given[-1]
        if last < 1:
            b.unsupported("a Fourier transform of nothing, which ATen reports as an error")
        z = z if is_inverse else conj(b, z)
        return _real_from(b, z, axes, last, _scale(norm, [*lengths, last], is_inverse))

    lowering.__doc__ = f"aten::{name}(Tensor self, SymInt[1]? s=None, int[1]? dim=None, str? norm=None) -> Tensor"
    lowers_complex(f"torch.aten.{name}")(lowering)


for _suffix in ("2", "n"):
    _several(f"fft_fft{_suffix}", False)
    _several(f"fft_ifft{_suffix}", True)
    _real_several(f"fft_rfft{_suffix}", False)
    _real_several(f"fft_ihfft{_suffix}", True)
    _to_real_several(f"fft_irfft{_suffix}", True)
    _to_real_several(f"fft_hfft{_suffix}", False)
