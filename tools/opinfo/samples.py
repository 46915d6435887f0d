"""Samples of PyTorch's own operator database: calls of one operator, and what tells two results apart."""

from __future__ import annotations

import random
import sys
import types
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool,
)  # fmt: skip
TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}
SPECIAL = (0.0, -0.0, 1.0, -1.0, float("inf"), -float("inf"), float("nan"), 1e-30, 1e4)
WHOLE = (0, 1, -1, 2, -3, 7, -(2**31), 2**31 - 1)
MAX_ELEMENTS = 4096


def database() -> list[Any]:
    """PyTorch's operators with their samples; of what its test tools import we have no need."""
    stub = types.ModuleType("expecttest")
    stub.TestCase = unittest.TestCase  # type: ignore[attr-defined]
    stub.assert_expected_inline = None  # type: ignore[attr-defined]
    sys.modules.setdefault("expecttest", stub)
    from torch.testing._internal import common_methods_invocations as invocations

    # The database seeds within an operator that draws, where a tracer does not look: each call is seeded from outside.
    invocations.wrapper_set_seed = lambda op, *args, **kwargs: op(*args, **kwargs)
    return list(invocations.op_db)


@dataclass
class Case:
    """A call of an operator: the tensors among its arguments, and the function of them.

    Errors of a ``is_transform`` are those of its largest results: each is a sum of all arguments.
    """

    dtype: torch.dtype
    kind: str
    tensors: list[torch.Tensor]
    function: Callable[..., Any]
    text: str
    is_transform: bool = False


def cases(op: Any, dtype: torch.dtype, seed: int, count: int) -> Iterator[Case]:
    """Some of the samples, and each of those once more with zeros, infinities, NaN and extremes sprinkled in."""
    r = random.Random(f"{seed} {op.full_name} {dtype}")
    torch.manual_seed(seed)
    samples = []
    for index, sample in enumerate(op.sample_inputs("cpu", dtype, requires_grad=False)):
        if index > 80:
            break
        leaves = pytree.tree_leaves((sample.input, sample.args, sample.kwargs))
        if sum(leaf.numel() for leaf in leaves if isinstance(leaf, torch.Tensor)) <= MAX_ELEMENTS:
            samples.append(sample)
    for sample in r.sample(samples, min(count, len(samples))):
        leaves, spec = pytree.tree_flatten(((sample.input, *sample.args), dict(sample.kwargs)))
        tensors = [leaf.detach() for leaf in leaves if isinstance(leaf, torch.Tensor)]
        if not tensors:
            continue
        function = _function(op, leaves, spec)
        text = f"{sample.input!s:.120} {sample.args!s:.200} {sample.kwargs!s:.200}".replace("\n", " ")
        is_transform = op.full_name.startswith("fft.")
        for kind, given in (("sample", tensors), ("special", [_sprinkled(t, r) for t in tensors])):
            yield Case(dtype, kind, given, function, text, is_transform)


def _function(op: Any, leaves: list[Any], spec: Any) -> Callable[..., Any]:
    def call(*tensors: torch.Tensor) -> Any:
        remaining = iter(tensors)
        filled = [next(remaining) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(filled, spec)
        return op.op(*args, **kwargs)

    return call


def _sprinkled(tensor: torch.Tensor, r: random.Random) -> torch.Tensor:
    if tensor.dtype.is_complex or tensor.dtype == torch.bool or tensor.numel() == 0:
        return tensor
    is_index = not tensor.dtype.is_floating_point and bool((tensor >= 0).all())
    if is_index:
        return tensor
    changed = tensor.clone().contiguous()
    flat = changed.view(-1)
    values = SPECIAL if tensor.dtype.is_floating_point else WHOLE
    for position in range(flat.numel()):
        if r.random() < 0.3:
            value = r.choice(values)
            flat[position] = (
                value if tensor.dtype.is_floating_point else value % 2 ** (8 * tensor.element_size() - 1)
            )
    return changed


def difference(ours: Any, eager: Any, is_transform: bool = False) -> str | None:
    """How two results differ, if they do; those of a transform by more than the largest of them explains."""
    mine, spec = pytree.tree_flatten(ours)
    theirs, wanted = pytree.tree_flatten(eager)
    if len(mine) != len(theirs):
        return f"nesting {spec} for {wanted}"
    for index, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        if not isinstance(b, torch.Tensor):
            if isinstance(a, torch.Tensor) or type(a) is not type(b) or (a != b and a == a):
                return f"{index}: {a!r} for {b!r}"
            continue
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"{index}: {a.dtype}{list(a.shape)} for {b.dtype}{list(b.shape)}"
        if a.dtype.is_complex:
            a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
        if a.dtype.is_floating_point:
            limit = TOLERANCE.get(a.dtype, 0.3)
            x, y = a.double(), b.double()
            special = (x.isnan() != y.isnan()) | ((x.isinf() | y.isinf()) & (x != y))
            size = y[y.isfinite()].abs().max() if is_transform and bool(y.isfinite().any()) else y.abs()
            wrong = special | ((x - y).abs() > limit * (1 + size))
        else:
            wrong = a != b
        if bool(wrong.any()):
            pairs = list(zip(a[wrong].tolist(), b[wrong].tolist(), strict=True))[:3]
            return f"{index}: {int(wrong.sum())} of {wrong.numel()}: " + ", ".join(
                f"{p} for {q}" for p, q in pairs
            )
    return None


def eager_result(case: Case) -> Any:
    """Eager's result after a seed; ``None`` where it raises or is not a function of its arguments and the seed."""
    copies = lambda: [tensor.clone() for tensor in case.tensors]
    try:
        first, second = [case.function(*copies()) for _ in map(torch.manual_seed, (0, 0))]
    except Exception:  # an operator refuses a dtype or a value in its own way
        return None
    leaves = pytree.tree_leaves(first)
    if not leaves or not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        return None
    if any(leaf.layout != torch.strided or leaf.is_quantized for leaf in leaves):
        return None
    return None if difference(second, first) else first


__all__ = ["DTYPES", "Case", "cases", "database", "difference", "eager_result"]
