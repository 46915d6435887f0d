"""Modules that exercise the object side of TorchScript: state, submodules, methods, interfaces, hooks."""

# ruff: noqa: UP006, UP035, UP045
from typing import Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn


class Affine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(5, 4, bias=False), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.first(x))


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(6 * 9, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu_(self.norm(self.conv(x))))
        return self.head(x.flatten(1))


class Running(nn.Module):
    """State of every kind: a buffer updated in place, one replaced, and a number."""

    count: int

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(3))
        self.last: Tensor
        self.register_buffer("last", torch.ones(3))
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.total += x
        self.last = self.last * 0.5 + x
        self.count += 1
        return self.total / self.count + self.last * self.weight


class ConditionalState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("hits", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            self.hits.add_(1.0)
        for i in range(x.size(0)):
            self.hits += x[i]
        return x + self.hits


@torch.jit.script
class Meter:
    def __init__(self, count: int, total: Tensor):
        self.count = count
        self.total = total

    def update(self, x: Tensor) -> Tensor:
        self.count += 1
        self.total += x
        return self.total / self.count


class WithObject(nn.Module):
    """State inside an object of a script class."""

    def __init__(self) -> None:
        super().__init__()
        self.meter = Meter(0, torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.meter.update(x)


class GrowingState(nn.Module):
    """State that has no form here: a list that grows from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.history: List[Tensor] = [torch.zeros(3)]

    def forward(self, x: Tensor) -> Tensor:
        self.history.append(x)
        return x * len(self.history)


class ShapeState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(1, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = torch.cat([self.seen, x.unsqueeze(0)])
        return self.seen.sum(0)


class Cache(nn.Module):
    """A window over a buffer is written: the base changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(4, 3))

    def forward(self, x: Tensor, position: int) -> Tensor:
        self.memory[position] = x
        return self.memory.sum(0)


class Lists(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])
        self.choices = nn.ModuleDict({"relu": nn.ReLU(), "tanh": nn.Tanh()})
        self.scales: List[float] = [1.0, 0.5, 0.25]
        self.offsets: Dict[str, int] = {"a": 1, "b": 2}

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x) * self.scales[i]
        for name, act in self.choices.items():
            x = act(x) + (self.offsets["a"] if name == "relu" else 0)
        return x


class Methods(nn.Module):
    """Several exported methods, one unused, default arguments, an optional submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 4)
        self.down = nn.Linear(4, 3)
        self.extra: Optional[nn.Linear] = None

    def forward(self, x: Tensor, scale: float = 2.0, shift: Optional[Tensor] = None) -> Tensor:
        y = self.decode(self.encode(x)) * scale
        if shift is not None:
            y = y + shift
        if self.extra is not None:
            y = self.extra(y)
        return y

    @torch.jit.export
    def encode(self, x: Tensor) -> Tensor:
        return torch.relu(self.up(x))

    @torch.jit.export
    def decode(self, x: Tensor) -> Tensor:
        return self.down(x)

    @torch.jit.unused
    def debug(self, x: Tensor) -> Tensor:
        import pdb

        return x + len(pdb.__name__)


@torch.jit.interface
class Activation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        pass


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


class WithInterface(nn.Module):
    act: Activation

    def __init__(self) -> None:
        super().__init__()
        self.act = Square()
        self.lin = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.act.forward(self.lin(x))


class SharedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = self.a

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.a(x)
        return self.b(y)


class TrainingFlag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x) * 3 if self.training else self.drop(x)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(10, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        y, _ = self.lstm(x)
        return self.gru(y)


class Cells(nn.Module):
    """A hand-written recurrence whose length comes from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.size(1), 4)
        c = torch.zeros(x.size(1), 4)
        outputs: List[Tensor] = []
        for t in range(x.size(0)):
            h, c = self.cell(x[t], (h, c))
            outputs.append(h)
        return torch.stack(outputs)


def doubled_input(self, input: Tuple[Tensor]) -> Tuple[Tensor]:
    return (input[0] * 2,)


def shifted_output(self, input: Tuple[Tensor], output: Tensor) -> Tensor:
    return output + input[0].sum()


class Hooked(nn.Module):
    """Hooks before and after ``forward``, on the module and on a part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 3)
        for module in (self, self.lin):
            module.register_forward_pre_hook(doubled_input)
            module.register_forward_hook(shifted_output)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x)
