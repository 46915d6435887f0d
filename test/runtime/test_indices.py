"""Positions that tensors give: where eager raises for one, so does compiled code, and it never reads outside."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor as T
from torch import nn

import torch_tvm

X = torch.arange(12.0).reshape(3, 4)
GOOD = torch.tensor([0, 2, 1])
BAD = (-1, -3, 3, -4, 2**32 + 1, 2**63 - 1, -(2**63))

USES: dict[str, Callable[[T, T], T]] = {
    "embedding": lambda x, i: F.embedding(i, x),
    "embedding of int32": lambda x, i: F.embedding(i % 2**31 if i.is_meta else i.clamp(-9, 9).int(), x),
    "index_select": lambda x, i: x.index_select(0, i),
    "gather": lambda x, i: x.gather(0, i[None]),
    "take": lambda x, i: x[:, 0].take(i),
    "take_along_dim": lambda x, i: x.take_along_dim(i[:, None], 0),
    "take_along_dim of all": lambda x, i: x[0, :3].take_along_dim(i),
    "index": lambda x, i: x[i],
    "index of columns": lambda x, i: x[:, None, :3][:, 0, i],
    "index of two": lambda x, i: x[i, i],
    "index of nothing": lambda x, i: x[:, :0][i],
    "index_put": lambda x, i: x.index_put((i,), x.new_ones(())),
    "index_put of elements": lambda x, i: x.index_put((i, i), x.new_ones(()), accumulate=True),
    "scatter": lambda x, i: x.scatter(0, i[:, None], 9.0),
    "scatter of a tensor": lambda x, i: x.scatter(0, i[:, None], x),
    "scatter with a product": lambda x, i: x.scatter(0, i[:, None], 2.0, reduce="multiply"),
    "scatter_add": lambda x, i: x.scatter_add(0, i[:, None], x),
    "scatter_reduce": lambda x, i: x.scatter_reduce(0, i[:, None], x, "mean"),
    "index_add": lambda x, i: x.index_add(0, i, x),
    "index_add of columns": lambda x, i: x[:, :3].index_add(1, i, x[:, :3]),
    "index_copy": lambda x, i: x.index_copy(0, i, x),
    "index_fill": lambda x, i: x.index_fill(0, i, 5.0),
    "one_hot": lambda x, i: F.one_hot(i, 3),
    "nll_loss": lambda x, i: F.nll_loss(x[:, :3], i, reduction="sum"),
    "cross_entropy": lambda x, i: F.cross_entropy(x[:, :3], i),
    "cross_entropy that ignores": lambda x, i: F.cross_entropy(x[:, :3], i, ignore_index=-1, reduction="none"),
    "max_unpool3d": lambda x, i: torch.ops.aten.max_unpool3d(
        x[None, :1, None, None, :3], i[None, None, None, None], (1, 1, 3), (1, 1, 1), (0, 0, 0)
    ),
    "max_unpool2d": lambda x, i: torch.ops.aten.max_unpool2d(x[None, :1, None, :3], i[None, None, None], (1, 3)),
    "searchsorted": lambda x, i: torch.searchsorted(x[0, [0, 2, 1]], x[0, :3], sorter=i),
    "fallback": lambda x, i: x.index_reduce(0, i, x, "amax"),
}
"""Uses of positions in a dimension of 3; most do not take negative ones."""


class Uses(nn.Module):
    """All of them, each with positions of its own."""

    def forward(self, x: T, *indices: T) -> tuple[T, ...]:
        return tuple(use(x, i) for use, i in zip(USES.values(), indices, strict=True))


def _outcome(function: Callable[..., Any], *arguments: T) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        return error


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
def test_where_eager_raises(frontend: str) -> None:
    program: Any = Uses()
    arguments = (X, *[GOOD.clone() for _ in USES])
    if frontend == "torchscript":
        program = torch.jit.trace(program, arguments)
    compiled = torch_tvm.compile(program, arguments, frontend=frontend)
    for ours, eager in zip(compiled(*arguments), Uses()(*arguments), strict=True):
        torch.testing.assert_close(ours, eager)
    for at, (name, use) in enumerate(USES.items(), start=1):
        for place, bad in ((place, bad) for place in (0, 1) for bad in BAD):
            positions = GOOD.index_fill(0, torch.tensor(place), bad)
            eager = _outcome(use, X, positions)
            ours = _outcome(compiled, *arguments[:at], positions, *arguments[at + 1 :])
            if isinstance(eager, Exception):
                assert isinstance(ours, torch_tvm.InvalidInput), f"{name} at {bad}: {ours}, eager {eager!r}"
                assert frontend == "lazy" or "test_indices.py:" in str(ours), ours
                assert "fallback" in name or str(bad) in str(ours) or "int32" in name, ours
            else:
                assert not isinstance(ours, Exception), f"{name} at {bad}: {ours!r}"
                torch.testing.assert_close(ours[at - 1], eager, msg=f"{name} at {bad}")


class Lookup(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 3)

    def forward(self, i: T) -> T:
        return self.table(i)


def test_the_message() -> None:
    compiled = torch_tvm.compile(Lookup(), (GOOD,))
    with pytest.raises(IndexError) as caught:
        compiled(torch.tensor([1, 7, 9]))
    head, where, advice = str(caught.value).split("\n")
    assert head.startswith(__file__) and head.endswith(
        "torch.aten.embedding: index 7 is out of range for a dimension of size 5"
    )
    assert where == "  in Lookup.table (importer: fx)" or "importer: fx" in where
    assert "check_indices" in advice


def test_torch_compile() -> None:
    module = Lookup()
    compiled = torch.compile(module, backend="torch_tvm")
    with torch.no_grad():
        assert torch.equal(compiled(GOOD), module(GOOD))
        with pytest.raises(torch_tvm.InvalidInput, match="index 5 is out of range"):
            compiled(torch.tensor([0, 5, 1]))
        assert torch.equal(compiled(GOOD), module(GOOD))
    clamped = torch.compile(module, backend="torch_tvm", options={"check_indices": False})
    with torch.no_grad():
        assert torch.equal(clamped(torch.tensor([0, 5, 1])), module(torch.tensor([0, 4, 1])))


class Walk(nn.Module):
    """Reads in a loop and in a branch."""

    def forward(self, x: T, places: T, start: int) -> T:
        total = torch.zeros(4)
        if start < 0:
            total = total + x[places][0]
        for turn in range(start, places.shape[0]):
            total = total + x[places[turn]]
        return total


def test_loops_and_branches() -> None:
    script = torch.jit.script(Walk())
    arguments = (X, torch_tvm.TensorSpec((None,), torch.int64), 1)
    compiled = torch_tvm.compile(script, arguments)
    for places, start in (([1, 2, 0, 1], 1), ([9, 2, 0, 1], 1), ([0, 1], 2), ([1, -1], 0)):
        given = (X, torch.tensor(places), start)
        assert torch.equal(compiled(*given), Walk()(*given))
    for places, start in (([1, 2, 0, 3], 1), ([9, 1, 1], -1), ([0, -4], 0)):
        with pytest.raises(torch_tvm.InvalidInput, match=r"test_indices.py:\d+: .*out of range"):
            compiled(X, torch.tensor(places), start)


class Rows(nn.Module):
    """Uses of positions whose number is not known, in a dimension of unknown size."""

    def forward(self, x: T, a: T, b: T, c: T, d: T, e: T) -> tuple[T, T, T, T, T]:
        return (
            F.embedding(a, x),
            x[b],
            x.gather(0, c[:, None].expand(-1, 4)),
            x.index_fill(0, d, 1.0),
            x.index_put((e,), torch.ones(())),
        )


def test_sizes_of_zero() -> None:
    """Nothing lies in a dimension of size 0, whether that is known when compiling or not."""
    places = [torch_tvm.TensorSpec((None,), torch.int64)] * 5
    script = torch.jit.script(Rows())
    compiled = torch_tvm.compile(script, (torch_tvm.TensorSpec((None, 4), torch.float32), *places))
    static = torch_tvm.compile(script, (X[:0], *places))
    nothing, good = [GOOD[:0]] * 5, [GOOD] * 5
    for function, x, given in ((compiled, X, good), (static, X[:0], nothing)):
        for ours, eager in zip(function(x, *given), Rows()(x, *given), strict=True):
            assert torch.equal(ours, eager)
    for at in range(5):
        wrong = (X[:0], *nothing[:at], torch.tensor([0]), *nothing[at + 1 :])
        if at < 3:  # what is written into a tensor that is known to be empty changes nothing, and goes
            with pytest.raises(torch_tvm.InvalidInput, match="index 0 is out of range for a dimension of size 0"):
                static(*wrong)
        with pytest.raises(torch_tvm.InvalidInput, match=r"dimension of size 0|at least 1, got 0"):
            compiled(*wrong)


def test_a_constant_is_checked_when_the_program_is_compiled() -> None:
    class Table(nn.Module):
        def __init__(self, *places: int) -> None:
            super().__init__()
            self.register_buffer("places", torch.tensor(places))

        def forward(self, x: T) -> T:
            return x[self.places] + x[torch.tensor([0, -1])].sum(0)

    compiled = torch_tvm.compile(Table(2, -3), (X,))
    assert torch.equal(compiled(X), Table(2, -3)(X))
    assert not any("check_index" in kernel.name for kernel in compiled.report.kernels)
    with pytest.raises(torch_tvm.InvalidInput, match="index 3 is out of range"):
        compiled.load_state_dict({"places": torch.tensor([3, 1])})
    with pytest.raises(torch_tvm.InvalidInput, match=r"test_indices.py:.*index -4 is out of range"):
        torch_tvm.compile(Table(0, -4), (X,))


def test_many_positions_and_several_threads() -> None:
    """Enough positions for several threads in the check; the first bad one is named, in the thread that gave it."""
    x, count = torch.randn(100), 100_000
    good = torch.randint(0, 100, (count,))
    compiled = torch_tvm.compile(lambda x, i: x[i], (x, good))
    failures: list[str] = []

    def call(number: int) -> None:
        for turn in range(5):
            given = good.clone()
            if number % 2:
                given[[count - 1 - turn, count // 2 + turn]] = torch.tensor([999, 1000 + number])
                error = _outcome(compiled, x, given)
                if f"index {1000 + number} is out of range" not in str(error):
                    failures.append(f"{error!r}")
            elif not torch.equal(compiled(x, given), x[given]):
                failures.append("wrong")

    threads = [threading.Thread(target=call, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


class Broadcast(nn.Module):
    """Positions and values of sizes that the program computes."""

    def forward(self, x: T, places: int, others: int, values: int) -> tuple[T, T, T]:
        i, j, v = torch.arange(places), torch.arange(others), torch.ones(values)
        return x[i, j], x.index_put((i, j), v), x.index_put((i,), v[:, None])


def test_sizes_of_one_that_are_not_known() -> None:
    """Positions and values of a size that turns out to be one broadcast, as in eager; they were read out of bounds."""
    compiled = torch_tvm.compile(torch.jit.script(Broadcast()), (X, 3, 3, 3))
    for sizes in ((3, 3, 3), (3, 3, 1), (3, 1, 1), (3, 1, 3), (2, 2, 1), (1, 1, 1)):
        for ours, eager in zip(compiled(X, *sizes), Broadcast()(X, *sizes), strict=True):
            assert torch.equal(ours, eager), sizes
    with pytest.raises((torch_tvm.InvalidInput, RuntimeError)):
        compiled(X, 3, 3, 2)


def chosen(x: torch.Tensor, i: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    none = x[x[:, 0] > 1e9]
    return none[i], none.index_select(0, i)


UNCHECKED = """
import torch, torch_tvm, warnings
warnings.simplefilter("ignore")
from test_indices import BAD, GOOD, USES, X, Uses, chosen
torch.manual_seed(0)
arguments = (X, *[GOOD.clone() for _ in USES])
compiled = torch_tvm.compile(Uses(), arguments, options={"check_indices": False})
for ours, eager in zip(compiled(*arguments), Uses()(*arguments), strict=True):
    torch.testing.assert_close(ours, eager)
