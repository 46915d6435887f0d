"""Modules that change their state, each in another way; ``forward`` takes a vector of three."""

import torch
from torch import Tensor, nn


class Counter(nn.Module):
    n: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("n", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        return x * self.n


class Returned(nn.Module):
    """A buffer is returned, and so is a view of it; the next call changes both."""

    a: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.arange(6.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        v = self.a.view(2, 3)[1]
        v.add_(x)
        return v, self.a


class Overlapping(nn.Module):
    """One buffer is a part of another."""

    a: Tensor
    b: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.arange(6.0))
        self.register_buffer("b", self.a[2:5])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.b.add_(x)
        before = self.a * 1
        self.a.mul_(2)
        return before, self.b + 0


class Apart(nn.Module):
    """Two buffers share memory, and neither has all of it."""

    a: Tensor
    b: Tensor

    def __init__(self) -> None:
        super().__init__()
        memory = torch.arange(5.0)
        self.register_buffer("a", memory[:3])
        self.register_buffer("b", memory[2:])

    def forward(self, x: Tensor) -> Tensor:
        self.a.add_(x)
        self.b.mul_(0.5)
        return self.a + self.b


class Tied(nn.Module):
    """An attribute and a buffer are one tensor."""

    a: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.arange(3.0))
        self.b = self.a

    def forward(self, x: Tensor) -> Tensor:
        self.a.add_(x)
        return self.b * 2


class Reassigned(nn.Module):
    b: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("b", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.b = self.b * 0.5 + x
        return self.b + 1


class Swapped(nn.Module):
    """``torch.export`` fails on it, with an error of its own verifier."""

    a: Tensor
    b: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.zeros(3))
        self.register_buffer("b", torch.ones(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = self.a
        self.a = self.b
        self.b = a
        return x + self.a, self.b


class Complex(nn.Module):
    c: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("c", torch.ones(3, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        self.c.mul_(torch.complex(x, x))
        torch.view_as_real(self.c)[:, 1].add_(1)
        return torch.view_as_real(self.c) * 2


class Norms(nn.Module):
    """Running statistics, which no schema says that the ops write."""

    mean: Tensor
    var: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.instance = nn.InstanceNorm1d(3, track_running_stats=True, affine=True)
        self.batch = nn.BatchNorm1d(3)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = torch.outer(x.cos().repeat(2), torch.linspace(-1, 2, 5)).view(2, 3, 5).sin()
        third = torch.native_batch_norm(y, None, None, self.mean, self.var, True, 0.1, 1e-5)
        return self.instance(y), self.batch(y), third[0] + third[1].view(1, 3, 1)


class LimitedEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4, max_norm=1.0)
        with torch.no_grad():
            self.table.weight.copy_(torch.arange(20.0).view(5, 4) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.table((x.abs() * 2).long() % 5)


class Viewed(nn.Module):
    """Updates through reshapes, slices and transposes of a buffer."""

    b: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("b", torch.zeros(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.b.reshape(-1)[1:4].add_(x)
        self.b.t()[0].mul_(2)
        self.b.unsqueeze(-1)[:, 2, 0] = x[0]
        return self.b.sum(0)


class Moved(nn.Module):
    """Shapes of fresh tensors change in place."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = torch.outer(x, x[:2])
        row = y[0]
        z = y.unsqueeze_(0)
        z.transpose_(1, 2).add_(1)
        w = x * 1
        w.resize_(2).mul_(3)
        v = x * 2
        v.set_(x + 1)
        v.add_(1)
        return y * 1, row * 1, w + v[:2]


MODULES = (
    Counter,
    Returned,
    Overlapping,
    Apart,
    Tied,
    Reassigned,
    Swapped,
    Complex,
    Norms,
    LimitedEmbedding,
    Viewed,
    Moved,
)


class Together(nn.Module):
    """All of them but ``left_out``, so that one import and one compilation show them."""

    def __init__(self, *left_out: type[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList([each() for each in MODULES if each not in left_out])

    def forward(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for part in self.parts:
            result = part(x)
            if isinstance(result, Tensor):
                found.append(result)
            else:
                found.extend(result)
        return found


class NumberChanged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        return x * self.n


class AttributeReassigned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.t = torch.zeros(3)

    def forward(self, x: Tensor) -> Tensor:
        self.t = self.t + x
        return self.t * 2


class ListChanged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kept = [torch.zeros(3)]

    def forward(self, x: Tensor) -> Tensor:
        self.kept[0] = self.kept[0] + x
        return self.kept[0] * 2


class Remembering(nn.Module):
    """It notes what it made, and does not read it again."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Tensor | None = None
        self.shape: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        self.shape = tuple(x.shape)
        self.last = x * 2
        return self.last + 1
