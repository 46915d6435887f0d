"""Samples of PyTorch's own operator database: calls of one operator, and what tells two results apart."""

from __future__ import annotations

import random
import re
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
TAME = re.compile("polynomial|^mode$|^(var|std)_mean")
"""Operators that are given no infinities, NaN and huge integers, for which eager's results are chance: polynomials of
NaN are what lies in memory, and those of huge degrees take minutes; a sort of NaN, or a running mean of infinities,
depends on their order.
"""


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

    Errors of a ``is_transform`` are those of its largest results: each is a sum of all arguments. So those are finite:
    the order of a sum says what becomes of infinite ones.
    """

    dtype: torch.dtype
    kind: str
    tensors: list[torch.Tensor]
    function: Callable[..., Any]
    text: str
    is_transform: bool = False


def cases(op: Any, dtype: torch.dtype, seed: int, count: int) -> Iterator[Case]:
    """Some of the samples, and each of those once more with zeros, infinities, NaN and extremes sprinkled in.

    No infinities among the weights of a layer: some of eager's convolutions multiply padding with them, some leave it
    out.
    """
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
        is_transform = re.match(r"fft\.|i?stft$", op.full_name) is not None
        is_tame = is_transform or TAME.search(op.full_name) is not None
        has_weights = re.search("conv|norm$", op.full_name) is not None
        special = [_sprinkled(t, r, is_tame or (has_weights and i > 0)) for i, t in enumerate(tensors)]
        for kind, given in (("sample", tensors), ("special", special)):
            yield Case(dtype, kind, given, function, text, is_transform)


def _function(op: Any, leaves: list[Any], spec: Any) -> Callable[..., Any]:
    """The operator; of what lies in memory by chance sizes and dtype count, of equal elements any is the one found."""
    is_chance = op.full_name.removeprefix("new_").split("_")[0] == "empty"
    finds = op.full_name == "topk"

    def call(*tensors: torch.Tensor) -> Any:
        remaining = iter(tensors)
        filled = [next(remaining) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(filled, spec)
        result = op.op(*args, **kwargs)
        if finds:
            return result.values, torch.gather(args[0], kwargs.get("dim", [*args, -1, -1][2]), result.indices)
        return torch.zeros_like(result) if is_chance else result

    return call


def _sprinkled(tensor: torch.Tensor, r: random.Random, is_tame: bool = False) -> torch.Tensor:
    """With special values in some places: no infinities, NaN and huge integers where the operator is ``is_tame``."""
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
            if is_tame and not abs(value) < 2**30:
                continue
            flat[position] = value if tensor.dtype.is_floating_point else value % 2 ** (8 * tensor.element_size() - 1)
    return changed


def difference(ours: Any, eager: Any, is_transform: bool = False, exact: Any = None) -> str | None:
    """How two results differ, if they do; those of a transform by more than the largest of them explains.

    ``exact`` is the result in float64, where that is known: eager's own rounding is no fault of ours.
    """
    mine, spec = pytree.tree_flatten(ours)
    theirs, wanted = pytree.tree_flatten(eager)
    precise = pytree.tree_leaves(exact) if exact is not None else []
    if len(mine) != len(theirs):
        return f"nesting {spec} for {wanted}"
    for index, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        if not isinstance(b, torch.Tensor):
            if isinstance(a, torch.Tensor) or type(a) is not type(b) or (a != b and a == a):
                return f"{index}: {a!r} for {b!r}"
            continue
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"{index}: {a.dtype}{list(a.shape)} for {b.dtype}{list(b.shape)}"
        a, b = _reals(a), _reals(b)
        if a.dtype.is_floating_point:
            limit = TOLERANCE.get(a.dtype, 0.3)
            x, y = a.double(), b.double()
            special = (x.isnan() != y.isnan()) | ((x.isinf() | y.isinf()) & (x != y))
            size = y[y.isfinite()].abs().max() if is_transform and bool(y.isfinite().any()) else y.abs()
            wrong = special | ((x - y).abs() > limit * (1 + size))
            if index < len(precise) and precise[index].dtype in (torch.float64, torch.complex128):
                wrong &= ~_is_rounding(x, y, _reals(precise[index]), limit)
        else:
            wrong = a != b
        if bool(wrong.any()):
            pairs = list(zip(a[wrong].tolist(), b[wrong].tolist(), strict=True))[:3]
            return f"{index}: {int(wrong.sum())} of {wrong.numel()}: " + ", ".join(f"{p} for {q}" for p, q in pairs)
    return None


def _reals(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.dtype.is_complex else tensor


def _is_rounding(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, limit: float) -> torch.Tensor:
    """Where ``x`` is no farther from ``z`` than ``y``, which is near it, explains, or is what ``z`` is. All float64."""
    if z.shape != y.shape:
        return torch.zeros_like(x, dtype=torch.bool)
    size, error = limit * (1 + z.abs()), (y - z).abs()
    near = ((x - z).abs() <= size) | (((x - z).abs() <= 3 * error) & (error <= 100 * size))
    return near | (x == z) | (x.isnan() & z.isnan())


def exact_result(case: Case) -> Any:
    """The result for arguments in float64; ``None`` where the operator does not take those together."""
    wide = {torch.complex64: torch.complex128}
    try:
        torch.manual_seed(0)
        return case.function(
            *(
                tensor.to(wide.get(tensor.dtype, torch.float64), copy=True)
                if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == case.dtype
                else tensor.clone()
                for tensor in case.tensors
            )
        )
    except Exception:
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


__all__ = ["DTYPES", "Case", "cases", "database", "difference", "eager_result", "exact_result"]
