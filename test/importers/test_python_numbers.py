"""Programs whose Python reads numbers of tensors and branches on them, or computes: also where ``torch.export``
refuses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import torch_tvm
from torch_tvm import ImportFailed

F = torch.float64
t = torch.tensor


class Both(nn.Module):
    def forward(self, a, b):
        return bool(a) and bool(b)


class Power(nn.Module):
    """A float, also of two integers: in scripts ``int ** int`` is one."""

    def forward(self, a, b):
        return float(torch.ops.aten.pow(int(a), int(b)))


class Logarithm(nn.Module):
    def forward(self, a):
        return math.log(float(a))


class Halved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0, 3.0, 4.0]))
        self.register_buffer("rounds", torch.zeros((), dtype=torch.int64))

    def forward(self, a):
        x = a * self.weight
        while bool(x.abs().max() > 1):
            x = x / 2
            self.rounds += 1
        return x, x.shape[0]


def chosen(x):
    y = x * 2
    return y if y.sum() > 0 else x - 1


ROWS = ({0: torch.export.Dim.AUTO},)
PROGRAMS: list[tuple[Any, list[Any], str, Any]] = [
    (Both, [(t(True), t(True)), (t(True), t(False)), (t(False), t(True))], "lazy", None),
    (Power, [(t(2), t(3)), (t(2), t(-1)), (t(3), t(0))], "fx", None),
    (Logarithm, [(t(1.5, dtype=F),), (t(3.0, dtype=F),)], "fx", None),
    (lambda: chosen, [(torch.ones(3),), (-torch.ones(3),)], "fx", None),
    (lambda: chosen, [(torch.ones(3),), (-torch.ones(3),)], "lazy", None),
    (Halved, [(torch.ones(2, 3),), (torch.full((2, 3), 9.0),), (torch.zeros(2, 3),)], "lazy", None),
    (Halved, [(torch.ones(2, 3),), (torch.full((5, 3), 9.0),)], "fx", ROWS),
]


@pytest.mark.parametrize(("kind", "calls", "frontend", "sizes"), PROGRAMS)
def test_numbers_that_export_refuses_are_those_of_python(
    kind: Callable[[], Any], calls: list[Any], frontend: str, sizes: Any
) -> None:
    ours, eager = kind(), kind()
    with torch.no_grad():
        imported = (
            torch_tvm.import_lazy(ours, calls[0])
            if frontend == "lazy"
            else torch_tvm.import_fx(ours, calls[0], dynamic_shapes=sizes)
        )
        compiled = torch_tvm.compile(imported, fallback=False)
        for args in calls:
            found, expected = compiled(*args), eager(*args)
            assert type(found) is type(expected)
            torch.testing.assert_close(found, expected)
    if isinstance(eager, nn.Module):
        state = compiled.state_dict()
        assert all(torch.equal(state[name], value) for name, value in eager.named_buffers())
        assert all(value == 0 for value in ours.buffers())


class Rounded(nn.Module):
    """In a script ``round`` gives a float, and in Python an integer."""

    def forward(self, a):
        return round(math.log(float(a)))


class NotPython(nn.Module):
    def forward(self, a):
        return a * 2 if bool(a.sum() > 0) and not torch.jit.is_scripting() else a - 1


@pytest.mark.parametrize("program", [Rounded(), NotPython()])
@pytest.mark.parametrize("importer", [torch_tvm.import_fx, torch_tvm.import_lazy])
def test_a_script_that_differs_from_python_is_not_taken(program: nn.Module, importer: Any) -> None:
    with pytest.raises(ImportFailed, match=r"torch.export refused|only run time knows"):
        importer(program, (t(30.0),))
