"""Decompositions, for symbolic sizes, of functions that would specialise them.

They stand in while a program is exported, for calls on sizes that may vary: ``torch.export`` would settle those sizes.
A few stand in always, for functions that cannot be exported.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from torch_tvm.aten import decompositions

aten = torch.ops.aten
Function = Callable[..., Any]


def open_form(func: Function, args: Sequence[Any], kwargs: dict[str, Any]) -> Function:
    """What to call instead of ``func``: itself where all sizes are known."""
    form = _FORMS.get(func)
    if form is None:
        return func
    leaves = pytree.tree_leaves((args, kwargs))
    return form if any(map(_is_open, leaves)) else func


def _is_open(leaf: Any) -> bool:
    sizes = leaf.shape if isinstance(leaf, Tensor) else [leaf]
    return any(isinstance(size, torch.SymInt) for size in sizes)


def kron(input: Tensor, other: Tensor) -> Tensor:
    """A product of each element of the one with each of the other."""
    rank = max(input.dim(), other.dim())
    one, two = (each.reshape([1] * (rank - each.dim()) + list(each.shape)) for each in (input, other))
    left = one.reshape([size for n in one.shape for size in (n, 1)])
    right = two.reshape([size for n in two.shape for size in (1, n)])
    return (left * right).reshape([n * m for n, m in zip(one.shape, two.shape, strict=True)])


def multi_dot(tensors: Sequence[Tensor], *, out: None = None) -> Tensor:
    """From the left: the cheapest order is another for other sizes."""
    return functools.reduce(torch.matmul, tensors)


def chain_matmul(*matrices: Any, out: None = None) -> Tensor:
    return multi_dot(matrices[0] if len(matrices) == 1 and not isinstance(matrices[0], Tensor) else matrices)


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Powers from 0 on, or down to it."""
    count = x.shape[0] if N is None else N
    powers = torch.arange(count)
    return torch.pow(x.unsqueeze(-1), powers if increasing else count - 1 - powers)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """Of two: the places above the diagonal of a square."""
    if r != 2:
        return decompositions.combinations(input, r, with_replacement)
    size = input.shape[0]
    places = torch.ones(size, size, dtype=torch.bool).triu(0 if with_replacement else 1).nonzero()
    return input[places]


