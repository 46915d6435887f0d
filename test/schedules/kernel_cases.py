"""What the tests of generic kernels share: one kernel on fresh data against eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tvm import relax, tirx

from .relax_models import Compiled, check, var

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Case:
    """A Relax body and its eager function; a size in ``shapes`` that is a string is symbolic in the
    kernel."""

    name: str
    body: Callable[..., relax.Expr]
    eager: Callable[..., torch.Tensor]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    symbols: tuple[tuple[str | None, ...], ...] = ()
    rule: str = ""

    def params(self) -> list[relax.Var]:
        names: dict[str, tirx.Var] = {}
        result = []
        for number, shape in enumerate(self.shapes):
            symbols = self.symbols[number] if number < len(self.symbols) else (None,) * len(shape)
            sizes = [
                names.setdefault(symbol, tirx.Var(symbol, "int64")) if symbol else size
                for symbol, size in zip(symbols, shape, strict=True)
            ]
            result.append(var(f"x{number}", sizes, str(self.dtype(number))[6:]))
        return result

    def dtype(self, number: int) -> torch.dtype:
        return self.dtypes[min(number, len(self.dtypes) - 1)]

    def inputs(self) -> list[torch.Tensor]:
        return [draw(shape, self.dtype(number)) for number, shape in enumerate(self.shapes)]


def draw(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Fresh data: normal floats, integers from -9 to 9 (0 to 9 unsigned), coin flips."""
    if dtype == torch.bool:
        return torch.rand(shape) < 0.5
    if dtype.is_floating_point:
        return torch.randn(shape, dtype=torch.float64).to(dtype)
    return torch.randint(0 if dtype == torch.uint8 else -9, 10, tuple(shape)).to(dtype)


def run(case: Case, inputs: list[torch.Tensor] | None = None) -> Compiled:
    """Compile ``case``, run it on ``inputs`` (or fresh ones) and compare; the compiled model comes back."""
    model = Compiled(case.params(), len(case.shapes), lambda emit, *xs: emit(case.body(*xs)))
    inputs = case.inputs() if inputs is None else inputs
    wide = [x.double() if x.is_floating_point() else x for x in inputs]
    actual, eager, exact = model(*inputs), case.eager(*inputs), case.eager(*wide)
    assert actual.shape == eager.shape
    assert actual.dtype == eager.dtype
    if actual.is_floating_point():
        check(actual, eager, exact)
    else:
        assert torch.equal(actual, eager)
    if case.rule:
        assert case.rule in model.rules(), model.decisions
    return model
