"""Arguments that are laid out, shared or made in unusual ways: the program's numbers, or a refusal with a reason."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from layouts import LAYOUTS, assert_same_for_any_layout
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import torch_tvm
from torch_tvm.support.errors import InvalidInput

FRONTENDS = ("fx", "torchscript", "lazy")


class FirstUseIsAView(nn.Module):
    """Arguments that kernels see only through reshapes, and where a scatter starts from one."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(2, 4), nn.Conv1d(1, 2, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, i: torch.Tensor) -> Any:
        return (
            self.norm(x),
            x.flatten(2).transpose(1, 2) @ x.flatten(2),
            self.conv(y.unsqueeze(1)),
            z.scatter(1, i, 1.0),
            z.scatter_add(0, i[:3], z),
            z.index_put((i[0],), z[0]),
            i.reshape(-1) + 1,
        )


def first_use_arguments() -> tuple[torch.Tensor, ...]:
    return (
        torch.randn(2, 4, 4, 6),
        torch.randn(3, 8),
        torch.randn(5, 5),
        torch.randint(0, 3, (5, 5)),
    )


class AnySize(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        rows = x.reshape(x.shape[0] * x.shape[1], -1)
        return rows.t() @ rows, x.flatten(1) * 2, y.unsqueeze(0) + 1, x.flatten(1).softmax(1)


@pytest.mark.parametrize("frontend", FRONTENDS)
def test_strides_of_an_argument_count(frontend: str) -> None:
    module, args = FirstUseIsAView().eval(), first_use_arguments()
    program = torch.jit.trace(module, args) if frontend == "torchscript" else module
    compiled = torch_tvm.compile(program, args, frontend=frontend)
    assert_same_for_any_layout(compiled, args)
    given = (args[0].contiguous(memory_format=torch.channels_last), args[1], args[2].t(), args[3].t())
    with torch.no_grad():
        for ours, eager in zip(compiled(*given), module(*given), strict=True):
            torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-5)


def test_strides_of_an_argument_of_unknown_sizes_count() -> None:
    dim = torch.export.Dim.AUTO
    args = (torch.randn(3, 4, 5), torch.randn(4, 6))
    compiled = torch_tvm.compile(AnySize(), args, dynamic_shapes=({0: dim, 2: dim}, {1: dim}))
    for sizes in ((3, 4, 5), (2, 4, 7), (1, 4, 2)):
        assert_same_for_any_layout(compiled, (torch.randn(sizes), torch.randn(4, sizes[2])))


