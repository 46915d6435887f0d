"""Scripted programs, whole: compiled with nothing left to PyTorch, for trip counts from zero to a million."""

from __future__ import annotations

import importlib.util
import pathlib
import resource
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

import torch_tvm


def _beside_importers(name: str) -> Any:
    """A file of the TorchScript importer's tests as a real module: ``torch.jit.script`` reads its source."""
    full = f"torchscript_{name}"
    if full not in sys.modules:
        path = pathlib.Path(__file__).parents[1] / "importers" / "torchscript" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(full, path)
        assert spec is not None and spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


PROGRAMS = _beside_importers("programs").PROGRAMS
programs = _beside_importers("test_generated").programs


def copied(args: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, args)


def assert_same(ours: Any, eager: Any) -> None:
    got, want = pytree.tree_leaves(ours), pytree.tree_leaves(eager)
    assert [type(leaf) for leaf in got] == [type(leaf) for leaf in want], (ours, eager)
    for a, b in zip(got, want, strict=True):
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
        else:
            assert a == b if not isinstance(a, float) else a == pytest.approx(b, rel=1e-9)


def compiled(scripted: Any, args: Any) -> torch_tvm.CompiledModule:
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch_tvm.FallbackWarning)
        module = torch_tvm.compile(scripted, copied(args), fallback=False)
    assert module.report.fallbacks == []
    return module


def test_there_are_at_least_sixty_programs() -> None:
    assert len({case.name for case in PROGRAMS}) >= 60


@pytest.mark.parametrize("case", PROGRAMS, ids=lambda case: case.name)
def test_program(case: Any) -> None:
    scripted = torch.jit.script(case.function)
    module = compiled(scripted, case.calls[0])
    nesting = [leaf is None for leaf in case.calls[0]]
    for call in case.calls:
        if [leaf is None for leaf in call] != nesting:
            module = compiled(scripted, call)
        assert_same(module(*copied(call)), scripted(*copied(call)))


# -- trip counts from a tensor -----------------------------------------------------------------------------


def triangular(n: torch.Tensor, a: int) -> tuple[int, float]:
    total, mean = 0, 0.0
    for i in range(int(n)):
        total += i * a
        mean = mean + (i - mean) / (i + 1)
    return total, mean


def lcg_until(limit: torch.Tensor, start: int) -> int:
    turns = 0
    while turns < int(limit) and start != 7:
        start = (start * 1103515245 + 12345) % 2147483648
        turns += 1
    return start