names = [name for name in USES if "fallback" not in name]
for bad in BAD:
    given = [X] + [GOOD.index_fill(0, torch.tensor(1), bad) if n in names else GOOD for n in USES]
    results = dict(zip(USES, compiled(*given)))
    place = 2 if bad > 0 else 0
    assert torch.equal(results["embedding"], X[[0, place, 1]]), (bad, results["embedding"])
    assert torch.equal(results["index_add"][2], X[2]), bad
empty = torch_tvm.compile(
    lambda x, i: (x[i], x.index_select(0, i), x.index_put((i,), x.new_ones(())), x.index_fill(0, i, 1.0)),
    (X, GOOD), dynamic_shapes={"x": {0: torch.export.Dim("n", min=0, max=99)}, "i": {}},
    options={"check_indices": False},
)
try:
    empty(X[:0], GOOD)
    raise SystemExit("an axis without elements has no position")
except torch_tvm.InvalidInput as error:
    assert "expected a size from 1 to 99, got 0" in str(error)
found = torch_tvm.compile(torch.jit.script(chosen), (X, GOOD), options={"check_indices": False})
for ours in found(X, GOOD):
    assert torch.equal(ours, torch.zeros(3, 4)), ours
print("done")
"""


def test_without_checks_nothing_is_read_or_written_outside() -> None:
    """In a process of its own, which would die."""
    run = [sys.executable, "-c", UNCHECKED]
    done = subprocess.run(run, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.strip() == "done", done.stderr[-2000:]
