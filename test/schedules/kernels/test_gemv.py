"""Products with few rows, where reading the weights is the work: sizes that are odd, long, or a vector."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tvm import relax

from torch_tvm.schedules.cpu.matmul.contraction import read_contraction
from torch_tvm.schedules.cpu.matmul.tiling import choose_tiling
from torch_tvm.schedules.target import CpuModel

from ..relax_models import TARGET, Compiled, check, var


def compile_linear(rows: int, depth: int, columns: int) -> Compiled:
    body = lambda emit, x, w: emit(relax.op.matmul(x, emit(relax.op.permute_dims(w))))
    return Compiled([var("x", (rows, depth)), var("w", (columns, depth))], 1, body)


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize(("depth", "columns"), [(1, 33), (7, 1), (770, 50), (64, 1000)])
def test_few_rows(rows: int, depth: int, columns: int) -> None:
    x, w = torch.randn(rows, depth), torch.randn(columns, depth)
    check(compile_linear(rows, depth, columns)(x, w), F.linear(x, w), F.linear(x.double(), w.double()))


def test_long_sums_of_one_row_have_the_error_of_blas() -> None:
    x, w = torch.randn(1, 20011), torch.randn(17, 20011)
    check(compile_linear(1, 20011, 17)(x, w), F.linear(x, w), F.linear(x.double(), w.double()))


@pytest.mark.parametrize(("a", "b"), [((9, 33), (33,)), ((33,), (33, 20)), ((33,), (33,)), ((2, 4, 50), (50,))])
def test_vectors(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    model = Compiled([var("a", a), var("b", b)], 2, lambda emit, x, y: emit(relax.op.matmul(x, y)))
    x, y = torch.randn(a), torch.randn(b)
    check(model(x, y), torch.matmul(x, y), torch.matmul(x.double(), y.double()))


@pytest.mark.parametrize("columns", [96, 4096])
def test_one_row_has_independent_sums(columns: int) -> None:
    """Several chains of sums, or several panels side by side, hide the latency of the multiply-add."""
    model = compile_linear(1, 64, columns)
    name = next(d.kernel for d in model.decisions if d.rule == "matmul")
    tiling = choose_tiling(read_contraction(model.mod[name]), CpuModel.from_target(TARGET))
    shape = tiling.shapes[0]
    assert shape.rows == 1
    assert shape.chains * shape.vectors >= 4
    assert columns < 4096 or shape.columns >= 64
    assert not tiling.pack
