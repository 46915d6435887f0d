"""Calls of compiled modules: what goes in, what comes out, what is refused and with which words."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import torch_tvm
from torch_tvm.support.errors import InvalidInput


class AddRelu(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) + y


class Nested(nn.Module):
    def forward(self, x: torch.Tensor, *, extra: dict[str, list[torch.Tensor]]) -> Any:
        return {"sum": x + extra["a"][0], "rest": [x.shape[0], (x * 2,)]}


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(3))
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x)
        return self.total * self.weight


class Weights(nn.Module):
    """Returns a computed value, a weight as it is, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self) -> Any:
        return self.weight * 2, self.weight, torch.ones(2)


@pytest.fixture(scope="module")
def add_relu() -> Any:
    return torch_tvm.compile(AddRelu(), (torch.randn(4, 6), torch.randn(6)))


def x() -> torch.Tensor:
    return torch.randn(4, 6)


def y() -> torch.Tensor:
    return torch.randn(6)


@pytest.mark.parametrize(
    "unusual",
    [
        pytest.param(lambda: torch.randn(6, 4).t(), id="transposed"),
        pytest.param(lambda: torch.randn(1, 6).expand(4, 6), id="expanded"),
        pytest.param(lambda: torch.randn(25)[1:].reshape(4, 6), id="unaligned"),
        pytest.param(lambda: torch._neg_view(torch.randn(4, 6)), id="negative view"),
        pytest.param(lambda: torch.randn(4, 6, dtype=torch.complex64).conj().imag, id="imaginary part"),
        pytest.param(lambda: torch.randn(8, 6)[::2], id="strided"),
        pytest.param(lambda: nn.Parameter(torch.randn(4, 6), requires_grad=False), id="parameter"),
    ],
)
def test_unusual_tensors_are_read_right(add_relu: Any, unusual: Callable[[], torch.Tensor]) -> None:
    given, other = unusual(), y()
    torch.testing.assert_close(add_relu(given, other), AddRelu()(given, other), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda: (x().double(), y()), "argument 'x': expected float32[4, 6], got float64[4, 6]"),
        (lambda: (x(), torch.randn(5)), "argument 'y': expected float32[6], got float32[5]"),
        (lambda: (y(), y()), "argument 'x': expected float32[4, 6], got float32[6]"),
        (lambda: (x(),), "expected 2 positional arguments, got 1 (missing: y)"),
        (lambda: (x(), y(), y()), "expected 2 positional arguments, got 3"),
        (lambda: (x(), None), "argument 'y': expected float32[6], got None"),
        (lambda: (x(), 3.0), "argument 'y': expected float32[6], got float 3.0"),
        (lambda: (x().numpy(), y()), "argument 'x': expected float32[4, 6], got ndarray"),
        (
            lambda: (x().to("meta"), y()),
            "argument 'x': expected float32[4, 6] on cpu, got float32[4, 6] on meta",
        ),
        (
            lambda: (x().to_sparse(), y()),
            "argument 'x': expected float32[4, 6], got float32[4, 6] (sparse_coo)",
        ),
    ],
)
def test_a_wrong_argument_is_named(add_relu: Any, arguments: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        add_relu(*arguments())
    assert str(caught.value).splitlines()[0] == message


def test_keyword_arguments(add_relu: Any) -> None:
    a, b = x(), y()
    assert torch.equal(add_relu(a, y=b), AddRelu()(a, b))
    with pytest.raises(InvalidInput, match="unexpected keyword argument 'z'"):
        add_relu(a, b, z=b)


class Named(nn.Module):
    def forward(self, Q: torch.Tensor, naïve: list[torch.Tensor], scale: float, Ω: torch.Tensor) -> torch.Tensor:
        return Q * scale + naïve[0] - naïve[1] * Ω


@pytest.mark.parametrize("frontend", ["fx", "torchscript"])
def test_the_users_own_names(frontend: str) -> None:
    """torch.export writes ``Q`` as ``q``; a list has no name, and what comes after it is not called
    like its elements.
    """
    a, b, c, d = x(), y(), x(), y()
    program = torch.jit.script(Named()) if frontend == "torchscript" else Named()
    compiled = torch_tvm.compile(program, (a, [b, c], 0.5, d), frontend=frontend)
    expected = Named()(a, [b, c], 0.5, d)
    torch.testing.assert_close(compiled(a, [b, c], scale=0.5, Ω=d), expected)
    torch.testing.assert_close(compiled(a, [b, c], Ω=d, scale=0.5), expected)
    with pytest.raises(InvalidInput, match=r"missing: Ω"):
        compiled(a, [b, c], 0.5)
    with pytest.raises(InvalidInput, match="argument 'Q': expected float32"):
        compiled(a.double(), [b, c], 0.5, d)


def test_gradients_are_refused_and_the_way_is_shown(add_relu: Any) -> None:
    given, other = x().requires_grad_(), y()
    with pytest.raises(InvalidInput, match=r"(?s)argument 'x': requires grad.*torch\.compile"):
        add_relu(given, other)
    with torch.no_grad():
        assert torch.equal(add_relu(given, other), AddRelu()(given, other))


def test_nesting_of_arguments_and_results() -> None:
    a, b = x(), y()
    program = torch.export.export(Nested(), (a,), {"extra": {"a": [b]}})
    compiled = torch_tvm.compile(program)
    result = compiled(a, extra={"a": [b]})
    assert list(result) == ["sum", "rest"]
    assert torch.equal(result["sum"], a + b)
    assert result["rest"][0] == 4 and type(result["rest"][1]) is tuple
    assert torch.equal(result["rest"][1][0], a * 2)
    with pytest.raises(InvalidInput, match=r"argument 'extra': expected \{a: \[\*\]\}, got \{a: \[\*, \*\]\}"):
        compiled(a, extra={"a": [b, b]})
    with pytest.raises(InvalidInput, match="keyword argument 'extra' is missing"):
        compiled(a)


def test_results_share_no_memory_with_arguments_weights_or_each_other() -> None:
    class Same(nn.Module):
        def forward(self, a: torch.Tensor) -> Any:
            b = a + 1
            return a, b, b.view(-1), a.view(-1)

    given = torch.randn(2, 3)
    results = torch_tvm.compile(Same(), (given,))(given)
    addresses = [tensor.data_ptr() for tensor in (given, *results)]
    assert len(set(addresses)) == len(addresses)
    for ours, eager in zip(results, Same()(given), strict=True):
        assert torch.equal(ours, eager)


@torch.library.custom_op("torch_tvm_calls::noted", mutates_args=())
def noted(x: torch.Tensor) -> torch.Tensor:
    result = x + 1
    places.extend([x.data_ptr(), result.data_ptr()])
    return result


noted.register_fake(torch.empty_like)
places: list[int] = []
"""Where the argument and the result of the last call of ``noted`` lay."""


@pytest.mark.filterwarnings("ignore:(?s).*noted")
@pytest.mark.parametrize("way", ["compile", "torch.compile"])
def test_neither_an_argument_nor_a_result_is_copied(way: str) -> None:
    rows, place = torch.randn(12, 5), slice(3, 7)
    function = lambda x: noted(x)
    is_ours = way == "compile"
    program = torch_tvm.compile(function, (rows[:4],)) if is_ours else torch.compile(function, backend="torch_tvm")
    for x in (rows[:4], rows[place], torch.randn(4, 5)):
        places.clear()
        result = program(x)
        assert places == [x.data_ptr(), result.data_ptr()]
        assert torch.equal(result, x + 1)


@torch.no_grad()
def test_a_program_without_arguments_keeps_its_weights() -> None:
    module = Weights()
    compiled = torch_tvm.compile(module, ())
    expected = [tensor.clone() for tensor in module()]
    for tensor in compiled():
        tensor.zero_()
    module.weight.zero_()
    for ours, before in zip(compiled(), expected, strict=True):
        assert type(ours) is torch.Tensor
        assert torch.equal(ours, before)


@torch.no_grad()
def test_state_belongs_to_the_compiled_module() -> None:
    module = Counter()
    reference, compiled = copy.deepcopy(module), torch_tvm.compile(module, (torch.ones(3),))
    for _ in range(3):
        given = torch.randn(3)
        assert torch.equal(compiled(given), reference(given))
    assert torch.equal(module.total, torch.zeros(3))
    twin = copy.deepcopy(compiled)
    given = torch.randn(3)
    assert torch.equal(twin(given), compiled(given))
    twin(given)
    assert torch.equal(compiled(given), twin(torch.zeros(3)))


@torch.no_grad()
def test_a_weight_of_one_element_is_in_the_code() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.PReLU()).eval()
    x = torch.randn(2, 3)
    compiled = torch_tvm.compile(module, (x,))
    same = {**nn.Linear(3, 4).state_dict(prefix="0."), "1.weight": module[1].weight.detach()}
    compiled.load_state_dict(same)
    module.load_state_dict(same)
    torch.testing.assert_close(compiled(x), module(x).detach())
    with pytest.raises(InvalidInput, match=r"'1\.weight': its value was folded into the code\n.*compile"):
        compiled.load_state_dict({**same, "1.weight": torch.tensor([2.0])})


