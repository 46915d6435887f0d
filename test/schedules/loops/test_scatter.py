"""Scatters: rows wider than one thread's columns, equal destinations, groups that are written in parallel."""

from __future__ import annotations

import pytest
import torch

from ..programs import CompiledFunction
from ..relax_models import check


def run(function, *tensors: torch.Tensor) -> None:
    wide = [t.double() if t.is_floating_point() else t for t in tensors]
    check(CompiledFunction(function, tensors)(*tensors), function(*tensors), function(*wide))


@pytest.mark.parametrize("shape", [(9, 600), (9, 3, 5), (9, 1), (9, 256), (9, 257)])
@pytest.mark.parametrize("op", ["index_add", "index_put", "accumulate"])
def test_rows(op: str, shape: tuple[int, ...]) -> None:
    """Rows hit several times for sums; once where the last one wins."""
    function = {
        "index_add": lambda x, i, s: x.index_add(0, i, s, alpha=2),
        "index_put": lambda x, i, s: x.index_put((i,), s),
        "accumulate": lambda x, i, s: x.index_put((i,), s, accumulate=True),
    }[op]
    index = torch.randperm(9)[:6] if op == "index_put" else torch.randint(0, 9, (40,))
    run(function, torch.randn(shape), index, torch.randn(len(index), *shape[1:]))


def test_rows_of_two_indices() -> None:
    i, j = torch.randint(0, 4, (20,)), torch.randint(-5, 5, (20,))
    run(
        lambda x, i, j, s: x.index_put((i, j), s, accumulate=True),
        torch.randn(4, 5, 300),
        i,
        j,
        torch.randn(20, 300),
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("op", ["scatter_add", "amax", "mean"])
def test_groups(op: str, axis: int) -> None:
    """An index smaller than the tensor and the source in every dimension."""
    x, source = torch.randn(7, 8, 9), torch.randn(6, 7, 8)
    index = torch.randint(0, x.shape[axis], (5, 6, 7))
    if op == "scatter_add":
        run(lambda x, i, s: x.scatter_add(axis, i, s), x, index, source)
    else:
        run(lambda x, i, s: x.scatter_reduce(axis, i, s, op, include_self=False), x, index, source)


@pytest.mark.parametrize("axis", [0, 1])
def test_slices_that_are_copied(axis: int) -> None:
    x, index = torch.randn(7, 8), torch.randperm(7)[:4]
    source = torch.randn(4, 8) if axis == 0 else torch.randn(7, 4)
    run(lambda x, i, s: x.index_copy(axis, i, s), x, index, source)
