"""Programs whose tensors have no form in compiled code are refused with the kind, by every frontend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import torch_tvm
from torch_tvm.dynamo import GraphNotCompiled
from torch_tvm.support.errors import ImportFailed, InvalidInput, UnsupportedOp

FRONTENDS = ("fx", "torchscript", "lazy")
BYTES = torch.ones(4, 6, dtype=torch.uint8)

KINDS: dict[str, Callable[[], torch.Tensor]] = {
    **{
        str(dtype).removeprefix("torch."): lambda dtype=dtype: BYTES.to(dtype)
        for dtype in (torch.uint16, torch.uint64, torch.float8_e5m2, torch.float8_e4m3fnuz)
    },
    "bits8": lambda: BYTES.view(torch.bits8),
    "float4_e2m1fn_x2": lambda: BYTES.view(torch.float4_e2m1fn_x2),
    "quint8": lambda: torch.quantize_per_tensor(torch.ones(4, 6), 0.1, 0, torch.quint8),
    "a nested tensor": lambda: torch.nested.nested_tensor([torch.randn(6)] * 4),
    "sparse_coo": lambda: torch.randn(4, 6).to_sparse(),
    "_mkldnn": lambda: torch.randn(4, 6).to_mkldnn(),
}


def reshaped(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(6, 4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("frontend", FRONTENDS)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_example_arguments(kind: str, frontend: str) -> None:
    program = torch.jit.script(reshaped) if frontend == "torchscript" else reshaped
    with pytest.raises(InvalidInput, match=rf"^(example_args|argument).*: kernels do not read .*{kind}"):
        torch_tvm.compile(program, (KINDS[kind](),), frontend=frontend)


@pytest.mark.parametrize("frontend", FRONTENDS)
def test_modules_without_shapes(frontend: str) -> None:
    with pytest.raises(InvalidInput, match=r"^LazyLinear: .*without a shape(.|\n)*call the module once before"):
        torch_tvm.compile(nn.LazyLinear(3), (torch.randn(2, 4),), frontend=frontend)


class Doubled(torch.Tensor):
    """Every product is twice as large."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})
        return result + result if func is torch.Tensor.mul else result


class Inherited(torch.Tensor):
    pass


class Tripled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul(3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("frontend", FRONTENDS)
def test_classes_of_tensors(frontend: str) -> None:
    x = torch.randn(4)
    program = torch.jit.script(Tripled()) if frontend == "torchscript" else Tripled()
    compiled = torch_tvm.compile(program, (x,), frontend=frontend)
    assert torch.equal(compiled(x.as_subclass(Inherited)), x * 3)
    for call in (compiled, lambda given: torch_tvm.compile(program, (given,), frontend=frontend)):
        with pytest.raises(InvalidInput, match="a Doubled, whose __torch_function__ compiled code does not call"):
            call(x.as_subclass(Doubled))


def test_classes_of_tensors_by_torch_compile() -> None:
    """It traces through what a class does."""
    x = torch.randn(4)
    compiled = torch.compile(Tripled(), backend="torch_tvm")
    assert type(compiled(x.as_subclass(Inherited))) is Inherited
    for kind in (Doubled, Inherited):
        ours, eager = (call(x.as_subclass(kind)).as_subclass(torch.Tensor) for call in (compiled, Tripled()))
        assert torch.equal(ours, eager)


@pytest.mark.parametrize("gradient", [False, True])
def test_classes_of_tensors_that_no_guard_tells_of(gradient: bool) -> None:
    torch._dynamo.reset()
    unguarded = {"guard_filter_fn": lambda guards: [False] * len(guards)}
    compiled = torch.compile(Tripled(), backend="torch_tvm", options=unguarded)
    x = torch.randn(4, requires_grad=gradient)
    compiled(x)
    with pytest.warns(GraphNotCompiled, match="an argument is a Doubled, and was a plain tensor") as told:
        for _ in range(2):
            ours, eager = (call(x.as_subclass(Doubled)) for call in (compiled, Tripled()))
    assert type(ours) is Doubled and torch.equal(ours, eager)
    assert [each.category for each in told].count(GraphNotCompiled) == 1


def test_specs_of_tensors() -> None:
    spec = torch_tvm.TensorSpec((None,), torch.uint16)
    with pytest.raises(InvalidInput, match=r"^example_args\[0\]: kernels do not read uint16"):
        torch_tvm.compile(torch.jit.script(reshaped), (spec,))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("frontend", FRONTENDS)
def test_complex_numbers_of_halves(frontend: str) -> None:
    def program(x: torch.Tensor, z: torch.Tensor) -> Any:
        views = torch.cat([z.t().reshape(-1)[2:5], z[0]]), z.conj().imag, torch.view_as_real(z).sum()
        return x.chalf(), z.to(torch.complex64) + x, (z + x.chalf()) * 2, z.abs(), *views

    arguments = torch.randn(3, 4), torch.randn(3, 4, dtype=torch.complex64).to(torch.complex32)
    given: Any = torch.jit.trace(program, arguments) if frontend == "torchscript" else program
    compiled = torch_tvm.compile(given, arguments, frontend=frontend, fallback=False)
    for ours, eager in zip(compiled(*arguments), program(*arguments), strict=True):
        assert ours.dtype == eager.dtype
        if eager.is_complex():
            ours, eager = ours.to(torch.complex64), eager.to(torch.complex64)
        torch.testing.assert_close(ours, eager, rtol=1e-3, atol=2e-3)


class Holds(nn.Module):
    def __init__(self, function: Any, held: torch.Tensor) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("held", held)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, self.held)


INSIDE: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], Any], torch.Tensor]] = {
    "uint16": (lambda x, held: x.to(torch.uint16).to(torch.float32), torch.ones(6)),
    "uint32": (lambda x, held: x + held.to(torch.float32), torch.ones(6).to(torch.uint32)),
    "float8_e4m3fn": (lambda x, held: x.to(torch.float8_e4m3fn).to(torch.float32), torch.ones(6)),
    "uint64": (lambda x, held: x + held.to(torch.float32), torch.ones(6).to(torch.uint64)),
    "sparse_coo": (lambda x, held: x.to_sparse().to_dense(), torch.ones(6)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("frontend", FRONTENDS)
@pytest.mark.parametrize("kind", sorted(INSIDE))
def test_inside_a_program(kind: str, frontend: str) -> None:
    function, held = INSIDE[kind]
    program, x = Holds(function, held), torch.randn(4, 6)
    given: Any = torch.jit.trace(program, (x,), check_trace=False) if frontend == "torchscript" else program
    with pytest.raises((ImportFailed, UnsupportedOp), match=rf"{kind} has no form in compiled code\n.*\n? *convert"):
        torch_tvm.compile(given, (x,), frontend=frontend)


@pytest.mark.filterwarnings("ignore")
def test_memory_that_the_lazy_device_cannot_copy() -> None:
    freed = torch.randn(4, 6)
    freed.untyped_storage().resize_(0)
    masked = torch.masked.masked_tensor(torch.randn(4, 6), torch.ones(4, 6).bool())
    for given, problem in (
        (freed, "is no plain CPU tensor"),
        (masked, "a MaskedTensor, whose __torch_function__"),
    ):
        with pytest.raises(InvalidInput, match=problem):
            torch_tvm.compile(reshaped, (given,), frontend="lazy")
