"""Programs exported with sizes that vary: what they ask of sizes is answered for each call, and
nobody asks for more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.export import Dim

import torch_tvm
from torch_tvm import InvalidInput


def ask_empty(x: Tensor) -> Tensor:
    if x.size(0) == 0:
        return torch.ones(1)
    return x.sum().reshape(1)


def ask_single(x: Tensor) -> Tensor:
    if x.size(0) == 1:
        return x * 2
    return x + 1


def ask_truth(x: Tensor) -> Tensor:
    if not x.size(0):
        return torch.ones(1)
    return x.sum().reshape(1)


def ask_shape(x: Tensor) -> Tensor:
    if x.shape == (1, 6):
        return torch.ones(1)
    return x.sum().reshape(1)


def ask_length(x: Tensor) -> Tensor:
    if len(x) < 2:
        return torch.ones(1)
    return x.sum().reshape(1)


def ask_half(x: Tensor) -> Tensor:
    if x.size(0) - 1 == 1:
        return x * 2
    return x + 1


def divide_by_rows(x: Tensor) -> Tensor:
    return x.sum() / max(x.size(0), 1)


def loop_over_rows(x: Tensor) -> Tensor:
    total = torch.zeros(x.size(1))
    for i in range(x.size(0)):
        total = total * 0.5 + x[i] * i
    return total


def inner_rows(x: Tensor) -> Tensor:
    return x[1:-1]


def halves(x: Tensor) -> Tensor:
    return torch.cat([x[x.size(0) // 2 :] * 2, x[: x.size(0) // 2]])


def every_second(x: Tensor) -> Tensor:
    return torch.arange(0, x.size(0), 2)


def shortened(x: Tensor) -> Tensor:
    n = x.size(0)
    return x * math.trunc(-n * 0.7) + math.floor(n * 0.7) * 10


def off_diagonal(x: Tensor) -> Tensor:
    return torch.diagonal(x, 1)


_SIZES = (5, 0, 1, 2, 3, 4, 9)


_PROGRAMS = (
    ask_empty, ask_single, ask_truth, ask_shape, ask_length, ask_half, divide_by_rows, loop_over_rows, inner_rows,
    halves, every_second, shortened, off_diagonal,
)  # fmt: skip
_DIMS = {"auto": Dim.AUTO, "dynamic": Dim.DYNAMIC, "named": Dim("rows")}


@pytest.mark.parametrize(
    ("function", "dim"),
    [
        *((function, "auto") for function in _PROGRAMS),
        *((function, dim) for function in (ask_single, inner_rows) for dim in ("dynamic", "named")),
    ],
)
def test_every_size(function: Callable[[Tensor], Tensor], dim: str) -> None:
    compiled = torch_tvm.compile(
        function, (torch.randn(5, 6),), frontend="fx", dynamic_shapes=({0: _DIMS[dim]},), fallback=False
    )
    for rows in _SIZES:
        x = torch.randn(rows, 6)
        torch.testing.assert_close(compiled(x), function(x), atol=1e-4, rtol=1e-4)


def from_the_first(x: Tensor) -> Tensor:
    return x + x[:1]


def ask_single_from_the_first(x: Tensor) -> Tensor:
    return from_the_first(x) * 2 if x.size(0) == 1 else from_the_first(x)


def test_an_area_that_grows_by_a_factor() -> None:
    def function(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=1.5, mode="area") + F.adaptive_max_pool2d(x, 1)

    sizes = {2: Dim("height", min=1), 3: Dim("width", min=1)}
    example = (torch.randn(1, 3, 6, 9),)
    compiled = torch_tvm.compile(function, example, frontend="fx", dynamic_shapes=(sizes,), fallback=False)
    for height, width in ((6, 9), (7, 1), (1, 2)):
        x = torch.randn(1, 3, height, width)
        torch.testing.assert_close(compiled(x), function(x))


@pytest.mark.parametrize("dim", ["auto", "two"])
@pytest.mark.parametrize(("function", "refused"), [(from_the_first, [0]), (ask_single_from_the_first, [])])
def test_a_slice_that_is_shorter_of_nothing(function: Callable[[Tensor], Tensor], refused: list[int], dim: str) -> None:
    """A size of 0 is refused then, where no script has an answer; ``min=2`` refuses no more: exports ask for it."""
    sizes = {"auto": Dim.AUTO, "two": Dim("rows", min=2)}
    compiled = torch_tvm.compile(
        function, (torch.randn(5, 6),), frontend="fx", dynamic_shapes=({0: sizes[dim]},), fallback=False
    )
    for rows in (5, 0, 1, 2, 9):
        x = torch.randn(rows, 6)
        if rows in refused:
            with pytest.raises(InvalidInput, match=f"got {rows}"):
                compiled(x)
        else:
            torch.testing.assert_close(compiled(x), function(x))


def test_a_question_whose_answers_differ_in_rank() -> None:
    """Neither an export nor a script has both ways: the other size is refused."""

    def program(x: Tensor) -> Tensor:
        return x * 2 if x.numel() > 0 else torch.zeros(3)

    x = torch.randn(5, 6)
    compiled = torch_tvm.compile(program, (x,), frontend="fx", dynamic_shapes=({0: Dim.AUTO},), fallback=False)
    torch.testing.assert_close(compiled(x[:1]), x[:1] * 2)
    with pytest.raises(InvalidInput, match="expected a size of at least 1, got 0"):
        compiled(x[:0])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.chunk(2),
        lambda x: torch.tensor_split(x, (1, -2)),
        lambda x: (torch.inner(x, x[:2]), torch.tensordot(x, x, ([0, 1], [0, 1]))),
        lambda x: (torch.trapezoid(x, dim=0), torch.cumulative_trapezoid(x, dx=0.5),
                   torch.trapezoid(x, x[:, 0], dim=0)),
        lambda x: (torch.arange(x.size(0), 0, -2), torch.bincount(x[:, 0].bool().long())),
        lambda x: (x.median(), x.nanmedian(), (x * 9).long().median()),
        lambda x: torch.einsum("ij,kj->ik", x, x),
        lambda x: torch.kron(x, x),
        lambda x: torch.linalg.multi_dot([x.t(), x, x.t()]),
        lambda x: (torch.tensor_split(x, 3), torch.combinations(x[:, 0]), torch.vander(x[:, 0], 3)),
        lambda x: (torch.linspace(0, 1, x.size(0)), torch.logspace(0, 1, x.size(0)), torch.hann_window(x.size(0))),
        lambda x: (torch.tril_indices(x.size(0), 4), torch.fft.fftfreq(x.size(0) + 1)),
        lambda x: (torch.equal(x, x + 0), torch.allclose(x, x * 1.1), x * 2),
    ],
    ids=[
        "chunk", "tensor_split", "tensordot", "trapezoid", "falling", "median", "einsum", "kron", "multi_dot", "pairs",
        "linspace", "indices", "equal",
    ],
)  # fmt: skip
def test_parts_of_unknown_sizes(function: Callable[[Tensor], Any], request: pytest.FixtureRequest) -> None:
    is_cut = "chunk" in request.node.name
    compiled = torch_tvm.compile(
        function, (torch.randn(5, 6),), frontend="fx", dynamic_shapes=({0: Dim.AUTO},), fallback=False
    )
    for rows in (5, 0, 1, 2, 3, 8):
        x = torch.randn(rows, 6)
        if rows < 2 and is_cut:
            with pytest.raises(InvalidInput):  # of one row there is one chunk
                compiled(x)
            continue
        torch.testing.assert_close(compiled(x), function(x), atol=1e-4, rtol=1e-4, equal_nan=True)


def test_sizes_of_two_arguments_are_related() -> None:
    """An op leaves no guard and takes some pairs of sizes: the condition is on both."""

    def program(x: Tensor, index: Tensor) -> Tensor:
        return x.gather(1, index)

    args, dims = (torch.randn(5, 6), torch.zeros(4, 2, dtype=torch.int64)), ({0: Dim.AUTO}, {0: Dim.AUTO})
    compiled = torch_tvm.compile(program, args, frontend="fx", dynamic_shapes=dims, fallback=False)
    for rows, picked in ((1, 1), (3, 0), (2, 2), (9, 6)):
        x, index = torch.randn(rows, 6), torch.randint(0, 6, (picked, 2))
        torch.testing.assert_close(compiled(x, index), program(x, index))
    with pytest.raises(InvalidInput, match=r"s1 <= s0"):
        compiled(torch.randn(2, 6), args[1])


def test_sizes_of_three_arguments_are_related() -> None:
    """One may be larger than another whose place is not its own: no such pair is tied."""

    def program(x: Tensor, index: Tensor, source: Tensor) -> Tensor:
        return x.scatter_reduce(0, index, source, "amax")

    shapes = {"x": (5, 7), "index": (6, 7), "source": (6, 7)}
    other = {"x": (8, 4), "index": (9, 4), "source": (9, 4)}

    def arguments(sizes: dict[str, tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
        index = torch.zeros(sizes["index"], dtype=torch.int64)
        return torch.randn(sizes["x"]), index, torch.randn(sizes["source"])

    every = {0: Dim.AUTO, 1: Dim.AUTO}
    compiled = torch_tvm.compile(program, arguments(shapes), frontend="fx", dynamic_shapes=(every,) * 3, fallback=False)
    for sizes in (shapes, other):
        given = arguments(sizes)
        torch.testing.assert_close(compiled(*given), program(*given))


def test_squeeze_refuses_one_alone() -> None:
    x = torch.randn(5, 6)
    compiled = torch_tvm.compile(
        lambda x: x.squeeze(0) * 2, (x,), frontend="fx", dynamic_shapes=({0: Dim.AUTO},), fallback=False
    )
    assert compiled(x[:3]).shape == (3, 6) and compiled(x[:0]).shape == (0, 6)
    with pytest.raises(InvalidInput, match="does not take these sizes"):
        compiled(x[:1])


def test_lists_that_grow() -> None:
    def program(x: Tensor) -> Tensor:
        rows: list[Tensor] = []
        for i in range(x.size(0)):
            rows.append(x[i] + i)
        return torch.stack(rows)

    x = torch.randn(5, 6)
    dims = ({0: Dim.AUTO, 1: Dim.AUTO},)
    compiled = torch_tvm.compile(program, (x,), frontend="fx", dynamic_shapes=dims, fallback=False)
    for given in (x, x[:1], x[:3, :4]):
        torch.testing.assert_close(compiled(given), program(given))


def test_numbers_between_two_bounds() -> None:
    program = lambda x: x.clone().random_(2, 10)
    x = torch.zeros(5, 6)
    compiled = torch_tvm.compile(program, (x,), frontend="fx", fallback=False)
    torch.manual_seed(3)
    found = compiled(x)
    torch.manual_seed(3)
    assert torch.equal(found, program(x))


def test_a_part_that_starts_where_a_tensor_says() -> None:
    """It is a view: what is written to it is written to its base."""

    def program(x: Tensor, start: Tensor) -> Tensor:
        y = x.clone()
        y.narrow(0, start, 2).add_(1)
        return y * torch.narrow(x, 1, start, x.size(1) - 2).sum()

    args = (torch.randn(5, 6), torch.tensor(1))
    dims: Any = ({0: Dim.AUTO, 1: Dim.AUTO}, {})
    compiled = torch_tvm.compile(program, args, frontend="fx", dynamic_shapes=dims, fallback=False)
    for rows, columns, start in ((5, 6, 1), (3, 3, -2), (9, 4, 2), (2, 7, 0)):
        given = torch.randn(rows, columns), torch.tensor(start)
        torch.testing.assert_close(compiled(*given), program(*given))
    with pytest.raises(InvalidInput):
        compiled(torch.randn(3, 6), torch.tensor(2))
