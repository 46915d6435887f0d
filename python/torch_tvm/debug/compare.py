"""When two tensors count as the same, and how far apart they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch_tvm.dialect.module import TorchModule

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""The error that results may have, relative to the largest number of the tensor, or to 1 where that is smaller."""


def error_of(ours: Any, theirs: Any) -> float:
    """The largest difference, relative as :data:`TOLERANCE` is; infinite for another dtype or shape, other NaNs or
    infinities, and for whole numbers and booleans that differ."""
    if not isinstance(theirs, torch.Tensor):
        return 0.0 if ours == theirs or ours != ours else float("inf")
    if not isinstance(ours, torch.Tensor) or (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return float("inf")
    if theirs.numel() == 0:
        return 0.0
    if theirs.dtype.is_complex:
        ours, theirs = torch.view_as_real(ours.resolve_conj()), torch.view_as_real(theirs.resolve_conj())
    if not theirs.dtype.is_floating_point:
        return 0.0 if torch.equal(ours, theirs) else float("inf")
    x, y = ours.double(), theirs.double()
    finite = y.isfinite()
    special = (x.isnan() != y.isnan()) | (~finite & ~y.isnan() & (x != y)) | (finite & ~x.isfinite())
    if bool(special.any()):
        return float("inf")
    if not bool(finite.any()):
        return 0.0
    return float((x - y)[finite].abs().max() / y[finite].abs().max().clamp(min=1.0))


def limit_of(value: Any, tolerance: float | None) -> float:
    """The error that a result may have."""
    if tolerance is not None:
        return tolerance
    return TOLERANCE.get(value.dtype, 1e-4) if isinstance(value, torch.Tensor) else 0.0


def both_results(
    module: TorchModule,
    args: Sequence[Any],
    target: Any,
    options: Any,
    reference: Callable[..., list[Any]] | None = None,
) -> tuple[list[Any], list[Any]]:
    """Flat results of a module of flat arguments, compiled and by ``reference``, which is the interpreter by default.

    Both draw the same random numbers.
    """
    import torch_tvm

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch_tvm.FallbackWarning)
        compiled = torch_tvm.compile(module, target=target, options=options)
        state = torch.get_rng_state()
        expected = (reference or module.run)(copied(args))
        torch.set_rng_state(state)
        found = compiled(*copied(args))
    return list(found) if isinstance(found, (tuple, list)) else [found], expected


def copied(args: Sequence[Any]) -> list[Any]:
    """Arguments that a program may write to."""
    return [arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in args]


__all__ = ["TOLERANCE", "both_results", "copied", "error_of", "limit_of"]
