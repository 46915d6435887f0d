"""Scripts whose sizes only run time knows, or that PyTorch's fake tensors take for others: eager's numbers or an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import torch_tvm
from torch_tvm.support.errors import ImportFailed, InvalidInput


def chosen(x: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    return x[m], x[m].sum(0)


def written(x: Tensor, m: Tensor) -> Tensor:
    y = x * 1
    y[m] = -1
    return y


@pytest.mark.parametrize("program", [chosen, written])
def test_a_mask_without_dimensions(program: Callable[..., Any]) -> None:
    x = torch.arange(6.0).reshape(2, 3)
    compiled = torch_tvm.compile(torch.jit.script(program), (x, torch.tensor(True)), fallback=False)
    for mask in (torch.tensor(True), torch.tensor(False)):
        torch.testing.assert_close(compiled(x, mask), program(x, mask))


def out_of_unknown_size(x: Tensor, y: Tensor) -> Tensor:
    torch.add(x[x > 0], 1.0, out=y)
    return y


def broadcast(x: Tensor, y: Tensor) -> Tensor:
    return torch.broadcast_tensors(y, x[x > 0])[1]


def weighted(x: Tensor, y: Tensor) -> Tensor:
    return torch.bincount(x.long()[:0], y[:0])


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        (out_of_unknown_size, "resize_ needs sizes that are known"),
        (broadcast, "a size is not known before the program runs"),
        (weighted, "weighted counts of nothing"),
    ],
)
def test_what_depends_on_an_unknown_size_is_refused(program: Callable[..., Any], problem: str) -> None:
    with pytest.raises(ImportFailed, match=rf"test_unknown_sizes.py:\d+.*{problem}"):
        torch_tvm.compile(torch.jit.script(program), (torch.ones(4), torch.zeros(4)))


def counted(x: Tensor, y: Tensor) -> Tensor:
    return torch.bincount(x, y)


def test_weighted_counts_of_nothing_are_an_error_also_at_run_time() -> None:
    specs = tuple(torch_tvm.TensorSpec((None,), dtype) for dtype in (torch.int64, torch.float32))
    compiled = torch_tvm.compile(torch.jit.script(counted), specs, fallback=False)
    x, y = torch.tensor([1, 3, 1]), torch.tensor([0.5, 1.0, 2.0])
    torch.testing.assert_close(compiled(x, y), torch.bincount(x, y))
    with pytest.raises(InvalidInput, match="weighted counts of nothing"):
        compiled(x[:0], y[:0])


def filled(x: Tensor, y: Tensor) -> Tensor:
    y = y * 2
    y[:2] += x[x > 0].sum()
    return y.masked_fill(y > 1, x[x > 0].mean())


def test_a_size_stands_before_what_has_it() -> None:
    """FuseOps puts the kernels that choose before the size that they give."""
    x, y = torch.tensor([1.0, -2.0, 3.0]), torch.arange(3.0)
    compiled = torch_tvm.compile(torch.jit.script(filled), (x, y), fallback=False)
    for given in (x, x + 3):
        torch.testing.assert_close(compiled(given, y), filled(given, y))


def endless(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x[x > 0], float("inf"))


def test_an_infinity_norm_of_nothing_is_an_error() -> None:
    x = torch.tensor([1.0, -2.0, 3.0])
    compiled = torch_tvm.compile(torch.jit.script(endless), (x,), fallback=False)
    assert compiled(x) == 3
    with pytest.raises(InvalidInput, match="an infinity norm of nothing"):
        compiled(-x.abs())


F32, F64, I32, I64 = torch.float32, torch.float64, torch.int32, torch.int64
MATRIX, ROW, CUBE = (3, 4), (4,), (2, 3, 4)

ONE_OP: dict[str, tuple[Callable[..., Any], list[tuple[tuple[int, ...], torch.dtype]]]] = {
    # the check for zeros had a size of its own
    "fmod": (torch.fmod, [(MATRIX, I32), (ROW, I32)]),
    # decompositions that ask for equal sizes
    "lcm": (torch.lcm, [(MATRIX, I32), (ROW, I64)]),
    "isclose": (torch.isclose, [(MATRIX, F32), (MATRIX, F32)]),
    "isin": (lambda a, b: torch.isin(a, b, invert=True), [(MATRIX, I64), (ROW, I64)]),
    "dist": (lambda a, b: torch.dist(a, b, 1.5), [(MATRIX, F32), (ROW, F32)]),
    # sizes that C++ took for numbers
    "lerp": (lambda a, b: torch.lerp(a, b, 0.3), [(MATRIX, F64), (ROW, F64)]),
    "polar": (torch.polar, [(MATRIX, F32), (MATRIX, F32)]),
    "addcmul": (lambda a, b: torch.addcmul(a, b, b), [(MATRIX, F32), (MATRIX, I64)]),
    "diag": (lambda a: (torch.diag(a, 1), torch.trace(a)), [(MATRIX, F32)]),
    # 2 + n is n + 2
    "diag_of_a_row": (lambda a: torch.diag(a, 2), [(ROW, F32)]),
    "l1_loss": (torch.nn.functional.l1_loss, [(MATRIX, F32), (MATRIX, F32)]),
    "fake_quantize": (
        lambda a: torch.fake_quantize_per_tensor_affine(a, 0.1, 0, -8, 7),
        [(MATRIX, F32)],
    ),
    # nine sizes, all of whose values were to be tried
    "baddbmm": (torch.baddbmm, [(CUBE, F32), (CUBE, F32), ((2, 4, 4), F32)]),
}


@pytest.mark.parametrize("name", ONE_OP)
def test_one_op(name: str) -> None:
    program, arguments = ONE_OP[name]

    def given(more: int) -> list[Tensor]:
        return [(torch.rand([size + more for size in shape]) * 9 + 1).to(dtype) for shape, dtype in arguments]

    specs = [torch_tvm.TensorSpec((None,) * len(shape), dtype) for shape, dtype in arguments]
    traced = torch.jit.trace(program, tuple(given(0)), check_trace=False)
    compiled = torch_tvm.compile(traced, specs, fallback=False)
    for more in (0, 2):
        args = given(more)
        torch.testing.assert_close(compiled(*args), program(*args))


def bags(table: Tensor, rows: Tensor, starts: Tensor, mode: str) -> Tensor:
    return torch.nn.functional.embedding_bag(rows, table, starts, mode=mode)


@pytest.mark.parametrize("mode", ["sum", "max"])
def test_bags_of_a_table_of_unknown_size(mode: str) -> None:
    """An empty table, on which PyTorch ends the process, was tried."""
    specs = [torch_tvm.TensorSpec((None,) * rank, dtype) for rank, dtype in ((2, F32), (1, I64), (1, I64))]
    compiled = torch_tvm.compile(torch.jit.script(bags), [*specs, mode], fallback=False)
    for rows, width in ((20, 4), (7, 33)):
        given = torch.rand(rows, width), torch.randint(0, rows, (9,)), torch.tensor([0, 3, 5]), mode
        torch.testing.assert_close(compiled(*given), bags(*given))
