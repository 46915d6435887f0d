"""Branches and loops, on sizes, on values, in scripts and in ``torch.cond``."""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-def"
import torch
from torch import Tensor, nn

from torch_tvm.tools.e2e.case import case

_SCRIPTS = ("torchscript", "dynamo")


@case("3x4")
def a_branch_on_a_size(x):
    return x * 2 if x.shape[0] > 2 else x - 1


@case("3x4")
def a_loop_over_a_size(x):
    total = torch.zeros(4)
    for i in range(x.shape[0]):
        total = total + x[i] * i
    return total


@case("3x4")
def a_loop_over_layers(x):
    for scale in (1.0, 0.5, 0.25):
        x = torch.tanh(x * scale)
    return x


@case("3", scripted=True, frontends=_SCRIPTS)
def a_branch_on_a_value(x: Tensor) -> Tensor:
    if bool(x.sum() > 0):
        return x * 2
    return x - 1


@case("3", scripted=True, frontends=_SCRIPTS)
def nested_branches(x: Tensor) -> Tensor:
    if bool(x[0] > 0):
        if bool(x[1] > 0):
            y = x + 1
        else:
            y = x + 2
    else:
        y = x * 3
    return y * 2


@case("3", scripted=True, frontends=_SCRIPTS)
def a_loop_until_a_value(x: Tensor) -> Tensor:
    y = x.abs() + 1
    while bool(y.sum() < 50):
        y = y * 1.5
    return y


@case("5", scripted=True, frontends=_SCRIPTS)
def a_loop_with_a_break(x: Tensor) -> Tensor:
    total = torch.zeros(())
    for i in range(x.shape[0]):
        if bool(x[i] > 1):
            break
        total = total + x[i]
    return total


@case("4:i64", scripted=True, frontends=_SCRIPTS)
def a_loop_with_a_count_from_a_tensor(x: Tensor) -> Tensor:
    total = torch.zeros(2)
    for i in range(int(x.sum())):
        total = total + i
    return total


@case("6", scripted=True, frontends=_SCRIPTS)
def a_loop_that_skips(x: Tensor) -> Tensor:
    total = torch.zeros(())
    for i in range(6):
        if i % 2 == 0:
            continue
        total = total + x[i] * i
    return total


@case("4x3", scripted=True, frontends=("torchscript", "dynamo", "fx", "lazy"))
def a_list_of_rows(x: Tensor) -> Tensor:
    rows: list[Tensor] = []
    for i in range(4):
        rows.append(x[i] * i)
    return torch.stack(rows)


@case("3", scripted=True, frontends=_SCRIPTS)
def a_branch_with_two_results(x: Tensor) -> tuple[Tensor, Tensor]:
    if bool(x[0] > x[1]):
        a, b = x * 2, x + 1
    else:
        a, b = x + 1, x * 2
    return a, b


@case("3x3", scripted=True, frontends=_SCRIPTS)
def an_early_return(x: Tensor) -> Tensor:
    if bool((x > 100).any()):
        return torch.zeros(3, 3)
    y = x @ x
    if bool(y.trace() > 0):
        return y
    return -y


@case("8", scripted=True, frontends=_SCRIPTS)
def newtons_square_root(x: Tensor) -> Tensor:
    target = x.abs() + 1
    y = target.clone()
    for _ in range(20):
        y = 0.5 * (y + target / y)
        if bool((y * y - target).abs().max() < 1e-5):
            break
    return y


@case("4", frontends=("fx", "dynamo"))
def cond_on_a_value(x):
    return torch.cond(x.sum() > 0, lambda v: v * 2, lambda v: v - 1, (x,))


@case("4x4", frontends=("fx", "dynamo"))
def cond_with_weights_outside(x):
    w = torch.ones(4, 4)
    return torch.cond(x[0, 0] > 0, lambda v: v @ w, lambda v: v + w, (x,))


@case("4", frontends=("fx", "dynamo"))
def while_loop_on_a_value(x):
    from torch._higher_order_ops.while_loop import while_loop

    step = lambda i, y: (i + 1, y * 1.5)
    goes_on = lambda i, y: (i < 8) & (y.abs().sum() < 50)
    return while_loop(goes_on, step, (torch.tensor(0), x.abs() + 1))


@case("2x8")
class Recursive(nn.Module):
    def __init__(self):
        super().__init__()
        self.step = nn.Linear(8, 8)

    def forward(self, x):
        for _ in range(3):
            x = x + torch.relu(self.step(x))
        return x


@case("5x2x4", scripted=True)
class ScriptedCell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[1], 6)
        for i in range(x.shape[0]):
            h = self.cell(x[i], h)
        return h


@case("2x4", scripted=True, frontends=_SCRIPTS)
class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.mean() > 0):
            return self.one(x)
        return self.two(x).relu()