def linspace(start: Any, end: Any, steps: Any, *, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
    """From both ends, as ATen's kernel computes it."""
    given = dtype or torch.get_default_dtype()
    if not given.is_floating_point or isinstance(start, Tensor) or isinstance(end, Tensor):
        return torch.linspace(start, end, steps, dtype=dtype, **options)
    place = torch.arange(steps)
    last = torch.full((), steps - 1, dtype=torch.int64)
    step = ((end - start) / last.clamp_min(1)).to(torch.float64)
    found = torch.where(place < steps // 2, start + step * place, end - step * (last - place))
    return torch.where(last < 1, start, found).to(given)


def logspace(start: Any, end: Any, steps: Any, base: float = 10.0, **options: Any) -> Tensor:
    dtype = options.pop("dtype", None) or torch.get_default_dtype()
    if not dtype.is_floating_point or isinstance(start, Tensor) or isinstance(end, Tensor):
        return torch.logspace(start, end, steps, base, dtype=dtype, **options)
    return torch.pow(base, linspace(start, end, steps, dtype=torch.float64)).to(dtype)


def _indices(keep: str, row: Any, col: Any, offset: int, dtype: torch.dtype) -> Tensor:
    mask = torch.ones(row, col, dtype=torch.bool)
    return getattr(mask, keep)(offset).nonzero().t().to(dtype)


def tril_indices(row: Any, col: Any, offset: int = 0, *, dtype: torch.dtype = torch.int64, **_: Any) -> Tensor:
    return _indices("tril", row, col, offset, dtype)


def triu_indices(row: Any, col: Any, offset: int = 0, *, dtype: torch.dtype = torch.int64, **_: Any) -> Tensor:
    return _indices("triu", row, col, offset, dtype)


def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> Any:
    """Into a number of parts of nearly one size, of which the first ones have one more."""
    count = indices_or_sections
    if not isinstance(count, int) or count < 1:
        return torch.tensor_split(input, count, dim)
    size = input.shape[dim]
    starts = [size // count * i + torch.sym_min(size % count, i) for i in range(count)]
    ends = [*starts[1:], size]
    return tuple(aten.slice(input, dim, first, last) for first, last in zip(starts, ends, strict=True))


def fftfreq(n: Any, d: float = 1.0, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    place = torch.arange(n)
    found = torch.where(place < (n + 1) // 2, place, place - n)
    return found.to(dtype or torch.get_default_dtype()) * (1.0 / (n * d))


def rfftfreq(n: Any, d: float = 1.0, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return torch.arange(n // 2 + 1).to(dtype or torch.get_default_dtype()) * (1.0 / (n * d))


def _cosines(*weights: float) -> Function:
    """A window that is a sum of cosines with these weights."""

    def window(window_length: Any, periodic: bool = True, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        last = torch.full((), window_length if periodic else window_length - 1, dtype=torch.float64)
        turn = torch.arange(window_length) * (2 * math.pi / last.clamp_min(1))
        terms = [(-1) ** k * weight * torch.cos(k * turn) for k, weight in enumerate(weights)]
        found = torch.where(torch.full((), window_length) == 1, 1.0, functools.reduce(torch.add, terms))
        return found.to(dtype or torch.get_default_dtype())

    return window


def equal(input: Tensor, other: Tensor) -> Any:
    """A question about data: its answer may be a result, and no branch."""
    if input.dim() != other.dim() or any(n != m for n, m in zip(input.shape, other.shape, strict=True)):
        return False
    return (input == other).all().item()


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Any:
    return torch.isclose(input, other, rtol, atol, equal_nan).all().item()


def random_(self: Tensor, *bounds: Any, **named: Any) -> Tensor:
    """Between two bounds, whose first one has a name that is no name in Python."""
    if len(bounds) != 2 or named or bounds[1] is None or not self.is_contiguous():
        return Tensor.random_(self, *bounds, **named)
    return self.copy_(torch.randint(*bounds, self.shape, dtype=self.dtype, device=self.device))


def narrow(input: Tensor, dim: int, start: Any, length: Any) -> Tensor:
    """From a place that a tensor has."""
    if not isinstance(start, Tensor):
        return torch.narrow(input, dim, start, length)
    size = input.shape[dim]
    first: Any = torch.where(start < 0, start + size, start).item()
    torch._check(length >= 0)
    torch._check(first >= 0)
    torch._check(first <= size - length)
    return aten.slice(input, dim, first, first + length)


TRACEABLE: dict[Function, Function] = {
    torch.narrow: narrow,
    Tensor.narrow: narrow,
    Tensor.random_: random_,
    torch.equal: equal,
    Tensor.equal: equal,
    torch.allclose: allclose,
    Tensor.allclose: allclose,
}
"""For functions that no export has, whatever the sizes."""

_FORMS: dict[Function, Function] = {
    torch.kron: kron,
    Tensor.kron: kron,
    torch.linalg.multi_dot: multi_dot,
    torch.chain_matmul: chain_matmul,
    torch.vander: vander,
    torch.linalg.vander: lambda x, *, N=None: vander(x, N, True),
    torch.combinations: combinations,
    torch.linspace: linspace,
    torch.logspace: logspace,
    torch.tril_indices: tril_indices,
    torch.triu_indices: triu_indices,
    torch.tensor_split: tensor_split,
    Tensor.tensor_split: tensor_split,
    torch.fft.fftfreq: fftfreq,
    torch.fft.rfftfreq: rfftfreq,
    torch.hann_window: _cosines(0.5, 0.5),
    torch.hamming_window: _cosines(0.54, 0.46),
    torch.blackman_window: _cosines(0.42, 0.5, 0.08),
}

__all__ = ["TRACEABLE", "open_form"]
