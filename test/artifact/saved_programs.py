"""Programs of many kinds, by name: how each is compiled, and the calls that tell whether it is still the same."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import torch_tvm

Pair = namedtuple("Pair", ["sum", "difference"])


class Nested(nn.Module):
    def forward(self, x: Any, *, scale: int, mode: Any = None) -> Any:
        first, second = x["a"], x["b"][0]
        pair = Pair(first + second, first - second)
        return {"pair": pair, "list": [first * scale, None, 3], "inf": float("inf")}


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("total", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.total += x
        return self.total / self.count


class Halving(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while bool((x.sum() > 1.0).item()):
            x = x * 0.5
        return x


class Spectrum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(torch.linalg.matrix_exp(x))


class Determinant(nn.Module):
    """A program without a kernel of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.det(x)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8, dtype=torch.bfloat16)
        self.register_buffer("phase", torch.tensor([1 + 2j, 3 - 1j]))
        self.register_buffer("nothing", torch.zeros(0, 4))
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, index: Tensor) -> Any:
        return self.table(index), self.phase * self.gain, self.nothing.sum() + self.gain


class Coder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 4)
        self.register_buffer("offset", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.encode(x).sum() + self.offset

    @torch.jit.export
    def encode(self, x: Tensor) -> Tensor:
        return torch.relu(self.up(x))

    @torch.jit.export
    def shift(self, by: Tensor) -> Tensor:
        self.offset += by
        return self.offset


class EncodeOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 4)

    @torch.jit.export
    def encode(self, x: Tensor) -> Tensor:
        return self.up(x)


def image_network() -> nn.Module:
    layers = [
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3),
        nn.MaxPool2d(2),
    ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 5 * 5, 4)).eval()


def some(*shape: int) -> Tensor:
    return torch.randn(shape)


Call = Callable[[Any], Any]


def calls(*arguments: Sequence[Any], method: str = "__call__") -> list[Call]:
    return [lambda module, args=args: getattr(module, method)(*args) for args in arguments]


def programs() -> dict[str, tuple[Any, list[Call]]]:
    """Compiled modules, and calls of each in order; made anew from the same seed they are the same."""
    torch.manual_seed(7)
    batch = {"x": {0: torch.export.Dim("batch", min=1, max=64)}}
    dynamic = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 2))
    nested = {"a": some(2, 3), "b": (some(2, 3),)}
    coder = torch.jit.script(Coder())
    bare = torch.jit.script(EncodeOnly())
    compile = torch_tvm.compile
    return {
        "image": (compile(image_network(), (some(1, 3, 12, 12),)), calls((some(1, 3, 12, 12),))),
        "dynamic": (
            compile(dynamic, (some(3, 6),), dynamic_shapes={"input": batch["x"]}),
            calls((some(1, 6),), (some(5, 6),), (some(64, 6),)),
        ),
        "nested": (
            compile(_Called(Nested(), scale=3), (nested,)),
            calls((nested,)),
        ),
        "counter": (compile(Counter(), (some(3),)), calls((some(3),), (some(3),))),
        "loop": (compile(torch.jit.script(Halving()), (some(4),)), calls((some(4).abs() * 50,), (some(4),))),
        "no_kernel": (compile(Determinant(), (some(3, 3),)), calls((some(3, 3),))),
        "library_call": (compile(Spectrum(), (some(8, 8),)), calls((some(8, 8),))),
        "dtypes": (compile(Gated(), (torch.tensor([1, 2]),)), calls((torch.tensor([3, 9]),))),
        "one_kernel_twice": (
            compile(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)), (some(2, 64),)),
            calls((some(2, 64),)),
        ),
        "lstm": (compile(nn.LSTM(4, 5).eval(), (some(3, 2, 4),)), calls((some(3, 2, 4),))),
        "script": (
            compile(torch.jit.script(nn.Linear(4, 2)), (torch_tvm.TensorSpec((None, 4), torch.float32),)),
            calls((some(1, 4),), (some(7, 4),)),
        ),
        "methods": (
            compile(coder, {"forward": (some(2, 3),), "encode": (some(2, 3),), "shift": (some(3),)}),
            [
                *calls((some(2, 3),), method="encode"),
                *calls((some(3),), method="shift"),
                *calls((some(2, 3),)),
            ],
        ),
        "without_forward": (compile(bare, {"encode": (some(2, 3),)}), calls((some(2, 3),), method="encode")),
    }


class _Called(nn.Module):
    """A module with some keyword arguments given."""

    def __init__(self, inner: nn.Module, **given: Any) -> None:
        super().__init__()
        self.inner, self.given = inner, given

    def forward(self, x: Any) -> Any:
        return self.inner(x, **self.given)
