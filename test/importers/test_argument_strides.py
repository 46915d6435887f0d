"""Programs that give other numbers for other strides: eager's numbers, or a refusal that says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import torch_tvm
from torch_tvm.support.errors import ImportFailed, InvalidInput


def reshape_and_write(x: torch.Tensor) -> torch.Tensor:
    y = x.reshape(-1)
    y.add_(1)
    return x * 2


def write_and_reshaped(x: torch.Tensor) -> torch.Tensor:
    y = x.flatten()
    x.mul_(3)
    return y + 1


def contiguous_and_write(x: torch.Tensor) -> torch.Tensor:
    y = x.contiguous()
    y.add_(1)
    return x * 2


def contiguous_view_and_write(x: torch.Tensor) -> torch.Tensor:
    y = x.t().contiguous()
    y.add_(1)
    return x * 2


def reshape_and_write_for_the_caller(x: torch.Tensor) -> torch.Tensor:
    y = x.reshape(-1)
    y.add_(1)
    return y


def contiguous_and_transposed_in_place(x: torch.Tensor) -> torch.Tensor:
    z = x * 1
    y = z.contiguous()
    y.t_()
    return z * 2


def by_strides(x: torch.Tensor) -> torch.Tensor:
    return x.as_strided((2, 3), (1, 2)) + 0


def by_strides_and_offset(x: torch.Tensor) -> torch.Tensor:
    return x.as_strided((2, 3), (1, 2), 1) + 0


def is_it_contiguous(x: torch.Tensor) -> torch.Tensor:
    if x.is_contiguous():
        return x + 1
    return x - 1


def first_stride(x: torch.Tensor) -> torch.Tensor:
    return x * x.stride(0)


PROGRAMS = [
    reshape_and_write,
    write_and_reshaped,
    contiguous_and_write,
    contiguous_view_and_write,
    reshape_and_write_for_the_caller,
    contiguous_and_transposed_in_place,
    by_strides,
    by_strides_and_offset,
    is_it_contiguous,
    first_stride,
]


def layouts() -> dict[str, torch.Tensor]:
    numbers = torch.arange(48.0)
    return {
        "dense": numbers[:24].clone().view(4, 6),
        "offset": numbers.clone()[7:31].view(4, 6),
        "transposed": numbers[:24].clone().view(6, 4).t(),
    }


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_other_strides(program: Callable[[torch.Tensor], torch.Tensor], frontend: str) -> None:
    given: Any = torch.jit.script(program) if frontend == "torchscript" else program
    for example in ("dense", "transposed"):
        try:
            compiled = torch_tvm.compile(given, (layouts()[example],), frontend=frontend)
        except ImportFailed as error:
            assert example == "transposed" or "clone()" in str(error)
            continue
        for layout, ours in layouts().items():
            theirs = layouts()[layout]
            expected = program(theirs)
            try:
                result = compiled(ours)
            except InvalidInput as error:
                assert layout != "dense"
                assert "'x': the program gives other numbers for other strides" in str(error)
                continue
            assert torch.equal(result, expected), (example, layout)
            assert torch.equal(ours, theirs), (example, layout)


def harmless(x: torch.Tensor) -> torch.Tensor:
    """Writes and reshapes that do not meet: any strides will do."""
    y = torch.relu(x).reshape(6, 4)
    y.add_(1)
    z = y.t().contiguous().flatten()
    return z * 2


@pytest.mark.parametrize("frontend", ["fx", "torchscript"])
def test_writes_apart_from_reshapes_take_any_strides(frontend: str) -> None:
    given: Any = torch.jit.script(harmless) if frontend == "torchscript" else harmless
    compiled = torch_tvm.compile(given, (layouts()["dense"],), frontend=frontend)
    for x in layouts().values():
        assert torch.equal(compiled(x), harmless(x))