def walk(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    for i in range(int(n)):
        x = x * 0.5 + i % 3
    return x


def stack_rows(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    xs = [x]
    for i in range(int(n)):
        xs.append(x * i)
    return torch.cat(xs)


@pytest.fixture(scope="module")
def counting() -> Callable[[Any, Any], torch_tvm.CompiledModule]:
    built: dict[str, torch_tvm.CompiledModule] = {}

    def get(function: Any, args: Any) -> torch_tvm.CompiledModule:
        if function.__name__ not in built:
            built[function.__name__] = compiled(torch.jit.script(function), args)
        return built[function.__name__]

    return get


@pytest.mark.parametrize("turns", [0, 1, 2, 1_000_000])
@pytest.mark.parametrize("function", [triangular, lcg_until], ids=lambda f: f.__name__)
def test_numbers_for_any_trip_count(function: Any, turns: int, counting: Any) -> None:
    module = counting(function, (torch.tensor(3), 5))
    assert_same(module(torch.tensor(turns), 3), torch.jit.script(function)(torch.tensor(turns), 3))


@pytest.mark.parametrize("turns", [0, 1, 2, 20_000])
def test_tensors_for_any_trip_count(turns: int, counting: Any) -> None:
    module = counting(walk, (torch.randn(5), torch.tensor(3)))
    given_ = torch.randn(5)
    assert_same(module(given_, torch.tensor(turns)), torch.jit.script(walk)(given_, torch.tensor(turns)))


@pytest.mark.parametrize("turns", [0, 1, 300])
def test_growing_values_for_any_trip_count(turns: int, counting: Any) -> None:
    module = counting(stack_rows, (torch.randn(5), torch.tensor(3)))
    given_ = torch.randn(5)
    assert_same(module(given_, torch.tensor(turns)), torch.jit.script(stack_rows)(given_, torch.tensor(turns)))


def test_memory_stays_bounded_over_many_turns(counting: Any) -> None:
    module = counting(walk, (torch.randn(5), torch.tensor(3)))
    module(torch.randn(5), torch.tensor(10_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    module(torch.randn(5), torch.tensor(100_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8_000  # KiB


# -- errors of the program ---------------------------------------------------------------------------------


def guarded(x: torch.Tensor, n: int, divisor: int) -> torch.Tensor:
    assert bool((x < 100).all()), "small elements only"
    table = [1.0, 10.0, 100.0]
    y = x[n] * table[n] + (7 // divisor) + (9 % divisor)
    return y + torch.zeros(n + 3).sum()


@pytest.fixture(scope="module")
def checked() -> torch_tvm.CompiledModule:
    return compiled(torch.jit.script(guarded), (torch.ones(3), 1, 2))


@pytest.mark.parametrize(("n", "divisor"), [(0, 1), (2, 3), (-1, -1), (-3, -4), (1, -1)])
def test_checks_that_hold(checked: Any, n: int, divisor: int) -> None:
    given_ = torch.randn(3)
    assert_same(checked(given_, n, divisor), guarded(given_, n, divisor))


@pytest.mark.parametrize(
    ("fill", "n", "divisor", "kind", "message"),
    [
        (200.0, 1, 2, RuntimeError, r"test_control_flow\.py:\d+: AssertionError: small elements only"),
        (1.0, 3, 2, IndexError, r"test_control_flow\.py:\d+: select\(\): index out of range"),
        (1.0, -4, 2, IndexError, "index out of range"),
        (1.0, 2**62, 2, IndexError, "index out of range"),
        (1.0, 1, 0, RuntimeError, "integer division or modulo by zero"),
    ],
)
def test_what_eager_refuses_is_an_exception(
    checked: Any, fill: float, n: int, divisor: int, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        checked(torch.full((3,), fill), n, divisor)


def sized(x: torch.Tensor, n: int) -> torch.Tensor:
    return x.reshape(n, -1).sum(0) + torch.ones(n).sum() + torch.arange(n).sum()


def test_sizes_of_the_program_are_checked() -> None:
    module = compiled(torch.jit.script(sized), (torch.randn(12), 3))
    given_ = torch.randn(12)
    for n in (1, 2, 3, 6, 12):
        assert_same(module(given_, n), sized(given_, n))
    for n, message in ((5, "invalid for the number of elements"), (-2, "must not be negative")):
        with pytest.raises(RuntimeError, match=message):
            module(given_, n)


# -- nesting, captured sizes, results ----------------------------------------------------------------------


def nested(x: torch.Tensor, n: int) -> tuple[torch.Tensor, tuple[int, list[float]], bool]:
    scale, rows, found = 0.5, x.size(0), False
    total = torch.zeros(x.size(0), 2)
    for i in range(n):
        if i % 2 == 0:
            for j in range(rows):
                if bool(x[j] > 0):
                    total = total + x.size(0) * scale
                    found = True
                else:
                    total = total - i
        else:
            scale = scale + rows
    return total, (rows, [scale, 2.0]), found


def test_nested_structures_with_captured_sizes() -> None:
    spec = torch_tvm.TensorSpec((None,), torch.float32)
    module = torch_tvm.compile(torch.jit.script(nested), (spec, 2), fallback=False)
    assert module.report.fallbacks == []
    for size in (1, 4, 3):
        given_ = torch.randn(size)
        for n in (0, 1, 5):
            assert_same(module(given_, n), torch.jit.script(nested)(given_, n))


def only_numbers(n: int, f: float, b: bool) -> tuple[int, tuple[float, bool], float]:
    return 3, (f * n, not b), round(f)


def test_numbers_in_and_out() -> None:
    scripted = torch.jit.script(only_numbers)
    module = compiled(scripted, (2, 0.5, True))
    for args in ((2, 0.5, True), (-7, 2.5, False), (0, -1.5, True)):
        assert_same(module(*args), scripted(*args))


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(programs(), st.integers(0, 2**31))
def test_generated_program(source: str, seed: int) -> None:
    scripted = torch.jit.CompilationUnit(source).f
    generator = torch.Generator().manual_seed(seed)
    module = compiled(scripted, (torch.ones(3), torch.ones(3), 1))
    for n in (0, 1, 3):
        x, y = (torch.randn(3, generator=generator) for _ in range(2))
        assert_same(module(x, y, n), scripted(x, y, n))
