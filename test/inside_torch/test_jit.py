"""``torch_tvm.enable()``: scripted and traced programs run compiled, and are what they were in every other way."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch_tvm
from torch_tvm import FallbackWarning, InvalidInput, jit

X = torch.randn(3, 4)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    while jit._State.settings:
        torch_tvm.disable()


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one with each compile."""
    made: list[Any] = []
    original = jit.compile_module

    def counted(*args: Any, **kwargs: Any) -> Any:
        made.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(jit, "compile_module", counted)
    return made


def both(call: Callable[[], Any]) -> tuple[Any, Any]:
    """What a call gives with the hook, then without."""
    with torch_tvm.enable():
        ours = call()
    return ours, call()


@torch.jit.script
def scaled(x: Tensor, by: float = 2.0, add: int = 1) -> Tensor:
    return x * by + add


@torch.jit.script
def nested(x: Tensor) -> Tensor:
    return scaled(x, 3.0).relu() + scaled(x)


@torch.jit.script
def until(x: Tensor, limit: int) -> Tensor:
    for _ in range(limit):
        if bool(x.sum() > 1):
            x = x * 0.5
        else:
            x = x + 0.25
    return x


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(4))
        self.scale = 2.0

    def forward(self, x: Tensor) -> Tensor:
        self.total += x.sum(0)
        return self.total * self.scale

    @torch.jit.export
    def mean(self, x: Tensor) -> Tensor:
        return x.mean() + self.total.sum()


_EXAMPLE = """
import torch
import torch_tvm

torch_tvm.enable()

# The following function will be compiled with TVM
@torch.jit.script
def my_func(a, b, c):
    return a * b + c

shape = 8
x = torch.rand(shape)
y = torch.rand(shape)
z = torch.rand(shape)

for _ in range(5):
    my_func(x, y, z)

print(my_func.graph_for(x, y, z))
assert torch.allclose(my_func(x, y, z), x * y + z)
"""


def test_the_example_of_the_extension_of_2019(tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(_EXAMPLE)
    command = [sys.executable, "-W", "ignore", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    group = next(line for line in done.stdout.splitlines() if "tvm::CompilationGroup" in line)
    assert "= tvm::CompilationGroup_0(%a, %b, %c)" in group
    assert "aten::mul(%a" in done.stdout.split("with tvm::CompilationGroup_0 = graph")[1]


def test_functions(compiles: list[Any]) -> None:
    for call in (
        lambda: scaled(X),
        lambda: scaled(X, 4.0),
        lambda: scaled(x=X, by=-1.5, add=7),
        lambda: scaled(X, add=7),
        lambda: nested(X),
        lambda: until(X.abs(), 5),
        lambda: until(X.abs(), 2),
    ):
        ours, theirs = both(call)
        torch.testing.assert_close(ours, theirs)
    assert compiles
    count = len(compiles)
    with torch_tvm.enable():
        for number in (1.0, 2.0, 3.0):
            torch.testing.assert_close(scaled(X, number), X * number + 1)
    assert len(compiles) == count + 1, "numbers are arguments"
    with torch_tvm.enable():
        for size in (1, 2, 2, 1):
            torch.testing.assert_close(scaled(torch.ones(size)), torch.full((size,), 3.0))
        torch.testing.assert_close(scaled(torch.ones(2, dtype=torch.float64)), torch.full((2,), 3.0).double())
    assert len(compiles) == count + 4, "one for each shape and dtype"


def test_a_traced_module_and_a_traced_function() -> None:
    model = torch.jit.trace(nn.Sequential(nn.Linear(4, 5), nn.Tanh()).eval(), X)
    function = torch.jit.trace(lambda x, y: (x @ y.t(), x + y), (X, X))
    with torch.no_grad():
        for call in (lambda: model(X), lambda: model.forward(X), lambda: function(X, X * 2)):
            ours, theirs = both(call)
            torch.testing.assert_close(ours, theirs)
    with torch_tvm.enable(), torch.no_grad():
        traced = torch.jit.trace(lambda x: scaled(x) + 1, X)  # the hook is not traced
    torch.testing.assert_close(traced(X * 2), X * 4 + 2)


@torch.no_grad()
def test_weights_are_those_of_the_module(compiles: list[Any]) -> None:
    model = torch.jit.script(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)))
    other = torch.jit.script(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)))

    def check() -> None:
        torch.testing.assert_close(*both_kept(lambda: model(X)))

    def both_kept(call: Callable[[], Any]) -> tuple[Any, Any]:
        ours = call()
        jit._thread.is_inside = True
        try:
            return ours, call()
        finally:
            jit._thread.is_inside = False

    with torch_tvm.enable():
        check()
        dict(model.named_parameters())["0.weight"].mul_(2)
        check()
        dict(model.named_parameters())["2.bias"].data.add_(1)
        check()
        model.load_state_dict(other.state_dict())
        check()
        torch.testing.assert_close(*both_kept(lambda: copy.deepcopy(model)(X)))
    assert len(compiles) == 2


