"""The correctness rule: our result against eager PyTorch and against the same computation in double precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree


def assert_matches(ours: Any, eager_fn: Callable[..., Any], args: Sequence[Any], *, slack: float = 1e-5) -> None:
    """Compare ``ours`` with ``eager_fn(*args)``: same nesting, dtypes and shapes; integers and booleans exactly;
    floats with an RMSE against float64 of at most three times eager's plus ``slack``, and the same NaN and
    infinities as eager or as float64 where those two differ.
    """
    eager = eager_fn(*_copied(args))
    exact = eager_fn(*pytree.tree_map(_as_double, _copied(args)))
    expected, spec = pytree.tree_flatten(eager)
    got, got_spec = pytree.tree_flatten(ours)
    assert got_spec == spec, f"nesting {got_spec}, expected {spec}"
    reference = pytree.tree_leaves(exact)
    for index, (mine, theirs, best) in enumerate(zip(got, expected, reference, strict=True)):
        compare(mine, theirs, best, slack=slack, what=f"result {index}")


def compare(ours: Any, eager: Any, exact: Any, *, slack: float = 1e-5, what: str = "result") -> None:
    """The rule for one result; ``exact`` is the float64 computation (unused for integers and booleans)."""
    if not isinstance(eager, torch.Tensor):
        assert type(ours) is type(eager), f"{what}: {type(ours).__name__}, eager {type(eager).__name__}"
        if not isinstance(eager, (bool, int, float, complex)):  # None, a text: PyTorch has no tensor of it
            assert ours == eager, f"{what}: {ours!r}, eager {eager!r}"
            return
        eager, ours, exact = (torch.as_tensor(value) for value in (eager, ours, exact))
    assert isinstance(ours, torch.Tensor), f"{what}: {type(ours).__name__} instead of a tensor"
    assert ours.dtype == eager.dtype, f"{what}: dtype {ours.dtype}, eager {eager.dtype}"
    assert ours.shape == eager.shape, f"{what}: shape {tuple(ours.shape)}, eager {tuple(eager.shape)}"
    if not (eager.dtype.is_floating_point or eager.dtype.is_complex):
        wrong = ours != eager
        assert not wrong.any(), f"{what}: {int(wrong.sum())} of {wrong.numel()} differ: {_sample(ours, eager, wrong)}"
        return
    if eager.dtype.is_complex:
        ours, eager, exact = (torch.view_as_real(value.resolve_conj()) for value in (ours, eager, exact))
    _compare_floats(ours.double(), eager.double(), exact.double(), slack, what)


def _compare_floats(ours: torch.Tensor, eager: torch.Tensor, exact: torch.Tensor, slack: float, what: str) -> None:
    same = _special(ours).eq(_special(eager)) | _special(ours).eq(_special(exact))
    assert same.all(), f"{what}: NaN or infinity differs: {_sample(ours, eager, ~same)}"
    finite = ours.isfinite() & eager.isfinite() & exact.isfinite()
    if not finite.any():
        return
    mine = _rmse(ours[finite], exact[finite])
    theirs = _rmse(eager[finite], exact[finite])
    limit = 3 * theirs + slack
    assert mine <= limit, (
        f"{what}: RMSE {mine:.3g} against float64, eager's {theirs:.3g}, limit {limit:.3g}: "
        f"{_sample(ours, eager, (ours - exact).abs() > limit)}"
    )


def _special(x: torch.Tensor) -> torch.Tensor:
    """0 for finite, 1 for NaN, 2 and 3 for the infinities."""
    return x.isnan() * 1 + x.isposinf() * 2 + x.isneginf() * 3


def _rmse(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x - y).square().mean().sqrt())


def _sample(ours: torch.Tensor, eager: torch.Tensor, where: torch.Tensor) -> str:
    picked = list(zip(ours[where].tolist(), eager[where].tolist(), strict=True))[:4]
    return ", ".join(f"{mine} for {theirs}" for mine, theirs in picked)


def _as_double(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor) and leaf.dtype.is_floating_point:
        return leaf.double()
    if isinstance(leaf, torch.Tensor) and leaf.dtype.is_complex:
        return leaf.to(torch.complex128)
    return leaf


def _copied(args: Sequence[Any]) -> list[Any]:
    return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, list(args))
