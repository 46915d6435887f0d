"""Ops without a lowering run as what PyTorch makes of them, on every frontend into the compiler."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from numerics import assert_matches

import torch_tvm
from torch_tvm.dialect import view
from torch_tvm.importers.fx import import_fx
from torch_tvm.inside_torch.decomposition import decompose
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.support.errors import InvalidIndex

PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "kron": (torch.kron, ((3, 4), (2, 5))),
    "tensordot": (lambda a, b: torch.tensordot(a, b, dims=([1, 2], [0, 1])), ((3, 4, 5), (4, 5, 2))),
    "inner of vectors": (torch.inner, ((5,), (5,))),
    "tensordot of vectors": (lambda a, b: torch.tensordot(a, b, dims=1), ((5,), (5,))),
    "several tensors": (lambda a, b: torch.block_diag(a, b, a), ((2, 3), (4, 1))),
    "several results": (lambda a: torch.ops.aten.aminmax(a.msort(), dim=0), ((5, 7),)),
    "huber": (lambda a, b: F.huber_loss(a, b, delta=0.3), ((6, 5), (6, 5))),
    "smooth l1": (lambda a, b: F.smooth_l1_loss(a, b, reduction="none"), ((6, 5), (6, 5))),
    "cross entropy of chances": (lambda a, b: F.binary_cross_entropy(a.sigmoid(), b.sigmoid()), ((7,), (7,))),
    "cosine embedding": (lambda a, b: F.cosine_embedding_loss(a, b, torch.ones(6)), ((6, 5), (6, 5))),
    "pairwise distance": (F.pairwise_distance, ((6, 5), (6, 5))),
    "matrix power": (lambda a: torch.matrix_power(a, 5), ((4, 4),)),
    "nan mean": (lambda a: torch.where(a > 1, torch.nan, a).nanmean(1), ((6, 5),)),
    "one number": (lambda a, b: torch.dist(a, b, 3), ((), ())),
    "nothing": (torch.kron, ((0, 4), (2, 5))),
    "after a transpose": (lambda a: torch.inner(a.mT, a.mT[:2]), ((3, 4),)),
}


BILINEAR = {
    "bilinear": ((3, 2, 5), (3, 2, 4), (6, 5, 4), (6,)),
    "bilinear of no rows": ((0, 3), (0, 4), (2, 3, 4)),
}
PROGRAMS |= {name: (F.bilinear, shapes) for name, shapes in BILINEAR.items()}


@pytest.mark.parametrize("name", PROGRAMS)
def test_decomposed_ops_match_eager(name: str) -> None:
    function, shapes = PROGRAMS[name]
    arguments = tuple(torch.randn(shape) for shape in shapes)
    compiled = torch_tvm.compile(function, arguments, fallback=False)
    fresh = tuple(torch.randn(shape) for shape in shapes)
    assert_matches(compiled(*fresh), function, fresh)


def test_bilinear_multiplies_in_eagers_order() -> None:
    """x * weight overflows, and is summed before ``y`` multiplies it."""
    arguments = torch.tensor([[1e30, 1.0]]), torch.tensor([[0.5, 1.0]]), torch.full((1, 2, 2), 1e30)
    compiled = torch_tvm.compile(F.bilinear, arguments, fallback=False)
    assert compiled(*arguments) == F.bilinear(*arguments) == torch.inf
    negative = arguments[0], torch.tensor([[0.5, 0.0]]), arguments[2]
    assert compiled(*negative).isnan() and F.bilinear(*negative).isnan()


def test_degrees() -> None:
    """torch-mlir takes 57.2958 for the degrees of a radian."""
    x = torch.randn(9, dtype=torch.float64)
    compiled = torch_tvm.compile(lambda u: (torch.rad2deg(u), torch.deg2rad(u)), (x,), fallback=False)
    torch.testing.assert_close(compiled(x), (torch.rad2deg(x), torch.deg2rad(x)), rtol=1e-14, atol=0)


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
def test_angles_of_short_and_long_vectors(frontend: str) -> None:
    """torch-mlir divides by the product of both lengths, bounded as one: 0 over 0 here, and too small there."""
    scales = {
        torch.float32: (1e-6, 1.0, 1e15),
        torch.float16: (1e-2, 1.0, 300.0),
        torch.float64: (1e-6, 1e160),
    }
    given = tuple(torch.randn(3, 9).to(d) * scale for d, each in scales.items() for scale in each for _ in range(2))

    def angles(*tensors: torch.Tensor) -> Any:
        return tuple(F.cosine_similarity(x, y) for x, y in zip(tensors[::2], tensors[1::2], strict=True))

    program = torch.jit.trace(angles, given, check_trace=False) if frontend == "torchscript" else angles
    compiled = torch_tvm.compile(program, given, frontend=frontend, fallback=False)
    for ours, eager in zip(compiled(*given), angles(*given), strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-2, atol=1e-2)


class Cells(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = torch.nn.LSTMCell(6, 7), torch.nn.GRUCell(7, 5)

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, g: torch.Tensor) -> Any:
        h, c = self.lstm(x, (h, c))
        return self.gru(h, g), c


def test_recurrent_cells() -> None:
    cells = Cells().eval()
    arguments = tuple(torch.randn(3, size) for size in (6, 7, 7, 5))
    compiled = torch_tvm.compile(cells, arguments, fallback=False)
    double = Cells().double().eval()
    double.load_state_dict(cells.state_dict())

    def eager(*args: torch.Tensor) -> Any:
        return (double if args[0].dtype == torch.float64 else cells)(*args)

    assert_matches(compiled(*arguments), eager, arguments)


RECURRENT: dict[str, tuple[type[torch.nn.RNNBase], dict[str, Any]]] = {
    "lstm": (torch.nn.LSTM, {}),
    "lstm with projections": (torch.nn.LSTM, {"proj_size": 2, "batch_first": True, "bidirectional": True}),
    "gru": (torch.nn.GRU, {"bidirectional": True}),
    "rnn": (torch.nn.RNN, {"batch_first": True}),
}


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_in_training_drop_what_eager_drops(name: str, frontend: str) -> None:
    kind, options = RECURRENT[name]
    layer, x = kind(4, 5, 3, dropout=0.5, **options).train(), torch.randn(4, 2, 4)
    given = torch.jit.script(layer) if frontend == "torchscript" else layer
    compiled = torch_tvm.compile(given, (x,), frontend=frontend, fallback=False)
    for seed in range(2):
        results = []
        for call in (compiled, layer):
            torch.manual_seed(seed)
            results.append((call(x), torch.rand(1)))
        torch.testing.assert_close(results[0], results[1])


def outer_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.kron(a, b) + F.huber_loss(a, a + 1)


@pytest.mark.parametrize("frontend", ["script", "trace", "lazy", "dynamo"])
def test_every_frontend(frontend: str) -> None:
    arguments = (torch.randn(3, 4), torch.randn(2, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch_tvm.FallbackWarning)
        if frontend == "dynamo":
            compiled: Any = torch.compile(outer_loss, backend="torch_tvm", options={"fallback": False})
        elif frontend == "lazy":
            compiled = torch_tvm.compile(outer_loss, arguments, frontend="lazy", fallback=False)
        else:
            make = torch.jit.script if frontend == "script" else lambda f: torch.jit.trace(f, arguments)
            compiled = torch_tvm.compile(make(outer_loss), arguments, fallback=False)
        assert_matches(compiled(*arguments), outer_loss, arguments)


def test_constants_of_a_decomposition_are_no_weights_of_the_program() -> None:
    module = canonicalize(import_fx(lambda a: F.huber_loss(a, a.flip(0)), (torch.randn(4),)))
    assert decompose(module)
    assert not module.state and not module.inlined
    assert all(view.op_name(op) != "torch.aten.huber_loss" for op in view.walk(module.main))


def test_an_op_with_parts_that_are_not_lowered_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    function, arguments = lambda a: torch.linalg.inv(a) + 1, (torch.randn(4, 4) + 4 * torch.eye(4),)
    monkeypatch.setattr("torch_tvm.lowering.module.is_library_call", lambda name: False)
    monkeypatch.setattr("torch_tvm.lowering.context.library_of", lambda name: None)
    with pytest.raises(torch_tvm.UnsupportedOp, match="linalg_inv"):
        torch_tvm.compile(function, arguments, fallback=False)
    with pytest.warns(torch_tvm.FallbackWarning, match="linalg_inv"):
        compiled = torch_tvm.compile(function, arguments)
    assert_matches(compiled(*arguments), function, arguments)


def test_singular_values_come_without_vectors() -> None:
    """They cost time, and some matrices with NaN have none; ``svdvals`` of fake tensors asks for both."""
    module = canonicalize(import_fx(torch.linalg.cond, (torch.randn(4, 4),)))
    assert decompose(module)
    (svd,) = [op for op in view.walk(module.main) if view.op_name(op) == "torch.aten._linalg_svd"]
    assert [view.constant(operand) for operand in list(svd.operands)[1:3]] == [False, False]


def test_unknown_sizes_that_an_op_wants_equal() -> None:
    function = lambda a, b: F.huber_loss(a, b, reduction="none")
    rows = torch.export.Dim("rows", min=2, max=9)
    example = (torch.randn(3, 4), torch.randn(3, 4))
    compiled = torch_tvm.compile(function, example, dynamic_shapes=({0: rows}, {0: rows}), fallback=False)
    arguments = (torch.randn(5, 4), torch.randn(5, 4))
    assert_matches(compiled(*arguments), function, arguments)
    with pytest.raises(torch_tvm.InvalidInput):
        compiled(torch.randn(5, 4), torch.randn(4, 4))


def _primitives(x: torch.Tensor) -> list[torch.Tensor]:
    p = torch.ops.prims
    return [
        p.collapse(x, 0, 1),
        p.collapse_view(x, 1, 1).clone(),
        p.split_dim(x, 1, 2) + 1,
        p.broadcast_in_dim(x, [3, 2, 4, 6], [1, 3]) * 1,
        p.transpose(x, [1, 0]).clone(),
        p.convert_element_type(x, torch.float64),
        p.prod(x, [1]),
        p.sum(x, [0, 1]),
        p.amax(x, [0]),
        p.div(p.convert_element_type(x, torch.int64), torch.full((2, 6), -3)),
        p.where(p.gt(x, p.neg(x)), x, p.exp(x)),
        p.rev(x, [1]),
    ]


def _refused(x: torch.Tensor, label: torch.Tensor) -> list[torch.Tensor]:
    """Ops whose lowerings do not take these operands, that have several results in a list, or a device or dtype."""
    square = x[:, :2]
    return [
        torch.einsum("ii->i", square),
        torch.einsum("...ij,...jk", square, x),
        F.cross_entropy(x, x.softmax(1), label_smoothing=0.1),
        F.cross_entropy(x, label[:, 0], torch.arange(6.0), label_smoothing=0.2, reduction="sum"),
        *x.hsplit(3),
        *x.T.vsplit((2, 3)),
        *torch.gradient(x, spacing=0.5),
        *torch.atleast_3d(x, square),
        torch.linspace(x[0, 0], x[1, 0], 7),
        torch.linspace(2, 9, 5, dtype=torch.int64) + label[0, 0],
        torch.diag_embed(x, 1, 0, 2),
        torch.narrow_copy(x, 1, 1, 3),
        F.pdist(x.T, 3),
        (x.new_empty_strided((2, 3), (1, 2)) == 0) | (x[:, :3] == x[:, :3]),
        7 % label.clamp_min(1),
        label[0] // label[1].clamp(-1, -1),
    ]


def _margins(x: torch.Tensor, label: torch.Tensor) -> list[torch.Tensor]:
    return [
        F.multi_margin_loss(x, label[:, 0], p=2, weight=torch.arange(6.0)),
        F.multilabel_margin_loss(x, label),
    ]


def _asking(x: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    """Functions that ask for values of their arguments."""
    count = weight.to(torch.int64)
    return [
        x.cov(),
        torch.cov(x, correction=0, fweights=count, aweights=weight),
        x[0].cov(),
        torch.corrcoef(x),
        torch.combinations(x[0], 3, True),
        F.gaussian_nll_loss(x, x.flip(0), x.abs(), full=True),
    ]


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy", "dynamo"])
def test_refused_operands_and_primitives(frontend: str) -> None:
    x, label = torch.randn(2, 6), torch.tensor([[1, 3, -1, 2, 0, 0], [5, -1, 4, 4, 4, 4]])

    def program(x: torch.Tensor, label: torch.Tensor) -> list[torch.Tensor]:
        # The lazy device has no views by primitives, and AOTAutograd cannot make them functional. Beside views as
        # results it takes PyTorch's own decomposition of the margins, which is wrong (below).
        more = [] if frontend in ("lazy", "dynamo") else [*_primitives(x), *_asking(x, x[0].exp() + 1)]
        margins = [] if frontend == "dynamo" else _margins(x, label)
        return [*_refused(x, label), *margins, *more]

    if frontend == "dynamo":
        compiled: Any = torch.compile(program, backend="torch_tvm", options={"fallback": False}, dynamic=False)
    else:
        given = torch.jit.trace(program, (x, label)) if frontend == "torchscript" else program
        compiled = torch_tvm.compile(given, (x, label), frontend=frontend, fallback=False)
    for fresh in (x, x * 2 + 1):
        for ours, eager in zip(compiled(fresh, label), program(fresh, label), strict=True):
            torch.testing.assert_close(ours, eager, rtol=2e-4, atol=2e-4)


def _numbers(x: torch.Tensor, index: torch.Tensor, f: torch.Tensor) -> list[torch.Tensor]:
    """Ops that take a number, given one that only the run knows."""
    number = f.item()
    return [
        F.leaky_relu(x, number),
        F.threshold(x, number, 0.5),
        F.softplus(x, number),
        F.elu(x, number),
        x.scatter(0, index[:1, None], number),
        *torch._foreach_mul([x, x + 1], number),
        *torch._foreach_norm([x, x + 1]),
        *torch._foreach_add([x], [x], alpha=2),
        *torch._weight_norm_interface(x, x[:, :1].abs() + 1),
    ]


@pytest.mark.parametrize("frontend", ["fx", "torchscript"])
def test_numbers_of_the_running_program(frontend: str) -> None:
    x, index, f = torch.randn(4, 6), torch.tensor([2, 0]), torch.tensor(1.5)
    given = torch.jit.trace(_numbers, (x, index, f)) if frontend == "torchscript" else _numbers
    compiled = torch_tvm.compile(given, (x, index, f), frontend=frontend, fallback=False)
    for number in (f, f / 3):
        for ours, eager in zip(compiled(x, index, number), given(x, index, number), strict=True):  # a trace keeps f
            torch.testing.assert_close(ours, eager, rtol=2e-4, atol=2e-4)


def test_numbers_as_results() -> None:
    f = torch.tensor(2.5)
    program = lambda f: ((f > 0).item(), f.item() * 2, f.to(torch.int64).item() + 1)
    compiled = torch_tvm.compile(program, (f,), fallback=False)
    for each in (f, -f):
        ours = compiled(each)
        assert ours == program(each) and list(map(type, ours)) == [bool, float, int]


def _of_floats(f: torch.Tensor, n: torch.Tensor, x: torch.Tensor) -> Any:
    number, count = f.item(), n.item()
    several = number**-0.8, number // 0.7, number % 0.7, count**-0.5, 1 / count, math.floor(number) + 1
    bools = number < count, torch.sym_not(number < 1)
    return [x * each for each in (*several, *bools, round(number))], x.add(x, alpha=number)


@torch._dynamo.config.patch(capture_scalar_outputs=True)
@pytest.mark.parametrize("frontend", ["fx", "dynamo"])
def test_arithmetic_on_numbers_of_the_running_program(frontend: str) -> None:
    """As Adafactor has it. The dialect's ``pow.Scalar`` is one of a tensor."""
    arguments = torch.tensor(2.5), torch.tensor(3), torch.randn(4)
    if frontend == "fx":
        compiled = torch_tvm.compile(_of_floats, arguments, fallback=False)
    else:
        compiled = torch.compile(_of_floats, backend="torch_tvm", fullgraph=True, options={"fallback": False})
    for f, n in ((2.5, 3), (0.3, 7)):
        given = torch.tensor(f), torch.tensor(n), arguments[2]
        torch.testing.assert_close(compiled(*given), _of_floats(*given))


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
def test_the_loss_of_one_row_is_a_number(frontend: str) -> None:
    """Fake tensors say that it is a vector."""
    x, labels = torch.randn(5), torch.tensor([3, 0, -1, 1, 1])
    program = lambda x, labels: F.multilabel_margin_loss(x, labels, reduction="none")
    given = torch.jit.trace(program, (x, labels)) if frontend == "torchscript" else program
    compiled = torch_tvm.compile(given, (x, labels), frontend=frontend, fallback=False)
    torch.testing.assert_close(compiled(x * 2, labels), program(x * 2, labels))


