"""``torch.compile(f, fullgraph=True).aot_compile(...)``, saved, and loaded where nothing is compiled."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from torch_tvm.inside_torch import saved_graph
from torch_tvm.support.errors import InvalidInput

pytestmark = pytest.mark.skipif(
    saved_graph.SerializableCallable is None, reason="this PyTorch saves no compiled functions"
)

Program = Callable[..., Any]


def elementwise(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x) * 3 + 1


def views(x: torch.Tensor) -> Any:
    y = x.sin()
    return y, y.t(), x[1:]


def writes(x: torch.Tensor) -> torch.Tensor:
    x.add_(1)
    return x * torch.arange(8)


def in_pytorch(x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.inv(x[:, :3]) + 1


def compiled(program: Program, x: torch.Tensor, **options: Any) -> Any:
    torch._dynamo.reset()
    fast = torch.compile(program, fullgraph=True, backend="torch_tvm", options=options)
    return fast.aot_compile(((x,), {}))


def written_and_read(function: Any, path: Path) -> Any:
    function.save_compiled_function(str(path))
    return torch.compiler.load_compiled_function(io.BytesIO(path.read_bytes()))


CASES: dict[str, tuple[Program, dict[str, Any]]] = {
    "elementwise": (elementwise, {}),
    "views of results and arguments": (views, {}),
    "a write": (writes, {}),
    "a library call": (in_pytorch, {}),
    "a graph that runs in PyTorch": (elementwise, {"min_block_size": 100}),
}


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_a_function_is_the_same_after_it_was_saved(name: str, tmp_path: Path) -> None:
    program, options = CASES[name]
    function = compiled(program, torch.randn(3, 8), **options)
    loaded = written_and_read(function, tmp_path / "one")
    again = written_and_read(loaded, tmp_path / "two")
    for each in (function, loaded, again):
        for _ in range(2):
            mine, wanted = (x := torch.randn(3, 8)), x.clone()
            torch.testing.assert_close(each(mine), program(wanted))
            torch.testing.assert_close(mine, wanted)


@torch.no_grad()
def test_sizes_that_vary(tmp_path: Path) -> None:
    x = torch.randn(3, 8)
    torch._dynamo.mark_dynamic(x, 0)
    program = lambda x: x.softmax(-1).sum(0)
    loaded = written_and_read(compiled(program, x), tmp_path / "f")
    for rows in (3, 5, 2):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(loaded(x), program(x))


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(x).tanh())


def test_training_and_weights_that_change(tmp_path: Path) -> None:
    model = Perceptron()
    loaded = written_and_read(compiled(model.forward, torch.randn(3, 8)), tmp_path / "f")
    for _ in range(3):
        x = torch.randn(3, 8)
        mine, wanted = loaded(model, x), model(x)
        torch.testing.assert_close(mine, wanted)
        parameters = list(model.parameters())
        ours, theirs = (torch.autograd.grad(y.square().sum(), parameters) for y in (mine, wanted))
        torch.testing.assert_close(ours, theirs)
        with torch.no_grad():
            model.up.weight.mul_(1.1)


LOADS = """
import sys, torch
f = torch.compiler.load_compiled_function(open(sys.argv[1], "rb"))
x = torch.tensor([-1.0, 2.0])
assert f(x).tolist() == [1.0, 7.0]
"""


def test_another_process_loads_it(tmp_path: Path) -> None:
    with torch.no_grad():
        compiled(elementwise, torch.randn(2)).save_compiled_function(str(tmp_path / "f"))
    script = LOADS.replace("x =", "torch.set_grad_enabled(False); x =")
    command = [sys.executable, "-c", script, str(tmp_path / "f")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@torch.no_grad()
def test_code_for_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = compiled(elementwise, torch.randn(2))._artifacts.compiled_fn.to_bytes()
    monkeypatch.setattr(saved_graph, "machine", lambda: "abacus-linux")
    with pytest.raises(InvalidInput, match=r"is for \S+-\S+"):
        saved_graph.SavedGraph.from_bytes(content)
