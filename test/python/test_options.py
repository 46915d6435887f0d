"""``opt_level``, ``scheduler`` and ``trials``, which PyTorch's own backend ``tvm`` had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from tvm import relax

import torch_tvm
from torch_tvm.lowering.registry import Tensor
from torch_tvm.support.errors import InvalidInput


class Net(nn.Module):
    """A convolution with a batch norm, attention, products that share an operand, a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.query, self.key = nn.Linear(16, 16), nn.Linear(16, 16)
        self.recurrent = nn.LSTM(16, 16, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.features(x).flatten(2).mT
        z = nn.functional.scaled_dot_product_attention(self.query(y), self.key(y), y, is_causal=True)
        return self.recurrent(z)[0].amax(1)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    made = Net().eval().requires_grad_(False)
    nn.init.uniform_(made.features[1].running_var, 0.5, 2)
    return made


def test_each_level_leaves_out_what_it_says(net: nn.Module) -> None:
    x = torch.randn(2, 3, 6, 7)
    kernels, packed, rules = [], [], []
    for level in range(4):
        compiled = torch_tvm.compile(net, (x,), fallback=False, options={"opt_level": level, "cache": False})
        torch.testing.assert_close(compiled(x), net(x), rtol=1e-4, atol=1e-4)
        kernels.append(len(compiled.report.kernels))
        packed.append(sum(bool(kernel.origin.packed) for kernel in compiled.report.kernels))
        rules.append({kernel.rule for kernel in compiled.report.kernels})
    assert kernels[0] > kernels[1] > kernels[2]
    assert packed[:2] == [0, 0] and packed[2] > 0
    assert [{"attention", "direct-convolution"} <= found for found in rules] == [False, False, False, True]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_gradients_at_every_level(net: nn.Module, level: int) -> None:
    torch._dynamo.reset()
    model = Net()
    x = torch.randn(2, 3, 6, 7, requires_grad=True)
    options = {"opt_level": level, "scheduler": None, "trials": 20000, "fallback": False}
    torch.compile(model, backend="torch_tvm", options=options)(x).sum().backward()
    given, x.grad = x.grad, None
    model(x).sum().backward()
    assert given is not None and x.grad is not None
    torch.testing.assert_close(given, x.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opt_level": 4}, r"options\['opt_level'\]: expected a number from 0 to 3, got 4"),
        ({"opt_level": True}, "expected a number from 0 to 3, got True"),
        ({"trials": 0}, r"options\['trials'\]: expected a number from 1 on, got 0"),
        ({"scheduler": "auto_scheduler"}, "no scheduler 'auto_scheduler': it left TVM together with Relay"),
        ({"scheduler": "best"}, r"options\['scheduler'\]: unknown scheduler 'best'"),
        ({"scheduler": 3}, "unknown scheduler 3"),
        ({"lowerings": {"aten.gelu": 3}}, r"options\['lowerings'\]: expected a dict of functions"),
        ({"lowerings": {"aten.gulu": abs}}, r"options\['lowerings'\]: 'aten.gulu' has no built-in lowering"),
        ({"rules": ["matmul"]}, r"options\['rules'\]: expected a list of rules"),
    ],
)
def test_values_that_an_option_cannot_have(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        torch_tvm.compile(lambda x: x + 1, (torch.ones(2),), options=options)


def test_the_scheduler_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2)
    for name, given in (("default", {}), ("auto_scheduler", {"scheduler": "default"})):
        torch._dynamo.reset()
        monkeypatch.setenv("TVM_SCHEDULER", name)
        assert torch.equal(torch.compile(lambda x: x + 1, backend="torch_tvm", options=given)(x), x + 1)
    torch._dynamo.reset()
    with pytest.raises(Exception, match="it left TVM"):
        torch.compile(lambda x: x + 1, backend="torch_tvm")(x)


def _doubled(b: Any, x: Tensor) -> Any:
    if len(b.shape(x)) == 1:
        b.unsupported("only matrices are doubled")
    return b.emit(relax.op.multiply(x, b.const(2, b.dtype(x))))


@pytest.mark.parametrize("by_dynamo", [False, True])
def test_a_lowering_for_one_compile(by_dynamo: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_TVM_CACHE", str(tmp_path))

    def run(program: Any, x: torch.Tensor, **options: Any) -> torch.Tensor:
        torch._dynamo.reset()
        if by_dynamo:
            result: torch.Tensor = torch.compile(program, backend="torch_tvm", options=options)(x)
            return result
        result = torch_tvm.compile(program, (x,), options=options)(x)
        return result

    matrix, vector = torch.randn(3, 4), torch.randn(5)
    own = {"lowerings": {"aten::relu": _doubled}}
    assert torch.equal(run(torch.relu, matrix), torch.relu(matrix))
    assert torch.equal(run(torch.relu, matrix, **own), matrix * 2)
    assert torch.equal(run(torch.relu, vector, **own), torch.relu(vector))
    assert torch.equal(run(torch.relu, matrix), torch.relu(matrix))


def test_what_a_lowering_of_the_users_raises_stays_what_it_is() -> None:
    def broken(b: Any, x: Tensor) -> Any:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        torch_tvm.compile(torch.relu, (torch.ones(2),), options={"lowerings": {"aten.relu": broken}})
    with pytest.raises(InvalidInput, match="lowerings or rules of yours"):
        torch_tvm.compile(
            torch.relu, (torch.ones(2),), options={"cache_key": "x", "lowerings": {"aten.relu": _doubled}}
        )
