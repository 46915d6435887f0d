"""The methods of a scripted module: compiled, with one set of weights and one state."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch_tvm
from torch_tvm import InvalidInput


class Coder(nn.Module):
    count: int

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 4)
        self.down = nn.Linear(4, 3)
        self.register_buffer("offset", torch.zeros(3))
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x, 1.0)) + self.offset

    @torch.jit.export
    def encode(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return torch.relu(self.up(x)) * scale

    @torch.jit.export
    def decode(self, x: Tensor) -> Tensor:
        return self.down(x)

    @torch.jit.export
    def shift(self, by: float = 0.5) -> Tensor:
        self.offset += by
        self.count += 1
        return self.offset

    @torch.jit.export
    def shifts(self) -> int:
        return self.count


class EncodeOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 4)

    @torch.jit.export
    def encode(self, x: Tensor) -> Tensor:
        return self.up(x)


X = torch.randn(2, 3)


def compiled(eager: nn.Module, args: Any = (X,)) -> torch_tvm.CompiledModule:
    return torch_tvm.compile(torch.jit.script(eager), args, fallback=False)


@pytest.fixture(autouse=True)
def _without_gradients() -> Any:
    with torch.no_grad():
        yield


def close(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_a_method_is_compiled_for_the_types_of_its_calls() -> None:
    eager = Coder()
    module = compiled(eager)
    for x in (X, X + 1, torch.randn(5, 3)):
        close(module.encode(x), eager.encode(x))
    assert len(module.encode.compiled) == 2
    assert module.encode.compiled[0].report.fallbacks == []
    for scale in (2.0, 3.0):
        close(module.encode(X, scale=scale), eager.encode(X, scale))
    assert len(module.encode.compiled) == 3
    assert set(module.methods) == {"encode", "decode", "shift", "shifts"}


def test_what_one_method_writes_the_others_read() -> None:
    eager = Coder()
    module = compiled(copy.deepcopy(eager))
    close(module(X), eager(X))
    assert module.shifts() == 0
    for by in (2.0, 3.0):
        close(module.shift(by), eager.shift(by))
        close(module(X), eager(X))
    assert module.shifts() == eager.count == 2
    close(module.state_dict()["offset"], eager.offset)


def test_methods_named_with_their_arguments_are_compiled_at_once() -> None:
    eager = Coder()
    module = torch_tvm.compile(eager, {"forward": (X,), "encode": (X,), "shift": (1.0,)}, fallback=False)
    assert len(module.methods.variants("shift")) == 1
    close(module.encode(X), eager.encode(X))
    with pytest.raises(InvalidInput, match=r"argument 'x': expected float32\[2, 3\], got float32\[5, 3\]"):
        module.encode(torch.randn(5, 3))
    module.shift(4.0)
    close(module(X), eager(X) + 4)


def test_loaded_weights_reach_methods_compiled_before_and_after() -> None:
    module, other = compiled(Coder()), Coder()
    module.encode(X)
    module.load_state_dict(other.state_dict(), strict=False)
    close(module(X), other(X))
    close(module.encode(X), other.encode(X))
    close(module.decode(torch.ones(2, 4)), other.decode(torch.ones(2, 4)))
    module.shift(1.0)
    close(module.shift(1.0), torch.full((3,), 2.0))
    close(module(X), other(X) + 2)


def test_a_copy_has_a_state_of_its_own() -> None:
    eager = Coder()
    module = compiled(eager)
    module.shift(1.0)
    other = copy.deepcopy(module)
    other.shift(5.0)
    close(module(X), eager(X) + 1)
    close(other(X), eager(X) + 6)
    assert (module.shifts(), other.shifts()) == (1, 2)


def test_a_module_without_forward() -> None:
    eager = EncodeOnly()
    module = torch_tvm.compile(torch.jit.script(eager), fallback=False)
    close(module.encode(X), eager.encode(X))
    with pytest.raises(InvalidInput, match="no method 'forward'; it has: encode"):
        module(X)


def test_a_saved_file_keeps_its_methods(tmp_path: Path) -> None:
    eager = Coder()
    torch.jit.script(eager).save(str(tmp_path / "coder.pt"))
    module = torch_tvm.compile(tmp_path / "coder.pt", (X,), fallback=False)
    close(module.encode(X), eager.encode(X))


def test_one_method_alone() -> None:
    eager = Coder()
    module = torch_tvm.compile(torch.jit.script(eager).encode, (X,), fallback=False)
    close(module(X), eager.encode(X))


def test_a_module_changed_in_the_meantime_is_refused() -> None:
    script = torch.jit.script(Coder())
    module = torch_tvm.compile(script, (X,), fallback=False)
    script.up.weight.mul_(2.0)
    with pytest.raises(InvalidInput, match=r"changed since the module was compiled: up\.weight"):
        module.encode(X)
    script = torch.jit.script(Coder())
    module = torch_tvm.compile(script, (X,), fallback=False)
    script.count = 7
    with pytest.raises(InvalidInput, match="changed since the module was compiled: count"):
        module.shifts()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode(), "encode: argument 'x' is missing"),
        (lambda m: m.encode(X, 1.0, 2), r"encode: it takes \(x, scale\); 3 were given"),
        (lambda m: m.encode(X, size=1), r"it takes \(x, scale\); unexpected argument 'size'"),
        (lambda m: m.encode(X, x=X), "unexpected argument 'x'"),
        (lambda m: m.encode("text"), "argument 'x' has type Tensor, got str"),
        (lambda m: m.encode(X.to("meta")), "on meta"),
    ],
)
def test_a_call_that_does_not_fit(call: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        call(compiled(Coder()))


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        _ = compiled(Coder()).frobnicate


@pytest.mark.parametrize(
    ("program", "args", "message"),
    [
        (Coder(), {"forward": (X,), "nope": ()}, "no method 'nope'; it has: forward, decode, encode"),
        (Coder(), {"forward": X}, r"example_args\['forward'\]: expected a tuple of arguments, got Tensor"),
        (lambda x: x, {"forward": (X,)}, "are for scripted modules"),
    ],
)
def test_wrong_arguments_by_method(program: Any, args: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        torch_tvm.compile(program, args)