def test_norms_over_unknown_sizes() -> None:
    program = lambda x: (F.layer_norm(x, x.shape[1:]), F.rms_norm(x, x.shape[2:]))
    compiled = torch.compile(program, backend="torch_tvm", dynamic=True, options={"fallback": False})
    for sizes in ((2, 3, 6), (4, 5, 7)):
        x = torch.randn(sizes)
        torch.testing.assert_close(compiled(x), program(x))


def test_unknown_sizes() -> None:
    program = lambda x: (torch.diag_embed(x), *x.hsplit(2), torch.narrow_copy(x, 1, 1, 2))
    rows = torch.export.Dim("rows", min=2, max=9)
    compiled = torch_tvm.compile(program, (torch.randn(3, 4),), dynamic_shapes=({0: rows},), fallback=False)
    x = torch.randn(5, 4)
    for ours, eager in zip(compiled(x), program(x), strict=True):
        torch.testing.assert_close(ours, eager)


def test_attention_with_dropout_draws_as_eager_does() -> None:
    attend = lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)
    x, results = torch.randn(1, 2, 5, 4), []
    for function in (torch_tvm.compile(attend, (x,), fallback=False), attend):
        torch.manual_seed(1)
        results += [function(x), function(x)]
    torch.testing.assert_close(results[:2], results[2:])


