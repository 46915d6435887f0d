"""Programs that write: into arguments, through views, into their own state."""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-def"
import torch
from torch import nn

from torch_tvm.tools.e2e.case import case


@case("3x4")
def adds_to_its_argument(x):
    x.add_(1)
    return x * 2


@case("3x4", "4")
def writes_a_row_of_its_argument(x, y):
    x[1] = y
    return x.sum(0)


@case("4x6")
def writes_through_a_transpose(x):
    x.t()[2].mul_(3)
    return x + 1


@case("4x6")
def writes_through_a_view_of_a_view(x):
    v = x.view(2, 2, 6)[1]
    v[:, ::2] = 0.0
    return x, v.sum()


@case("4x6")
def a_view_sees_a_later_write(x):
    y = x * 1
    v = y[1:3]
    y.add_(5)
    return v * 2


@case("4x6")
def chunks_are_written_apart(x):
    y = x.clone()
    a, b = y.chunk(2, 1)
    a.relu_()
    b.neg_()
    return y


@case("2x3")
def chain_of_writes(x):
    y = x.clone()
    y += 1
    y *= x
    y.clamp_(-1, 1)
    y[0, 0] = 7
    return y


@case("6:f32")
def in_place_keeps_its_dtype(x):
    counts = torch.zeros(6, dtype=torch.int64)
    counts += (x > 0).long()
    return counts


@case("3x4", "3x4:bool")
def masked_write(x, mask):
    y = x.clone()
    y[mask] = 0.0
    y.masked_fill_(y > 1, -1.0)
    return y


@case("5x3", "2x3")
def scattered_writes(x, y):
    z = x.clone()
    z.index_add_(0, torch.tensor([0, 4]), y)
    z.index_copy_(0, torch.tensor([1, 2]), y)
    z.scatter_(1, torch.tensor([[0], [1], [2], [0], [1]]), 9.0)
    return z


@case("2x3x4")
def writes_a_diagonal(x):
    y = torch.zeros(4, 4)
    y.diagonal().copy_(x[0, 0])
    y.fill_diagonal_(2.0)
    return y + x[1, 1]


@case("4x4")
def an_argument_is_returned(x):
    x.mul_(2)
    return x, x


@case("4x4")
def an_unfolded_write(x):
    y = x.clone()
    y.unfold(0, 2, 2)[0].zero_()
    return y


@case("3")
class CountsItsCalls(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.tensor(0))

    def forward(self, x):
        self.count += 1
        return x * self.count


@case("3", calls=3)
class RunningMean(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        self.mean.mul_(0.9).add_(x, alpha=0.1)
        return x - self.mean


@case("2", calls=3)
class RingBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("ring", torch.zeros(4, 2))
        self.register_buffer("at", torch.tensor(0))

    def forward(self, x):
        self.ring.index_copy_(0, self.at.reshape(1) % 4, x.unsqueeze(0))
        self.at.add_(1)
        return self.ring.sum(0)


@case("1x2x4", calls=3, refused={"torchscript": "a trace does not note that a module's attribute is replaced"})
class KeyCache(nn.Module):
    keys: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("keys", torch.zeros(1, 6, 4))
        self.project = nn.Linear(4, 4)

    def forward(self, x):
        self.keys = torch.cat([self.keys[:, 2:], self.project(x)], 1)
        return torch.softmax(x @ self.keys.transpose(1, 2), -1) @ self.keys


@case("2x4", calls=2)
class StateInAList(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.register_buffer("last", torch.zeros(2, 4))

    def forward(self, x):
        before = self.last.clone()
        self.last.copy_(torch.tanh(self.a(x)))
        return [before, self.last * 2]


@case("2x3x5x5", calls=2)
class NormInTraining(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return torch.nn.functional.batch_norm(
            x, self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias, True, 0.1
        )
