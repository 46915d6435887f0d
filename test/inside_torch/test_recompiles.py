"""A program under ``torch.compile`` is compiled for one size, then for all of them, and never again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounter

import torch_tvm.dynamo as backend
from torch_tvm.dynamo import GraphNotCompiled
from torch_tvm.runtime.warnings import FallbackWarning

SIZES = [7, 5, 9, 1, 12, 3, 2, 8, 6, 4, 11, 0, 13, 17, 10, 15, 14, 23, 16, 19]


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One entry for each graph that is compiled; what runs in PyTorch fails the test."""
    found: list[int] = []
    original = backend.compile_graph

    def counted(*arguments: Any, **options: Any) -> Any:
        found.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(backend, "compile_graph", counted)
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error", GraphNotCompiled)
        warnings.simplefilter("error", FallbackWarning)
        yield found


def convnet() -> nn.Module:
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), head).eval()


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1).eval()


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], torch.Tensor]]] = {
    "images in batches": (convnet, lambda n: torch.randn(n, 3, 6, 6)),
    "sequences": (encoder, lambda n: torch.randn(2, n, 8)),
}


def least(program: Callable[..., Any], calls: list[tuple[torch.Tensor, ...]]) -> int:
    """How many graphs dynamo makes of these calls by itself, for a backend that looks at nothing."""
    counter = CompileCounter()
    counted = torch.compile(program, backend=counter)
    for arguments in calls:
        counted(*arguments)
    torch._dynamo.reset()
    return int(counter.frame_count)


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_inference(name: str, compiles: list[int]) -> None:
    """One size, all sizes; 1 and 0 have a graph each of dynamo's, where it takes them for constants.

    So have batches of more than 15 images: PyTorch chooses there how it would convolve them.
    """
    make, argument = CASES[name]
    model = make()
    wanted = least(model, [(argument(size),) for size in SIZES])
    fast = torch.compile(model, backend="torch_tvm")
    counts = []
    for size in [*SIZES, *SIZES]:
        x = argument(size)
        torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)
        counts.append(len(compiles))
    assert counts[2] <= 2
    assert counts[len(SIZES) - 1] == counts[-1] == wanted


@torch.no_grad()
@pytest.mark.parametrize("past", [3, 0])
def test_a_growing_cache(past: int, compiles: list[int]) -> None:
    project = nn.Linear(8, 24)

    def step(x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> Any:
        q, k, v = project(x).chunk(3, -1)
        keys, values = torch.cat([keys, k], 1), torch.cat([values, v], 1)
        heads = lambda t: t.unflatten(-1, (2, 4)).transpose(1, 2)
        return F.scaled_dot_product_attention(heads(q), heads(keys), heads(values)), keys, values

    caches = [torch.zeros(1, length, 8) for length in range(past, past + 20)]
    fewest = least(step, [(torch.randn(1, 1, 8), cache, cache.clone()) for cache in caches])
    fast = torch.compile(step, backend="torch_tvm")
    keys, values = torch.zeros(1, past, 8), torch.zeros(1, past, 8)
    settles = 1 if past else 3  # sizes 0 and 1 have graphs of their own
    for turn in range(20):
        x = torch.randn(1, 1, 8)
        wanted = step(x, keys, values)
        ours = fast(x, keys, values)
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)
        _, keys, values = wanted
        if turn == settles:
            settled = len(compiles)
    assert len(compiles) == settled == fewest


def test_a_trained_loss(compiles: list[int]) -> None:
    model = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 11))
    loss = lambda x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    text = lambda length: torch.randint(0, 11, (2, length))
    wanted = least(loss, [(text(length), text(length)) for length in SIZES])
    fast = torch.compile(loss, backend="torch_tvm")
    counts = []
    for length in [*SIZES, *SIZES]:
        x, y = text(length), text(length)
        ours, eager = [torch.autograd.grad(f(x, y), list(model.parameters())) for f in (fast, loss)]
        torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5, equal_nan=True)
        counts.append(len(compiles))
    assert counts[2] <= 4  # forward and backward
    assert counts[len(SIZES) - 1] == counts[-1] == 2 * wanted