def test_divisors_of_zero_are_errors() -> None:
    compiled = torch_tvm.compile(lambda x, y: x % y, (torch.arange(3), torch.arange(1, 4)), fallback=False)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        compiled(torch.arange(3), torch.arange(3))


def test_assertions_of_a_decomposition() -> None:
    compiled = torch_tvm.compile(F.gaussian_nll_loss, (torch.ones(3),) * 3, fallback=False)
    with pytest.raises(RuntimeError, match="var has negative entry"):
        compiled(torch.ones(3), torch.ones(3), -torch.ones(3))


def test_what_pytorch_decomposes_wrongly() -> None:
    """Labels after the first -1 count for nothing, and a loss that is NaN is no loss; mended in PyTorch when this
    fails.
    """
    nan, label = float("nan"), torch.tensor([[0, 1, -1], [1, -1, 0], [2, 0, 1], [-1, -1, -1]])
    x = torch.tensor([[0.3, -1.0, 2.0], [nan, 1.0, 2.0], [1.0, 2.0, 3.0], [-1.0, 2.0, 2.0]])
    losses: list[Callable[..., torch.Tensor]] = [
        lambda x, label: F.multilabel_margin_loss(x, label, reduction="none"),
        lambda x, label: F.multi_margin_loss(x, label[:, 0].clamp_min(0), reduction="none"),
    ]
    for loss in losses:
        table = torch._decomp.get_decompositions(
            [torch.ops.aten.multilabel_margin_loss_forward, torch.ops.aten.multi_margin_loss]
        )
        traced = torch.fx.experimental.proxy_tensor.make_fx(loss, table)(x, label)
        compiled = torch_tvm.compile(loss, (x, label), fallback=False)
        results = [compiled(x, label), torch.compile(loss, backend="torch_tvm")(x, label)]
        eager = loss(x, label)
        assert not torch.allclose(traced(x, label), eager, equal_nan=True)
        for ours in results:
            torch.testing.assert_close(ours, eager, equal_nan=True)


