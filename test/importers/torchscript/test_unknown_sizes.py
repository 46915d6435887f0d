"""Scripts whose sizes only run time knows, or that PyTorch's fake tensors take for others: eager's
numbers or an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch_tvm
from torch_tvm import TensorSpec
from torch_tvm.importers.torchscript import import_torchscript
from torch_tvm.support.errors import ImportFailed, InvalidInput, InvalidOperand


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
    "cosine_similarity": (torch.cosine_similarity, [(MATRIX, F32), (MATRIX, F32)]),
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


def _compiled(program: Any, *examples: Tensor) -> Any:
    specs = tuple(TensorSpec((None,) * each.dim(), each.dtype) for each in examples)
    return torch_tvm.compile(torch.jit.script(program), specs, fallback=False)


def _agrees(program: Any, *calls: tuple[Tensor, ...]) -> None:
    compiled = _compiled(program, *calls[0])
    with torch.no_grad():
        for call in calls:
            torch.testing.assert_close(compiled(*call), program(*call), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "sizes"),
    [
        (nn.Conv2d(2, 6, 3), (3, 2, 7, 8)),
        (nn.Conv1d(4, 6, 3, groups=2, padding="same"), (3, 4, 7)),
        (nn.BatchNorm1d(5), (2, 5, 3)),
        (nn.GroupNorm(2, 6), (2, 6, 3)),
        (nn.GroupNorm(2, 6, affine=False), (2, 6, 3)),
        (nn.LayerNorm([2, 3]), (5, 2, 3)),
        (nn.Linear(4, 2), (3, 4)),
        (nn.PixelShuffle(2), (1, 8, 3, 4)),
    ],
)
def test_layers_of_arguments_of_which_no_size_is_known(layer: nn.Module, sizes: tuple[int, ...]) -> None:
    _agrees(layer.eval(), (torch.randn(sizes),), (torch.randn(sizes[0] + 1, *sizes[1:]),))


def test_batch_norm_by_vectors_of_unknown_sizes() -> None:
    """The variance was of another size than the channels: an internal error."""

    def program(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return torch.nn.functional.batch_norm(x, mean, variance)

    _agrees(program, *((torch.randn(2, n, 4), torch.randn(n), torch.rand(n)) for n in (3, 1)))


def test_a_sum_over_a_size_that_is_one_in_one_operand() -> None:
    def program(x: Tensor, y: Tensor) -> Tensor:
        return torch.einsum("ij,jk->ik", x, y)

    _agrees(program, *((torch.randn(2, n), torch.randn(3, 4)) for n in (3, 1)))


def test_the_last_window_of_a_pool_may_end_outside() -> None:
    pool = nn.MaxPool2d(3, 3, 1, ceil_mode=True)
    module = torch_tvm.import_torchscript(pool, (TensorSpec((None,) * 4, torch.float32),))
    for size in (3, 7, 8):
        x = torch.randn(1, 2, size, size + 1)
        torch.testing.assert_close(module(x), pool(x))


def test_a_channel_too_many_is_an_error_that_names_the_argument() -> None:
    with pytest.raises(InvalidInput, match=r"argument 'input': expected float32\[s0, 2, s1, s2\], got float32\[1, 3,"):
        _compiled(nn.Conv2d(2, 6, 3), torch.ones(1, 2, 5, 5))(torch.ones(1, 3, 5, 5))


def plain(x: Tensor, w: Tensor) -> Tensor:
    return torch.conv1d(x, w)


def test_a_convolution_of_no_channels_is_an_error() -> None:
    """PyTorch's result has no channels then, whatever the weight says."""
    compiled = _compiled(plain, torch.ones(2, 3, 5), torch.ones(4, 3, 2))
    with pytest.raises(InvalidInput, match=r"dimension 1: expected a size of at least 1, got 0"):
        compiled(torch.ones(2, 0, 5), torch.ones(4, 0, 2))


