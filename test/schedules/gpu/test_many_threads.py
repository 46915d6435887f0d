"""No kernel leaves more than 4096 elements to one thread: what is a loop on a CPU is many threads here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from numerics import assert_matches

import torch_tvm
from torch_tvm.runtime.opencl import devices
from torch_tvm.runtime.opencl.memory import Array
from torch_tvm.runtime.opencl.program import Machine

OBSTACLE = devices.why_no_device()
pytestmark = [
    pytest.mark.opencl,
    pytest.mark.skipif(bool(OBSTACLE), reason=OBSTACLE or "there is a device"),
]

MANY = 4096
"""Elements of the largest operand for each thread, at most."""

N = 10_000

Inputs = Callable[[], tuple[torch.Tensor, ...]]


def floats(*sizes: int) -> Inputs:
    return lambda: (torch.randn(*(sizes or (N,))),)


def whole(high: int, *sizes: int) -> Inputs:
    return lambda: (torch.randint(0, high, sizes or (N,)),)


def updates(places: int, count: int = N, width: int = 1) -> Inputs:
    """What is written to, where, and what: places come again and again."""
    size = [width] if width > 1 else []
    return lambda: (
        torch.randn(places, *size),
        torch.randint(0, places, (count,)),
        torch.randn(count, *size),
    )


def distinct(places: int, count: int) -> Inputs:
    """What is written to, where, and what: every place once, as eager PyTorch promises nothing else."""
    return lambda: (torch.randn(places), torch.randperm(places)[:count], torch.randn(count))


def shuffled() -> tuple[torch.Tensor, ...]:
    return (torch.randperm(N) - 3000.5,)


def with_nan() -> tuple[torch.Tensor, ...]:
    x = torch.randn(N)
    x[7000] = float("nan")
    return (x,)


PROGRAMS: dict[str, dict[str, tuple[Callable[..., Any], Inputs]]] = {
    "scans": {
        "cumsum": (lambda x: x.cumsum(0), floats()),
        "cumsum of few rows": (lambda x: x.cumsum(1), floats(3, 5000)),
        "cumsum in the middle": (lambda x: x.cumsum(1), floats(2, 3000, 5)),
        "cumsum of integers": (lambda x: x.cumsum(0), whole(9)),
        "cummax": (lambda x: x.cummax(0), whole(50)),
        "cummax of NaN": (lambda x: x.cummax(0), with_nan),
        "cummin": (lambda x: x.cummin(1), floats(2, 3000, 5)),
        "logcumsumexp": (lambda x: x.logcumsumexp(0), floats()),
    },
    "orders": {
        "sort": (lambda x: x.sort(0), shuffled),
        "sort, largest first": (lambda x: x.sort(dim=1, descending=True, stable=True), whole(20, 3, 4000)),
        "sort in the middle": (lambda x: x.sort(dim=1, stable=True), floats(2, 900, 3)),
        "sort of short lines": (lambda x: x.sort(dim=1, stable=True), floats(100, 130)),
        "sort of int64": (
            lambda x: x.sort(dim=0, stable=True),
            lambda: (torch.randint(-(2**40), 2**40, (N,)),),
        ),
        "topk": (lambda x: x.topk(100), shuffled),
        "topk of short lines": (lambda x: x.topk(3, largest=False), floats(100, 130)),
        "unique": (lambda x: torch.unique(x, return_inverse=True, return_counts=True), whole(300)),
    },
    "counts": {
        "bincount": (lambda x: torch.bincount(x, minlength=70), whole(300)),
        "bincount of many": (lambda x: torch.bincount(x, minlength=70), whole(30_000)),
        "bincount of weights": (
            lambda x: torch.bincount(x, torch.linspace(0, 1, N, dtype=torch.float64)),
            whole(300),
        ),
        "histc": (lambda x: torch.histc(x, 30, -2, 2), floats()),
        "histc of many bins": (lambda x: torch.histc(x, 5000, -2, 2), floats()),
        "histogram": (lambda x: torch.histogram(x, 40, range=(-3.0, 3.0)), floats()),
        "nonzero": (lambda x: x.nonzero(), whole(2, 100, 100)),
        "masked select": (lambda x: x[x > 0], floats()),
    },
    "writes": {
        "index_put": (lambda x, i, s: x.index_put((i,), s), distinct(8000, 5000)),
        "index_put, sums": (lambda x, i, s: x.index_put((i,), s, accumulate=True), updates(8000)),
        "index_put of rows": (lambda x, i, s: x.index_put((i,), s, accumulate=True), updates(50, 300, 40)),
        "index_put of few": (lambda x, i, s: x.index_put((i,), s, accumulate=True), updates(4000, 20)),
        "index_add": (lambda x, i, s: x.index_add(0, i, s), updates(300, 400, 37)),
        "scatter": (lambda x, i, s: x.scatter(0, i, s), distinct(8000, 5000)),
        "scatter_add": (lambda x, i, s: x.scatter_add(0, i, s), updates(8000)),
        "scatter_add to few": (lambda x, i, s: x.scatter_add(0, i, s), updates(3)),
        "scatter of a number": (lambda x, i, s: x.scatter(0, i, 3.0), updates(8000)),
        "scatter, largest": (
            lambda x, i, s: x.scatter_reduce(0, i, s, "amax", include_self=False),
            updates(8000),
        ),
        "scatter, products": (lambda x, i, s: x.scatter_reduce(0, i, s, "prod"), updates(8000)),
        "scatter, means": (lambda x, i, s: x.scatter_reduce(0, i, s, "mean"), updates(8000)),
        "gradient of an embedding": (
            lambda g, i: torch.ops.aten.embedding_dense_backward(g, i, 500, -1, False),
            lambda: (torch.randn(700, 9), torch.randint(0, 500, (700,))),
        ),
    },
}


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """The name, the threads and the elements of the largest operand of each kernel that runs."""
    found: list[tuple[str, int, int]] = []
    launch: Any = Machine._launch

    def noted(self: Machine, name: str, groups: Any, items: Any, *operands: Any) -> None:
        sizes = [math.prod(operand.shape) for operand in operands if isinstance(operand, Array)]
        found.append((name, math.prod(groups) * math.prod(items), max(sizes, default=0)))
        launch(self, name, groups, items, *operands)

    monkeypatch.setattr(Machine, "_launch", noted)
    return found


@pytest.mark.parametrize("threads", [256, pytest.param(64, marks=pytest.mark.e2e)])
@pytest.mark.parametrize("family", PROGRAMS)
def test_many_threads(family: str, threads: int, launches: list[tuple[str, int, int]]) -> None:
    """Two sizes of blocks: a race would show. Sums are made in one order, so a second call gives the same bits."""
    programs = PROGRAMS[family]
    target = {"kind": "opencl", "max_num_threads": threads, "max_threads_per_block": threads}
    compiled = torch_tvm.compile(together(family), arguments(family), target=target, fallback=False)
    for _ in range(2):
        args = arguments(family)
        ours, again = compiled(*args), compiled(*args)
        for name, own, mine, second in zip(programs, args, ours, again, strict=True):
            assert_as_eager(name, mine, programs[name][0], own)
            assert all(map(torch.equal, map(torch.nan_to_num, mine), map(torch.nan_to_num, second))), name
    lonely = {(kernel, count) for kernel, count, elements in launches if elements > MANY * count}
    assert launches and not lonely


def together(family: str) -> Callable[..., Any]:
    """All programs of a family as one, each with a tuple of arguments of its own."""
    functions = [function for function, _ in PROGRAMS[family].values()]
    return lambda *args: [parts(function(*own)) for function, own in zip(functions, args, strict=True)]


def arguments(family: str) -> list[Any]:
    return [inputs() for _, inputs in PROGRAMS[family].values()]


def assert_as_eager(name: str, ours: Any, function: Callable[..., Any], args: Any) -> None:
    try:
        assert_matches(ours, lambda *own: parts(function(*own)), args)
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from error


def parts(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)