@pytest.mark.parametrize("frontend", ["fx", "torchscript"])
def test_moments_of_complex_numbers(frontend: str) -> None:
    """A covariance is with the conjugate; parts of a coefficient are bounded each; masks among the
    parts are real ops.
    """
    z = torch.randn(3, 7, dtype=torch.complex64)

    def program(z: torch.Tensor) -> list[torch.Tensor]:
        return [torch.cov(z), torch.corrcoef(z), torch.diag_embed(z), *torch.gradient(z, dim=0)]

    given = torch.jit.trace(program, (z,)) if frontend == "torchscript" else program
    compiled = torch_tvm.compile(given, (z,), frontend=frontend, fallback=False)
    for ours, eager in zip(compiled(z * 2), program(z * 2), strict=True):
        torch.testing.assert_close(ours, eager, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
def test_losses_of_alignments(frontend: str) -> None:
    """Lengths in lists and in tensors, labels in rows and one after the other, too short a time, and no batch."""
    scores, labels = torch.randn(9, 3, 5), torch.tensor([[1, 1, 2, 4], [3, 2, 0, 0], [4, 3, 4, 1]])
    times, counts, flat = (
        torch.tensor([9, 7, 2]),
        torch.tensor([4, 0, 3]),
        torch.tensor([1, 2, 3, 4, 4, 3, 1]),
    )

    def program(scores: torch.Tensor, *rest: torch.Tensor) -> list[torch.Tensor]:
        labels, times, counts, flat = rest
        x = scores.log_softmax(2)
        return [
            F.ctc_loss(x, labels, [9, 8, 6], [4, 2, 3]),
            F.ctc_loss(x, labels, times, counts, reduction="none"),
            F.ctc_loss(x, flat, times, counts, reduction="sum", zero_infinity=True),
            F.ctc_loss(x.double()[:, 0], labels[0], times[0], counts[0], reduction="none"),
        ]

    args = (scores, labels, times, counts, flat)
    given = torch.jit.trace(program, args) if frontend == "torchscript" else program
    compiled = torch_tvm.compile(given, args, frontend=frontend, fallback=False)
    for x in (scores, scores * 3):
        for ours, eager in zip(compiled(x, *args[1:]), program(x, *args[1:]), strict=True):
            torch.testing.assert_close(ours, eager)
    if frontend == "fx":
        with pytest.raises(InvalidIndex, match="index 10 is out of range"):
            compiled(scores, labels, times + 1, counts, flat)
