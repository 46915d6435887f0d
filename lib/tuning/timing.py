"""What a machine is asked: how long kernels take, interleaved, and whether they compute what the first one does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from torch_tvm.profiling.autotune import random_tensor

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 2e-2}
"""How far results may be apart, relative to themselves and to their root mean square."""

Operand = tuple[Sequence[int], str]
"""The shape and the dtype of an argument."""


@dataclass(frozen=True)
class Outcome:
    """``seconds`` of one call, or ``error``: why there are none."""

    seconds: float = 0.0
    error: str = ""


class Timer(Protocol):
    """A machine that measures."""

    def measure(self, libraries: Mapping[str, bytes], operands: Sequence[Operand], rounds: int) -> dict[str, Outcome]:
        """Time kernels, the first of which is right, interleaved in ``rounds``."""

    def close(self) -> None: ...


def surviving(
    libraries: Mapping[str, bytes],
    attempt: Callable[[dict[str, bytes]], dict[str, Outcome] | tuple[str, str]],
) -> dict[str, Outcome]:
    """Outcomes of kernels, of which one may end an ``attempt``: then that says which, and why, and the others are asked
    again. Where it is the first one, which is right, none is measured.
    """
    failed: dict[str, Outcome] = {}
    left, first = dict(libraries), next(iter(libraries))
    while first in left:
        found = attempt(left)
        if isinstance(found, dict):
            return {**failed, **found}
        culprit, why = found
        failed[culprit] = Outcome(error=why)
        del left[culprit]
    return {**{label: Outcome(error="not measured") for label in libraries}, **failed}


def arguments(operands: Sequence[Operand], seed: int = 1) -> list[torch.Tensor]:
    """Random arguments, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [random_tensor(shape, getattr(torch, dtype)) for shape, dtype in operands]


def difference(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> str:
    """How results differ by more than the tolerance, ``""`` where they do not."""
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        if not one.dtype.is_floating_point:
            if not torch.equal(one, other):
                return f"argument {index} differs"
            continue
        tolerance = TOLERANCES.get(one.dtype, 1e-1)
        wide, right = one.double(), other.double()
        scale = float(right[right.isfinite()].square().mean().sqrt()) if right.isfinite().any() else 0.0
        if not torch.allclose(wide, right, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
            return f"argument {index} differs by {float((wide - right).abs().max()):.3g}"
    return ""


__all__ = ["Operand", "Outcome", "Timer", "arguments", "difference", "surviving"]