@torch.no_grad()
@pytest.mark.parametrize("layout", ["transposed", "channels_last", "expanded"])
def test_torch_compile_sees_the_layout(layout: str) -> None:
    torch._dynamo.reset()
    module, args = FirstUseIsAView().eval(), [LAYOUTS[layout](x) for x in first_use_arguments()]
    fast = torch.compile(module, backend="torch_tvm")
    for ours, eager in zip(fast(*args), module(*args), strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("frontend", [*FRONTENDS, "torch.compile"])
def test_weights_and_state_in_any_layout(frontend: str) -> None:
    class Layouts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 4).t())
            self.register_buffer("shift", torch.randn(1, 6).expand(4, 6))
            self.register_buffer("total", torch.randn(6, 4).t())
            self.register_buffer("sign", torch._neg_view(torch.randn(4, 6)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total.copy_(self.total.reshape(-1).view(4, 6) + x)
            return self.weight.reshape(6, 4) @ x + self.shift.reshape(-1)[:6] + (self.total * self.sign).sum()

    eager, x = Layouts(), torch.randn(4, 6)
    module = copy.deepcopy(eager)
    if frontend == "torch.compile":
        torch._dynamo.reset()
        compiled = torch.compile(module, backend="torch_tvm")
    else:
        program = torch.jit.script(module) if frontend == "torchscript" else module
        compiled = torch_tvm.compile(program, (x,), frontend=frontend)
    for given in (x, x.t().reshape(4, 6)):
        torch.testing.assert_close(compiled(given), eager(given))
    transposed = x.t().contiguous().t()
    if frontend == "lazy":  # the lazy device has no strides, so it cannot tell whether the reshape is a copy
        with pytest.raises(InvalidInput, match="the program gives other numbers for other strides"):
            compiled(transposed)
    else:
        torch.testing.assert_close(compiled(transposed), eager(transposed))


def test_an_index_with_a_lazy_sign() -> None:
    """PyTorch's own indexing reads the numbers in memory, whose sign is still to be changed."""
    x, index = torch.arange(10.0).view(5, 2), torch.tensor([1, 2])
    negative = torch._neg_view(torch.neg(index))
    assert torch.equal(negative, index) and not torch.equal(x[negative], x[index])
    compiled = torch_tvm.compile(lambda x, index: x[index], (x, index))
    assert torch.equal(compiled(x, negative), x[index])


# -- arguments that share memory -----------------------------------------------------------------------------


class Writes(nn.Module):
    """``b`` changes after ``a`` did, so eager sees in ``b`` what went into ``a`` where they share memory."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a.add_(1)
        return a * 2 + b


def shared_pairs() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    square = torch.arange(36).view(6, 6)
    columns = torch.arange(48).view(4, 2, 6)
    return {
        "the same": (square[:4], square[:4]),
        "a view": (square[:4], square[:4].view(4, 6)),
        "overlapping": (square[:4], square[1:5]),
        "transposed": (square[:4], square.t()[:4]),
        "a row of it": (square[:4], square[2].expand(4, 6)),
        "repeated and written": (square[0].expand(4, 6), torch.arange(24).view(4, 6)),
        "overlapping itself": (torch.arange(9).unfold(0, 6, 1), torch.arange(24).view(4, 6)),
        "apart": (columns.flatten()[:24].view(4, 6), columns.flatten()[24:].view(4, 6)),
        "interleaved": (columns[:, 0], columns[:, 1]),
        "repeated and read": (torch.arange(24).view(4, 6), torch.arange(6).expand(4, 6)),
    }


@pytest.mark.parametrize("frontend", FRONTENDS)
def test_an_argument_that_is_written_shares_memory_with_no_other(frontend: str) -> None:
    args = (torch.arange(24).view(4, 6), torch.arange(24).view(4, 6))
    program: Any = Writes()
    if frontend == "torchscript":
        program = torch.jit.script(program)
    compiled = torch_tvm.compile(program, args, frontend=frontend)
    for name, (a, b) in shared_pairs().items():
        before = (a.clone(), b.clone())
        if name not in ("apart", "interleaved", "repeated and read"):
            other = "some of its elements share memory" if name.endswith(("written", "itself")) else "argument"
            with pytest.raises(InvalidInput, match=rf"'a': the program writes it, and .*{other}.*\n.*clone"):
                compiled(a, b)
            assert torch.equal(a, before[0]) and torch.equal(b, before[1])
            continue
        assert torch.equal(compiled(a, b), Writes()(*before)), name
        assert torch.equal(a, before[0]) and torch.equal(b, before[1]), name


def test_reading_shared_memory_is_no_matter() -> None:
    compiled = torch_tvm.compile(lambda a, b: a @ b, (torch.randn(4, 4), torch.randn(4, 4)))
    x = torch.arange(25.0).view(5, 5)
    assert torch.equal(compiled(x[:4, :4], x[1:, 1:]), x[:4, :4] @ x[1:, 1:])


def test_an_inference_tensor_is_written_in_inference_mode() -> None:
    compiled = torch_tvm.compile(Writes(), (torch.ones(3), torch.ones(3)))
    with torch.inference_mode():
        frozen = torch.zeros(3)
        assert torch.equal(compiled(frozen, torch.ones(3)), torch.full((3,), 3.0))
    with pytest.raises(InvalidInput, match=r"'a': the program writes it, and it was made in inference mode"):
        compiled(frozen, torch.ones(3))


# -- tensors without numbers of the right kind in memory ------------------------------------------------------


def freed() -> torch.Tensor:
    tensor = torch.randn(4, 6)
    tensor.untyped_storage().resize_(0)
    return tensor


def fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.randn(4, 6)


BYTES = torch.ones(4, 6, dtype=torch.uint8)
REFUSED: dict[str, Callable[[], Any]] = {
    **{
        str(dtype).removeprefix("torch."): lambda dtype=dtype: BYTES.to(dtype)
        for dtype in (torch.complex64, torch.complex128, torch.complex32, torch.uint16, torch.uint32)
    },
    **{
        str(dtype).removeprefix("torch."): lambda dtype=dtype: BYTES.view(dtype)
        for dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.bits8, torch.float4_e2m1fn_x2)
    },
    "quint8": lambda: torch.quantize_per_tensor(torch.ones(4, 6), 0.1, 0, torch.quint8),
    "a nested tensor": lambda: torch.nested.nested_tensor([torch.randn(6)] * 4),
    "a NestedTensor": lambda: torch.nested.nested_tensor([torch.randn(6)] * 4, layout=torch.jagged),
    "on meta": lambda: torch.randn(4, 6, device="meta"),
    "a FakeTensor": fake,
    "sparse_coo": lambda: torch.randn(4, 6).to_sparse(),
    "sparse_csr": lambda: torch.randn(4, 6).to_sparse_csr(),
    "_mkldnn": lambda: torch.randn(4, 6).to_mkldnn(),
    "memory was freed": freed,
    "ndarray": lambda: torch.randn(4, 6).numpy(),
}


@pytest.fixture(scope="module")
def viewed() -> Any:
    """A program whose argument goes through a view first, and one where a kernel reads it."""
    x = torch.randn(4, 6)
    through_view = torch_tvm.compile(lambda x: torch.relu(x.reshape(6, 4)) @ x + 1, (x,))
    return through_view, torch_tvm.compile(lambda x: torch.relu(x) + 1, (x,))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_a_tensor_that_kernels_cannot_read_is_refused(viewed: Any, kind: str) -> None:
    given = REFUSED[kind]()
    for compiled in viewed:
        with pytest.raises(InvalidInput, match=rf"argument 'x': expected float32\[4, 6\].*, got .*{kind}"):
            compiled(given)


@pytest.mark.filterwarnings("ignore")
def test_transforms_of_functions_are_refused(viewed: Any) -> None:
    x = torch.randn(4, 6)
    transforms: list[Callable[[Any], Any]] = [
        lambda f: torch.vmap(f)(torch.randn(2, 4, 6)),
        lambda f: torch.func.grad(lambda x: f(x).sum())(x),
        lambda f: torch.func.jvp(f, (x,), (x,)),
        lambda f: torch.func.functionalize(f)(x),
    ]
    for compiled in viewed:
        for transform in transforms:
            with pytest.raises(InvalidInput, match=r"'x': expected .*, got a tensor of torch\.func"):
                transform(compiled)
        with forward_ad.dual_level():
            with pytest.raises(InvalidInput, match="got a dual tensor"):
                compiled(forward_ad.make_dual(x, x))
            assert torch.equal(compiled(x), compiled(x.clone()))
        inside = torch.vmap(lambda y, f=compiled: f(x)[0, 0] + y)(torch.zeros(3))
        assert torch.equal(inside, compiled(x)[0, 0].expand(3))


def test_a_tensor_of_zeros_without_memory_is_read(viewed: Any) -> None:
    zeros = torch._efficientzerotensor(4, 6)
    for compiled in viewed:
        assert torch.equal(compiled(zeros), compiled(torch.zeros(4, 6)))


# -- calls that something records -------------------------------------------------------------------------


def recordings() -> dict[str, Callable[[Any, torch.Tensor], Any]]:
    class Calls(nn.Module):
        def __init__(self, function: Any) -> None:
            super().__init__()
            self.function = function

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.function(x) + 1

    def under_fake_mode(f: Any, x: torch.Tensor) -> Any:
        with FakeTensorMode(allow_non_fake_inputs=True):
            return f(x)

    return {
        "make_fx": lambda f, x: make_fx(lambda x: f(x) * 2)(x),
        "make_fx, fake": lambda f, x: make_fx(lambda x: f(x) * 2, tracing_mode="fake")(x),
        "make_fx, before dispatch": lambda f, x: make_fx(lambda x: f(x) * 2, pre_dispatch=True)(x),
        "torch.jit.trace": lambda f, x: torch.jit.trace(lambda x: f(x) * 2, (x,), check_trace=False),
        "torch.export": lambda f, x: torch.export.export(Calls(f), (x,), strict=False),
        "FakeTensorMode": under_fake_mode,
    }


@pytest.mark.parametrize("recorder", sorted(recordings()))
def test_a_recorded_call_is_refused(viewed: Any, recorder: str) -> None:
    constant = torch_tvm.compile(nn.ParameterList([torch.randn(3)]).__getitem__, (0,))
    for compiled in (*viewed, lambda x: x + constant(0)[0]):
        with pytest.raises(InvalidInput, match=r"(?s)call: compiled code is called under .*trace the original"):
            recordings()[recorder](compiled, torch.randn(4, 6))


def test_torch_compile_and_counters_leave_a_compiled_module_alone(viewed: Any) -> None:
    torch._dynamo.reset()
    compiled, x = viewed[0], torch.randn(4, 6)
    expected = compiled(x * 2) - 1
    assert torch.equal(torch.compile(lambda x: compiled(x * 2) - 1, backend="eager")(x), expected)
    with FlopCounterMode(display=False):
        assert torch.equal(compiled(x * 2) - 1, expected)


def test_machine_code_is_not_pickled(viewed: Any) -> None:
    holder = nn.Identity()
    holder.helper = viewed[0]
    for thing in (viewed[0], viewed[0].__call__, holder):
        with pytest.raises(InvalidInput, match=r"cannot be pickled\n.*save it with"):
            pickle.dumps(thing)
    with pytest.raises(InvalidInput, match="cannot be pickled"):
        torch.save({"module": viewed[0]}, io.BytesIO())
    x = torch.randn(4, 6)
    for copied in (copy.copy(viewed[0]), copy.deepcopy(holder).helper):
        assert torch.equal(copied(x), viewed[0](x))


def test_a_tensor_for_a_number_is_refused_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    compiled = torch_tvm.compile(torch.jit.script(_scaled), (torch.ones(2), 3))
    recwarn.clear()
    with pytest.raises(InvalidInput, match=r"argument 'n': expected int, got int64\[\]"):
        compiled(torch.ones(2), torch.tensor(2))
    assert not recwarn.list


def _scaled(x: torch.Tensor, n: int) -> torch.Tensor:
    return x * n


class _WritesComplex(nn.Module):
    def __init__(self, bias: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("bias", bias)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x.mul_(2)
        self.bias.add_(1)
        return x * y + self.bias, torch.linalg.inv(x[:, :3])


def test_complex_numbers_at_odd_addresses() -> None:
    """PyTorch's kernels of complex128 end the process there, those that copy and conjugate too; no one of them runs."""
    x, y, bias = (torch.randn(3, 5, dtype=torch.complex128) for _ in range(3))
    at_odd_address = LAYOUTS["misaligned"]
    compiled = torch_tvm.compile(_WritesComplex(at_odd_address(bias)), (x.clone(), y))
    given = at_odd_address(x)
    ours, inverse = compiled(given, at_odd_address(y).conj())
    torch.testing.assert_close(ours, 2 * x * y.conj() + bias + 1)
    torch.testing.assert_close(inverse, torch.linalg.inv(2 * x[:, :3]))
    assert torch.equal(torch.view_as_real(given), torch.view_as_real(2 * x))