@torch.no_grad()
def test_load_state_dict_packs_again_and_names_what_does_not_fit() -> None:
    compiled = torch_tvm.compile(Counter(), (torch.ones(3),))
    other = Counter()
    compiled.load_state_dict(other.state_dict())
    given = torch.randn(3)
    assert torch.equal(compiled(given), other(given))
    with pytest.raises(InvalidInput, match=r"weight 'weight': expected float32\[3\], got float32\[4\]"):
        compiled.load_state_dict({"weight": torch.randn(4), "total": torch.zeros(3)})
    with pytest.raises(InvalidInput, match="lacks weight"):
        compiled.load_state_dict({"total": torch.zeros(3)})


@pytest.mark.parametrize("make", [lambda: torch.randn(3), lambda: torch.randn(3, 2)[:, 0]], ids=["dense", "strided"])
def test_arguments_that_the_program_changes_are_written_back(make: Callable[[], torch.Tensor]) -> None:
    class InPlace(nn.Module):
        def forward(self, a: torch.Tensor) -> torch.Tensor:
            a.add_(1)
            return a * 2

    compiled = torch_tvm.compile(InPlace(), (torch.ones(3),))
    ours = make()
    eager = ours.clone()
    assert torch.equal(compiled(ours), InPlace()(eager))
    assert torch.equal(ours, eager)


def test_four_threads_at_once() -> None:
    a, b = torch.randn(128, 96), torch.randn(96)
    compiled, expected = torch_tvm.compile(AddRelu(), (a, b)), AddRelu()(a, b)
    wrong: list[Any] = []

    def work() -> None:
        try:
            wrong.extend(1 for _ in range(200) if not torch.equal(compiled(a, b), expected))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.int64, torch.uint8, torch.bool, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 7)])
def test_dtypes_and_odd_shapes_pass_through(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    class Twice(nn.Module):
        def forward(self, a: torch.Tensor) -> Any:
            return torch.cat([a.reshape(-1), a.reshape(-1)]), a.clone()

    given = torch.randint(0, 2, shape).to(dtype)
    for ours, eager in zip(torch_tvm.compile(Twice(), (given,))(given), Twice()(given), strict=True):
        assert ours.dtype == eager.dtype and ours.shape == eager.shape
        assert torch.equal(ours, eager)
