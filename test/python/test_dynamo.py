"""``torch.compile(model, backend="torch_tvm")``."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from torch_tvm.dynamo import GraphNotCompiled


@pytest.fixture(autouse=True)
def everything_is_compiled() -> Iterator[None]:
    """A graph that falls back to PyTorch fails a test, unless the test expects it."""
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error", GraphNotCompiled)
        yield


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
    ).eval()


def compiled(program: Any, **options: Any) -> Any:
    return torch.compile(program, backend="torch_tvm", options=options or None)


def test_the_backend_is_found_without_an_import() -> None:
    assert "torch_tvm" in torch._dynamo.list_backends(exclude_tags=None)


@torch.no_grad()
def test_inference_with_dynamic_batch_and_changed_weights() -> None:
    model = convnet()
    fast = compiled(model, fallback=False)
    for batch in (2, 3, 5):
        x = torch.randn(batch, 3, 8, 8)
        torch.testing.assert_close(fast(x), model(x))
    model[4].weight.mul_(2)
    torch.testing.assert_close(fast(x), model(x))
    model[4].weight.data = torch.randn(10, 512)
    torch.testing.assert_close(fast(x), model(x), atol=1e-4, rtol=1e-4)


def test_graph_breaks() -> None:
    def broken(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        c = torch.relu(a) + b
        torch._dynamo.graph_break()
        return c * 2 + a.sum()

    a, b = torch.randn(4, 4), torch.randn(4)
    torch.testing.assert_close(compiled(broken)(a, b), broken(a, b))


def test_views_and_mutation_behave_as_in_eager() -> None:
    def views(a: torch.Tensor) -> Any:
        b = a + 1
        return a.view(-1), b, b.t(), a

    a = torch.randn(4, 3)
    flat, b, transposed, same = compiled(views)(a)
    assert same is a and flat.data_ptr() == a.data_ptr()
    assert transposed.data_ptr() == b.data_ptr() and torch.equal(transposed, (a + 1).t())

    def change(x: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return x * 2

    ours, eager = a.clone(), a.clone()
    assert torch.equal(compiled(change)(ours), change(eager))
    assert torch.equal(ours, eager)


@pytest.mark.filterwarnings("ignore::torch_tvm.FallbackWarning")
def test_training_takes_the_steps_of_eager() -> None:
    eager = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3))
    ours = copy.deepcopy(eager)
    fast = compiled(ours)
    optimizers = [torch.optim.SGD(m.parameters(), 0.1) for m in (eager, ours)]
    for _ in range(3):
        x, y = torch.randn(5, 8), torch.randint(0, 3, (5,))
        for model, optimizer in zip((eager, fast), optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        for a, b in zip(eager.parameters(), ours.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_a_graph_that_cannot_be_compiled_runs_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch_tvm.dynamo as backend

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of ideas")

    monkeypatch.setattr(backend, "compile_graph", refuse)
    a = torch.randn(3)
    with pytest.warns(GraphNotCompiled, match=r"a graph of 2 ops runs in PyTorch.*out of ideas"):
        assert torch.equal(compiled(lambda x: torch.relu(x) + 1)(a), torch.relu(a) + 1)
    torch._dynamo.reset()
    with pytest.raises(Exception, match="out of ideas"):
        compiled(lambda x: torch.relu(x) + 2, fallback=False)(a)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(Exception, match=r"cannot take .speed."):
        compiled(lambda x: x + 1, speed=3)(torch.randn(3))
