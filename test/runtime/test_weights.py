"""Weights and state of compiled modules are their own, and are exchanged as a whole or not at all."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import torch_tvm
from torch_tvm.support.errors import InvalidInput


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.act = nn.Linear(4, 8), nn.Linear(8, 4), nn.PReLU()
        self.register_buffer("steps", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps.add_(1)
        return self.act(self.down(self.encode(x))) + self.steps

    @torch.jit.export
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(x) * 2


X = torch.randn(3, 4)


def compiled_of(model: Model, is_scripted: bool) -> Any:
    if not is_scripted:
        return torch_tvm.compile(model, (X,))
    scripted = torch_tvm.compile(torch.jit.script(model), (X,))
    scripted.encode(X)
    return scripted


@pytest.fixture(params=[False, True], ids=["exported", "scripted"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Model, Model]:
    """A compiled module, the eager model it was compiled from, and a copy of that."""
    model = Model().eval()
    with torch.no_grad():
        return compiled_of(model, request.param), model, copy.deepcopy(model)


@torch.no_grad()
@pytest.mark.parametrize("level", [0, 3])
def test_some_weights_are_exchanged_and_the_others_stay(level: int) -> None:
    model = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.Linear(30, 7), nn.Linear(7, 40)).eval()
    x = torch.randn(3, 20)
    compiled = torch_tvm.compile(model, (x,), options={"opt_level": level})
    addresses = _packed_addresses(compiled)
    other = copy.deepcopy(model)
    other[2].weight.normal_()
    compiled.load_state_dict({"2.weight": other[2].weight}, strict=False)
    torch.testing.assert_close(compiled(x), other(x))
    exchanged = [a != b for a, b in zip(addresses, _packed_addresses(compiled), strict=True)]
    assert exchanged.count(True) == 1
    other[1].running_var.fill_(3)
    twin = copy.deepcopy(compiled)
    compiled.load_state_dict(other.state_dict())
    torch.testing.assert_close(compiled(x), other(x))
    other[1].running_var.fill_(1)
    torch.testing.assert_close(twin(x), other(x))


def _packed_addresses(compiled: Any) -> list[int]:
    return [tensor.data_ptr() for tensor in compiled.parts().weights.packed_tensors()]


@torch.no_grad()
def test_changes_of_the_eager_model_are_not_seen(pair: tuple[Any, Model, Model]) -> None:
    compiled, model, reference = pair
    for tensor in model.state_dict().values():
        tensor.data.fill_(7)
    given = compiled.state_dict()
    assert all(torch.equal(given[name], reference.state_dict()[name]) for name in given)
    for tensor in given.values():
        tensor.fill_(5)
    loaded = torch.randn(4)
    compiled.load_state_dict({"down.bias": loaded}, strict=False)
    reference.down.bias.copy_(loaded)
    loaded.zero_()
    torch.testing.assert_close(compiled(X), reference(X))
    if compiled.methods:
        torch.testing.assert_close(compiled.encode(X), reference.encode(X))


def _freed() -> torch.Tensor:
    tensor = torch.randn(4)
    tensor.untyped_storage().resize_(0)
    return tensor


BAD: dict[str, Callable[[], Any]] = {
    r"float32\[3\]": lambda: torch.randn(3),
    r"float64\[4\]": lambda: torch.randn(4).double(),
    "on meta": lambda: torch.randn(4, device="meta"),
    "a nested tensor": lambda: torch.nested.nested_tensor([torch.randn(4)]),
    "sparse_coo": lambda: torch.randn(4).to_sparse(),
    "memory was freed": _freed,
    "str 'a'": lambda: "a",
    "None": lambda: None,
}


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_loaded_changes_nothing(pair: tuple[Any, Model, Model]) -> None:
    compiled, _, reference = pair
    before, good = compiled.state_dict(), torch.randn(8, 4)
    for name in ("down.bias", "steps"):
        for expected, bad in BAD.items():
            with pytest.raises(InvalidInput, match=rf"weight '{name}': expected .*, got .*{expected}"):
                compiled.load_state_dict({"up.weight": good, name: bad()}, strict=False)
    with pytest.raises(InvalidInput, match="folded into the code"):
        compiled.load_state_dict({"up.weight": good, "act.weight": torch.ones(1)}, strict=False)
    with pytest.raises(InvalidInput, match="lacks"):
        compiled.load_state_dict({"up.weight": good})
    with pytest.raises(InvalidInput, match="state_dict: expected a dict of tensors, got list"):
        compiled.load_state_dict([good])
    assert all(torch.equal(tensor, before[name]) for name, tensor in compiled.state_dict().items())
    torch.testing.assert_close(compiled(X), reference(X))
    if compiled.methods:
        torch.testing.assert_close(compiled.encode(X), reference.encode(X))


@torch.no_grad()
def test_a_copy_keeps_its_weights(pair: tuple[Any, Model, Model]) -> None:
    compiled, _, reference = pair
    twins = (copy.copy(compiled), copy.deepcopy(compiled))
    compiled.load_state_dict({"up.weight": torch.zeros(8, 4)}, strict=False)
    for twin in twins:
        torch.testing.assert_close(twin(X), copy.deepcopy(reference)(X))
        if compiled.methods:
            torch.testing.assert_close(twin.encode(X), reference.encode(X))
    assert not torch.equal(compiled(X), twins[0](X))


def test_what_is_compiled_in_inference_mode_runs_outside() -> None:
    with torch.inference_mode():
        model = Model().eval()
        compiled, expected = torch_tvm.compile(model, (X,)), copy.deepcopy(model)(X)
    torch.testing.assert_close(compiled(X), expected)
    compiled.load_state_dict({"steps": torch.zeros(4)}, strict=False)
    torch.testing.assert_close(compiled(X), expected)


def test_methods_hold_a_weight_once() -> None:
    compiled = compiled_of(Model().eval(), is_scripted=True)
    (encode,) = compiled.encode.compiled
    weight = "up.weight"
    assert encode.own_state_dict()[weight] is compiled.own_state_dict()[weight]
