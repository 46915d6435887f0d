"""``torch.fft``, and spectra of pieces of a signal."""

from __future__ import annotations

from typing import Any

import torch
from lowering.rows import Row, row
from lowering.rows.complex import C128, numbers
from torch import Tensor as T
from torch import fft


def along_one(z: T, x: T, w: T) -> tuple[T, ...]:
    return (
        fft.fft(z), fft.ifft(z, norm="ortho"), fft.fft(z, norm="forward"), fft.rfft(x), fft.irfft(z), fft.hfft(z),
        fft.ihfft(x), fft.fft(x, n=24), fft.fft(x, n=7), fft.rfft(x, dim=0, n=9), fft.irfft(w, n=11, dim=1),
        fft.fft(w, dim=1), fft.fft(x[0]), fft.fft(torch.arange(12)), fft.irfft(z, norm="ortho"), fft.hfft(z, n=9),
        fft.ihfft(x, norm="forward"), fft.fft(z, n=1),
    )  # fmt: skip


def along_many(w: T, x: T) -> tuple[T, ...]:
    return (
        fft.fft2(w), fft.ifft2(w, norm="ortho"), fft.fftn(w, norm="forward"), fft.ifftn(w, dim=(0, 2)), fft.rfft2(x),
        fft.irfft2(w, s=(10, 7)), fft.rfftn(x, s=(6, 9)), fft.irfftn(w), fft.hfft2(w), fft.ihfft2(x),
        fft.hfftn(w, s=(3, 5)),
        fft.ihfftn(x), fft.fftshift(x), fft.ifftshift(w), fft.rfft2(x.mT), fft.fft2(x, s=(4, -1)),
    )  # fmt: skip


def of_lengths(*vectors: T) -> tuple[T, ...]:
    return tuple(fft.fft(v) for v in vectors)


def back(*vectors: T) -> tuple[T, ...]:
    return (
        *(fft.ifft(fft.fft(v)) for v in vectors),
        *(fft.irfft(fft.rfft(v.real), n=v.shape[-1]) for v in vectors),
    )


def spectra(x: T, w: T, z: T) -> tuple[T, ...]:
    how: dict[str, Any] = {"window": w, "return_complex": True}
    return (
        torch.stft(x, 16, 4, **how),
        torch.stft(x[0], 20, win_length=16, normalized=True, center=False, **how),
        torch.stft(z, 16, onesided=False, **how),
    )


def signals(s: T, w: T, z: T) -> tuple[T, ...]:
    return (
        torch.istft(s, 16, 4, window=w),
        torch.istft(s[1], 16, 4, window=w, length=50, normalized=True),
        torch.istft(z, 16, 4, window=w, onesided=False, return_complex=True),
    )


LENGTHS = (2, 3, 4, 5, 8, 9, 11, 13, 16, 17, 26, 30, 49, 64, 120, 127, 128, 210, 243, 256)
"""Each radix, several together, primes and powers of them."""


ROWS: list[Row] = [
    row(
        ["aten.fft_fft", "aten.fft_ifft", "aten.fft_rfft", "aten.fft_irfft", "aten.fft_hfft", "aten.fft_ihfft"],
        along_one,
        lambda s: [(numbers(s, 3, 10), s.floats(20, 12), numbers(s, 2, 6, 17, dtype=C128))],
        dynamic=None,
    ),
    row(
        [f"aten.fft_{stem}{many}" for stem in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft") for many in "2n"],
        along_many,
        lambda s: [(numbers(s, 2, 6, 5, dtype=C128), s.floats(8, 12))],
    ),
    row(
        "aten.fft_fft",
        of_lengths,
        lambda s: [tuple(numbers(s, 3 if n % 2 else 19, n) for n in LENGTHS)],
        id="fft-lengths",
    ),
    row(
        "aten.fft_fft",
        back,
        lambda s: [(numbers(s, 4096), numbers(s, 2, 1009), numbers(s, 20, 2500, dtype=C128), numbers(s, 6006))],
        id="fft-long",
    ),
    row(
        ["aten.fft_fft", "aten.fft_rfft2"],
        lambda z, x: (fft.fft(z), fft.ifft(z, dim=1), fft.irfft2(fft.rfft2(x)), fft.fft(x, dim=1)),
        lambda s: [(numbers(s, 3, 4, 30), s.floats(3, 8, 10))],
        dynamic=lambda s, n: (numbers(s, n, 4, 30), s.floats(n, 8, 10)),
        id="fft-unknown-sizes",
    ),
    row(
        "aten.stft.center",
        spectra,
        lambda s: [(s.floats(2, 60), torch.hann_window(16), numbers(s, 40))],
    ),
    row(
        "aten.istft",
        signals,
        lambda s: [(numbers(s, 2, 9, 16), torch.hann_window(16), numbers(s, 2, 16, 12))],
        refused={"torchscript": "PyTorch looks at the sums of the windows for the shape"},
        slack=1e-4,
    ),
    row(
        ["aten._fft_c2c", "aten._fft_r2c", "aten._fft_c2r"],
        lambda z, x: (
            torch.ops.aten._fft_c2c(z, [0, 1], 2, True), torch.ops.aten._fft_c2c(z, [1], 1, False),
            torch.ops.aten._fft_r2c(x, [0, 1], 1, True), torch.ops.aten._fft_r2c(x, [1], 0, False),
            torch.ops.aten._fft_c2r(z, [0, 1], 2, 12),
        ),
        lambda s: [(numbers(s, 5, 7), s.floats(4, 6))],
    ),
    row(
        (),
        lambda z: torch.stft(z, 10, return_complex=False),
        lambda s: [(torch.complex(s.floats(40), s.floats(40)),)],
        id="stft-of-complex-numbers-as-pairs",
    ),
]  # fmt: skip