@torch.no_grad()
@torch.no_grad()
def test_tensors_that_may_be_none_are_no_reason_to_compile_again(compiles: list[Any]) -> None:
    torch_tvm.enable()
    for bias in (True, False):
        compiles.clear()
        model = torch.jit.script(nn.Conv2d(3, 4, 3, bias=bias).eval())
        for _ in range(3):
            x = torch.randn(1, 3, 5, 5)
            torch.testing.assert_close(model(x), torch.conv2d(x, model.weight, model.bias))
        assert len(compiles) == 1


def test_state_and_attributes(compiles: list[Any]) -> None:
    ours, theirs = torch.jit.script(Counter()), torch.jit.script(Counter())
    for _ in range(3):
        x = torch.randn(2, 4)
        with torch_tvm.enable():
            found = ours(x), ours.mean(x)
        torch.testing.assert_close(found, (theirs(x), theirs.mean(x)))
        torch.testing.assert_close(ours.total, theirs.total)
    with torch_tvm.enable():
        for module in (ours, theirs):
            module.total.zero_()
            module.scale = 5.0
        found = ours(x)
    torch.testing.assert_close(found, theirs(x))
    assert compiles


@torch.no_grad()
def test_a_buffer_that_is_exchanged() -> None:
    ours, theirs = torch.jit.script(Counter()), torch.jit.script(Counter())
    with torch_tvm.enable():
        for total in (torch.ones(4), torch.zeros(8)[::2]):
            for module in (ours, theirs):
                module.total = total.clone() if total.is_contiguous() else torch.zeros(8)[::2]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FallbackWarning)
                found = ours(X)
            jit._thread.is_inside = True
            expected = theirs(X)
            jit._thread.is_inside = False
            torch.testing.assert_close(found, expected)
            torch.testing.assert_close(ours.total, theirs.total)


@torch.no_grad()
def test_training_mode_is_looked_at() -> None:
    model = torch.jit.script(nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()))
    model.eval()
    with torch_tvm.enable():
        first = model(X)
    torch.testing.assert_close(first, model(X))
    model.train()
    other = copy.deepcopy(model)
    with torch_tvm.enable():
        trained = model(X)
    torch.testing.assert_close(trained, other(X))
    torch.testing.assert_close(model.state_dict(), other.state_dict())


def test_gradients_are_left_to_pytorch() -> None:
    model = torch.jit.script(nn.Linear(4, 2))
    with torch_tvm.enable():
        with pytest.warns(FallbackWarning, match="needs gradients") as caught:
            for _ in range(3):
                model(X).sum().backward()
        assert len([each for each in caught if each.category is FallbackWarning]) == 1
        assert model.weight.grad is not None
        with torch.no_grad():
            torch.testing.assert_close(model(X), nn.functional.linear(X, model.weight, model.bias))


@torch.jit.script
def turned(x: Tensor) -> Tensor:
    return x.t()


@torch.jit.script
def filled(x: Tensor) -> Tensor:
    x.add_(1)
    return x * 2


@torch.jit.script
def shouted(x: Tensor) -> Tensor:
    print("loud")
    return x + 1


def test_what_would_differ_runs_in_pytorch() -> None:
    with torch_tvm.enable():
        with pytest.warns(FallbackWarning, match="may share memory"):
            assert turned(X).data_ptr() == X.data_ptr()
        x = X.clone()
        torch.testing.assert_close(filled(x), (X + 1) * 2)
        torch.testing.assert_close(x, X + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FallbackWarning)
            torch.testing.assert_close(shouted(X), X + 1)
        with pytest.raises(RuntimeError, match="argument"):
            scaled()
        with pytest.raises(RuntimeError, match=r"[uU]nknown"):
            scaled(X, unknown=1)


class Hooked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def sevenfold(self: nn.Module, given: tuple[Tensor], result: Tensor) -> Tensor:
    return result * 7


