"""The discrete Fourier transform of many vectors of one length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch_tvm.workloads.workload import Workload

RADICES = (13, 11, 7, 5, 3, 2)
"""The primes that a length may be made of."""


@dataclass(frozen=True)
class FourierWorkload(Workload):
    """``out[o, k, l] = scale * sum over j of x[o, j, l] * roots[j * k % length] (* twiddles[k, l])``.

    Numbers are pairs of reals. The vectors of one ``o`` lie beside each other, ``[outer, length, lanes, 2]``, or one
    after the other where ``rows_in`` or ``rows_out`` say so: ``[outer, lanes, length, 2]``. Operands in order: ``x``,
    ``roots`` ``[length, 2]``, and where ``twiddles`` is set a factor for each result, ``[length, lanes, 2]``. The roots
    say by themselves which way the transform goes; ``is_inverse`` says it again for constants of the kernel.
    """

    ATTRIBUTE: ClassVar[str] = "torch_tvm.fourier"

    length: int
    is_inverse: bool
    rows_in: bool
    rows_out: bool
    twiddles: bool
    scale: float


def factors(length: int) -> list[int] | None:
    """The primes of a length, the largest first; ``None`` where one is too large."""
    found: list[int] = []
    for prime in RADICES:
        while length % prime == 0:
            found.append(prime)
            length //= prime
    return found if length == 1 else None