def _filled_by_two_sizes(x: torch.Tensor) -> torch.Tensor:
    return torch.zeros(x.shape[1]) * x.shape[0] + x.shape[0] // 2


def _powers(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    whole = (x * 3).int()
    return whole ** x.shape[0], torch.pow(x.shape[1], whole.abs())


def _scattered(x: torch.Tensor) -> torch.Tensor:
    return x.scatter(0, torch.zeros(min(1, x.shape[0]), x.shape[1], dtype=torch.long), x.shape[1])


def _norms(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    layer, root = F.layer_norm(x, (x.shape[1],)), F.rms_norm(x, (x.shape[1],), eps=1e-6)
    return layer, root, F.mse_loss(x, x * 2)


@pytest.mark.parametrize("program", [_filled_by_two_sizes, _powers, _scattered, _norms])
def test_sizes_as_numbers(program: Any, compiles: list[int]) -> None:
    """Two sizes in one kernel that reads no tensor; powers, fillers and norms by sizes, 0 among them."""
    fast = torch.compile(program, backend="torch_tvm", dynamic=True)
    for shape in [(3, 4), (5, 2), (0, 3), (4, 0), (1, 1)]:
        x = torch.randn(shape)
        torch.testing.assert_close(fast(x), program(x), rtol=1e-4, atol=1e-5, equal_nan=True)


def _written_front(x: torch.Tensor, number: int) -> torch.Tensor:
    y = x.clone()
    y[0 : abs(number)] = number
    return y


def _power(x: torch.Tensor, number: int) -> torch.Tensor:
    return x.int() ** (number - 1)


@pytest.mark.parametrize("program", [_written_front, _power])
def test_numbers_that_change(program: Any, compiles: list[int]) -> None:
    """A number that a slice and what is written need; negative powers of whole numbers are errors, as in eager."""
    fast = torch.compile(program, backend="torch_tvm", dynamic=True)
    x = torch.arange(12.0).reshape(3, 4)
    for number in (3, 5, 1, -2, 2):
        try:
            expected = program(x, number)
        except RuntimeError:
            with pytest.raises(RuntimeError, match="negative integer powers"):
                fast(x, number)
            continue
        torch.testing.assert_close(fast(x, number), expected, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_of_unknown_channels(training: bool, compiles: list[int]) -> None:
    """A batch of nothing is another graph, in which the channels are unknown still."""
    norm = nn.BatchNorm1d(3, track_running_stats=not training).train(training)
    fast = torch.compile(norm, backend="torch_tvm", dynamic=True)
    for size in (4, 0, 5):
        x = torch.randn(size, 3)
        torch.testing.assert_close(fast(x), norm(x), rtol=1e-4, atol=1e-5)


def _stepped(x: torch.Tensor, number: float) -> tuple[torch.Tensor, torch.Tensor]:
    x.mul_(1 - number).lerp_(x + 1, number)
    return torch.addcdiv(x, x, x + 9, value=-number / 3), x - number**3


def _leaky(x: torch.Tensor, number: float) -> torch.Tensor:
    return F.leaky_relu(x.mul_(2), number)


@pytest.mark.parametrize(("program", "graphs"), [(_stepped, 2), (_leaky, 4)])
def test_python_floats(program: Any, graphs: int, compiles: list[int]) -> None:
    """Arithmetic takes any number, as that of a learning rate; a slope is a constant of its kernel."""
    fast = torch.compile(program, backend="torch_tvm")
    for number in (0.25, 0.75, 0.5, 0.125):
        ours, eager = torch.arange(1.0, 4.0), torch.arange(1.0, 4.0)
        torch.testing.assert_close(fast(ours, number), program(eager, number))
        torch.testing.assert_close(ours, eager)
    assert len(compiles) == graphs