def strided(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.conv1d(x, w, b, stride=2, padding=1, groups=2)


def widened(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.conv_transpose1d(x, w, b, stride=2, padding=1, output_padding=1, groups=2, dilation=2)


def of_any_width(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.conv1d(x, w, b, padding="same", groups=2)


@pytest.mark.parametrize("program", [strided, widened, of_any_width])
def test_convolutions_with_weights_of_unknown_sizes(program: Callable[..., Any]) -> None:
    give = lambda groups, width, places: (
        torch.randn(2, 2 * groups, places),
        torch.randn(2 * groups, groups if program is not widened else 3, width),
        torch.randn(2 * groups if program is not widened else 6),
    )
    _agrees(program, give(2, 3, 9), give(3, 4, 8), give(1, 1, 5))


def two_indices(x: Tensor, i: Tensor, j: Tensor) -> Tensor:
    return x[i, :, j]


def test_an_index_may_be_a_single_one() -> None:
    give = lambda count: (torch.randn(4, 5, 6), torch.randint(0, 4, (count,)), torch.randint(0, 6, (count,)))
    _agrees(two_indices, give(3), give(1), give(0), give(2))


def weighted_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.ops.aten.native_layer_norm(x, [2, 3], weight, bias, 0.5)[0]


def test_weights_have_the_sizes_that_a_norm_names() -> None:
    _agrees(weighted_norm, (torch.randn(4, 2, 3), torch.randn(2, 3), torch.randn(2, 3)))


def put(x: Tensor, index: Tensor, value: Tensor) -> Tensor:
    return torch.scatter(x, 1, index, float(value))


def test_a_number_of_the_running_program_is_scattered() -> None:
    give = lambda rows, value: (torch.randn(rows, 4), torch.randint(4, (rows, 2)), torch.tensor(value))
    _agrees(put, give(3, 1.5), give(5, -2.0))


def gradients(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    ops = torch.ops.aten
    return (
        ops.sigmoid_backward(grad, x),
        ops.gelu_backward(grad, x),
        ops._softmax_backward_data(grad, x, 1, 6),
        ops.log_sigmoid_backward(grad, x, x),
    )


def test_gradients_of_unknown_sizes_are_taken_apart() -> None:
    _agrees(gradients, (torch.randn(3, 4), torch.rand(3, 4)), (torch.randn(5, 2), torch.rand(5, 2)))


def test_operands_of_what_is_taken_apart_that_differ_in_size_are_an_error() -> None:
    compiled = _compiled(gradients, torch.ones(3, 4), torch.ones(3, 4))
    with pytest.raises(InvalidInput):
        compiled(torch.ones(3, 4), torch.ones(3, 5))


def loss_gradient(grad: Tensor, x: Tensor, target: Tensor, total: Tensor) -> Tensor:
    return torch.ops.aten.nll_loss_backward(grad, x, target, None, 0, 10, total)


def test_the_loss_of_one_sample_reads_the_first_label() -> None:
    call = torch.ones(1), torch.rand(3), torch.tensor([2, 1, 0]), torch.tensor(3.0)
    _agrees(loss_gradient, call)


def parts_meet(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    u = x[1:7] + y[2:8]
    u = torch.where(u > 1, z[3:9], u)
    u = torch.where(u > 0.2, torch.zeros_like(u), u)
    return (u * x[2:8]).relu() + y[:6]


def test_sizes_that_are_formulas_meet() -> None:
    """Each broadcast chose between the formulas of the one before: it did not end."""
    given = [torch.rand(9), torch.rand(10), torch.rand(11)]
    traced = torch.jit.trace(parts_meet, tuple(given))
    compiled = torch_tvm.compile(traced, [torch_tvm.TensorSpec((None,), F32)] * 3, fallback=False)
    for args in (given, [each.repeat(2) for each in given]):
        torch.testing.assert_close(compiled(*args), parts_meet(*args))


def counted_along(x: Tensor) -> tuple[Tensor, Tensor]:
    one = torch.ones([1], dtype=torch.int32)
    axis = one.item()
    one += 1
    return torch.cumsum(x, int(axis)), one


@pytest.mark.parametrize("frontend", ["torchscript", "fx"])
def test_numbers_of_a_filled_tensor_are_known(frontend: str) -> None:
    x = torch.rand(2, 3)
    program = torch.jit.script(counted_along) if frontend == "torchscript" else counted_along
    compiled = torch_tvm.compile(program, (x,), frontend=frontend, fallback=False)
    torch.testing.assert_close(compiled(x), counted_along(x))


def test_counts_of_repeats_that_are_known_make_sizes_known() -> None:
    """A trace has a number that comes of a size as a tensor."""
    x, counts = torch.randn(2, 3, 4), torch.tensor([3, 5])

    def program(x: Tensor) -> tuple[Tensor, ...]:
        return x.repeat_interleave(x.size(-1), dim=0), x.repeat_interleave(torch.tensor([0, 2, 1]), 1)

    module = import_torchscript(torch.jit.trace(program, (x,), check_trace=False), (x,))
    assert "?" not in str(module)
    torch.testing.assert_close(torch_tvm.compile(module, fallback=False)(x), program(x))

    def product(x: Tensor, counts: Tensor) -> Tensor:
        return x.repeat_interleave(counts, 0) @ torch.ones(8, 4, 5)

    compiled = torch_tvm.compile(torch.jit.trace(product, (x, counts)), (x, counts), fallback=False)
    torch.testing.assert_close(compiled(x, counts), product(x, counts))
    with pytest.raises(InvalidOperand, match="batch sizes of a product differ"):
        compiled(x, torch.tensor([3, 4]))