class Held(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("b", torch.zeros(2))
        self.register_buffer("a", torch.zeros(2))
        self.d = {"a": torch.zeros(2)}

    def forward(self, x: Tensor) -> Tensor:
        self.b.add_(1)
        return x + self.b + self.a

    @torch.jit.export
    def fill(self, x: Tensor) -> Tensor:
        x.add_(1)
        return x + self.a

    @torch.jit.export
    def kept(self, x: Tensor) -> Tensor:
        self.d["a"].add_(x)
        return self.d["a"] * 2


@torch.jit.script
def twice(x: Tensor) -> tuple[Tensor, Tensor]:
    z = x + 1
    return z, z


@torch.jit.script
def dropped(x: Tensor) -> Tensor:
    return torch.dropout(x, 0.5, False)


@torch.jit.script
def stretched(x: Tensor) -> Tensor:
    return (x + 1).sum().expand(3)


@torch.jit.script
def counted(x: Tensor) -> Tensor:
    return x.add_(1)


@pytest.mark.filterwarnings("ignore::torch_tvm.FallbackWarning")
@torch.no_grad()
def test_memory_and_side_effects_are_those_of_pytorch() -> None:
    def calls() -> list[Any]:
        found: list[Any] = []
        hooked = Hooked()
        hooked.register_forward_hook(sevenfold)
        found.append(torch.jit.script(hooked)(torch.ones(2)))
        held = torch.jit.script(Held())
        found += [held(held.b).clone(), held(held.b.view(2)).clone(), held.fill(held.a).clone()]
        found += [held.kept(torch.ones(2)).clone(), held.kept(torch.ones(2)).clone()]
        both = torch.zeros(4)
        held.a, held.b = both[:2], both[2:]
        found += [held(torch.ones(2)).clone(), held(held.a).clone()]
        held.a = held.b
        found += [held(torch.ones(2)).clone(), held(held.b).clone()]
        first, second = twice(torch.ones(2))
        first.add_(5)
        x = torch.ones(2)
        dropped(x).add_(5)
        found += [second, x, stretched(x).stride()]
        flags = torch.tensor([True, False])
        with pytest.raises(RuntimeError, match="can't be cast"):
            counted(flags)
        return [*found, flags]

    torch.testing.assert_close(*both(calls))
    held_by_trace = torch.zeros(2)
    traced = torch.jit.trace(lambda x: held_by_trace.add_(x) * 2, torch.ones(2), check_trace=False)
    with torch_tvm.enable():
        before = held_by_trace.clone()
        torch.testing.assert_close(traced(torch.ones(2)), (before + 1) * 2)


def test_one_of_several_ends_itself() -> None:
    first, second = torch_tvm.enable(), torch_tvm.enable()
    with first:
        pass
    assert jit._State.settings == [second._settings]
    decorated = [second(lambda: len(jit._State.settings)) for _ in range(2)]
    assert not jit._State.settings and [call() for call in decorated] == [1, 1]

    async def later() -> None: ...

    with pytest.raises(InvalidInput, match="a coroutine or a generator"):
        torch_tvm.enable()(later)
    assert not jit._State.settings


def test_it_ends_where_it_should() -> None:
    originals = [(kind.__call__, kind.graph_for) for kind in jit._ENTRIES]

    def is_restored() -> bool:
        return [(kind.__call__, kind.graph_for) for kind in jit._ENTRIES] == originals

    with torch_tvm.enable():
        with torch_tvm.enable(options={"accuracy": "strict"}):
            assert not is_restored()
        assert not is_restored()
    assert is_restored()
    torch_tvm.disable()
    assert is_restored()

    @torch_tvm.enable()
    def decorated() -> Tensor:
        assert not is_restored()
        return scaled(X)

    assert is_restored()
    torch.testing.assert_close(decorated(), X * 2 + 1)
    assert is_restored()
    with pytest.raises(ZeroDivisionError), torch_tvm.enable():
        raise ZeroDivisionError
    assert is_restored()
    with pytest.raises(InvalidInput, match="unknown option 'speed'"):
        torch_tvm.enable(options={"speed": 1})
    assert is_restored()
    assert "CompilationGroup" not in str(scaled.graph_for(X))


def test_threads() -> None:
    model = torch.jit.script(nn.Linear(4, 3)).eval()
    wrong: list[Any] = []
    expected = model(X).detach()

    def work() -> None:
        try:
            with torch.no_grad():
                for _ in range(20):
                    torch.testing.assert_close(model(X), expected)
        except BaseException as error:
            wrong.append(error)

    with torch_tvm.enable():
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_the_default_backend_of_torch_compile() -> None:
    before = torch.compiler.get_default_backend()
    with torch_tvm.enable(torch_compile=True):
        assert torch.compiler.get_default_backend() == "torch_tvm"
    assert torch.compiler.get_default_backend() == before
