"""Matrix products against eager PyTorch: packed linears, batched products, epilogues, odd and dynamic sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tvm import relax, tirx

from torch_tvm.schedules.cpu.matmul.rule import Matmul
from torch_tvm.schedules.cpu.matmul.tiling import panel_vectors, tile_rows
from torch_tvm.schedules.target import CpuModel

from ..relax_models import TARGET, Compiled, check, var

AVX512 = CpuModel(512, 32, 32 << 10, 1 << 20, 32 << 20, 2)
AVX2 = CpuModel(256, 16, 32 << 10, 1 << 18, 8 << 20, 4)


def linear(emit, x, w, b):
    return emit(relax.op.add(emit(relax.op.matmul(x, emit(relax.op.permute_dims(w)))), b))


def compile_linear(lead, depth, columns, dtype="float32", activation=None, residual=False) -> Compiled:
    def body(emit, x, r, w, b):
        y = linear(emit, x, w, b)
        y = emit(activation(y)) if activation else y
        return emit(relax.op.add(y, r)) if residual else y

    params = [
        var("x", (*lead, depth), dtype),
        var("r", (*lead, columns), dtype),
        var("w", (columns, depth), dtype),
        var("b", (columns,), dtype),
    ]
    return Compiled(params, 2, body)


def check_linear(model, lead, depth, columns, dtype=torch.float32, activation=None, residual=False) -> None:
    x, r = torch.randn(*lead, depth, dtype=dtype), torch.randn(*lead, columns, dtype=dtype)
    w, b = torch.randn(columns, depth, dtype=dtype), torch.randn(columns, dtype=dtype)

    def reference(x, r, w, b):
        y = F.linear(x, w, b)
        y = activation(y) if activation else y
        return y + r if residual else y

    exact = reference(*(t.double() for t in (x, r, w, b)))
    check(model(x, r, w, b), reference(x, r, w, b), exact)


@pytest.mark.parametrize(
    ("lead", "depth", "columns"),
    [
        ((1,), 1, 1),
        ((1,), 64, 96),
        ((2,), 33, 7),
        ((3,), 5, 100),
        ((9,), 31, 65),
        ((17,), 100, 48),
        ((2, 5), 19, 33),
        ((1, 12), 40, 64),
        ((2, 3, 4), 8, 20),
        ((130,), 24, 16),
    ],
)
def test_linear(lead: tuple[int, ...], depth: int, columns: int) -> None:
    model = compile_linear(lead, depth, columns)
    assert "matmul" in model.rules()
    check_linear(model, lead, depth, columns)


def test_long_reduction_keeps_the_error_of_blas() -> None:
    check_linear(compile_linear((10,), 5003, 40), (10,), 5003, 40)


@pytest.mark.parametrize("columns", [48, 50])
def test_epilogue_is_fused(columns: int) -> None:
    model = compile_linear((11,), 32, columns, activation=relax.op.nn.gelu, residual=True)
    assert model.rules().count("matmul") == 1
    assert len([d for d in model.decisions if "pack" not in d.kernel]) == 1
    check_linear(model, (11,), 32, columns, activation=F.gelu, residual=True)


def test_nan_and_infinity_spread_as_in_eager() -> None:
    model = compile_linear((3,), 8, 16)
    x, w = torch.randn(3, 8), torch.randn(16, 8)
    x[0, 0], x[1, 1] = float("nan"), float("inf")
    r, b = torch.zeros(3, 16), torch.randn(16)
    check(model(x, r, w, b), F.linear(x, w, b), F.linear(x.double(), w.double(), b.double()))


def test_dynamic_rows() -> None:
    rows = tirx.Var("rows", "int64")
    model = compile_linear((rows,), 37, 50)
    assert "matmul" in model.rules()
    for size in (0, 1, 2, 3, 5, 8, 9, 64, 131):
        check_linear(model, (size,), 37, 50)


def test_dynamic_batch_and_tokens() -> None:
    batch, tokens = tirx.Var("batch", "int64"), tirx.Var("tokens", "int64")
    model = compile_linear((batch, tokens), 16, 48, residual=True)
    for lead in ((1, 1), (2, 7), (3, 40)):
        check_linear(model, lead, 16, 48, residual=True)


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [("float64", 1e-13), ("float16", None), ("bfloat16", None), ("int32", None), ("int64", None)],
)
def test_other_dtypes(dtype: str, bound: float | None) -> None:
    kind = getattr(torch, dtype)
    model = Compiled(
        [var("x", (9, 20), dtype), var("w", (20, 35), dtype)],
        1,
        lambda emit, x, w: emit(relax.op.matmul(x, w)),
    )
    make = (
        (lambda *s: torch.randn(*s).to(kind))
        if kind.is_floating_point
        else lambda *s: torch.randint(-9, 9, s, dtype=kind)
    )
    x, w = make(9, 20), make(20, 35)
    actual = model(x, w)
    if bound is not None:
        torch.testing.assert_close(actual, x @ w, rtol=bound, atol=bound)
    else:
        check(actual, x @ w, x.double() @ w.double())


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((4, 5), (5, 7)),
        ((3, 17, 33), (3, 33, 19)),
        ((2, 3, 9, 16), (2, 3, 16, 64)),
        ((2, 9, 20), (20, 40)),
        ((1, 100), (100, 50)),
        ((5, 1, 6, 8), (1, 4, 8, 3)),
        ((300, 30), (30, 18)),
    ],
)
def test_product_of_activations(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    model = Compiled([var("a", a), var("b", b)], 2, lambda emit, x, y: emit(relax.op.matmul(x, y)))
    assert model.rules() == ["matmul"]
    x, y = torch.randn(a), torch.randn(b)
    check(model(x, y), x @ y, x.double() @ y.double())


def test_product_of_activations_with_all_sizes_dynamic() -> None:
    m, n, k, batch = (tirx.Var(name, "int64") for name in "mnkb")
    model = Compiled(
        [var("a", (batch, m, k)), var("b", (batch, k, n))], 2, lambda emit, x, y: emit(relax.op.matmul(x, y))
    )
    for batch_, m_, n_, k_ in ((1, 1, 1, 1), (2, 9, 33, 17), (3, 8, 64, 800), (2, 3, 5, 0), (0, 3, 5, 2)):
        x, y = torch.randn(batch_, m_, k_), torch.randn(batch_, k_, n_)
        check(model(x, y), x @ y, x.double() @ y.double())


@pytest.mark.parametrize(("a", "b"), [((0, 5), (5, 3)), ((4, 0), (0, 3)), ((4, 5), (5, 0)), ((0, 2, 3), (0, 3, 4))])
def test_empty(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    model = Compiled([var("a", a), var("b", b)], 2, lambda emit, x, y: emit(relax.op.matmul(x, y)))
    x, y = torch.randn(a), torch.randn(b)
    assert torch.equal(model(x, y), x @ y)


def test_one_weight_is_packed_once() -> None:
    def body(emit, x, w):
        y = emit(relax.op.matmul(x, emit(relax.op.permute_dims(w))))
        return emit(relax.op.matmul(y, emit(relax.op.permute_dims(w))))

    model = Compiled([var("x", (6, 32)), var("w", (32, 32))], 1, body)
    x, w = torch.randn(6, 32), torch.randn(32, 32)
    check(model(x, w), F.linear(F.linear(x, w), w), F.linear(F.linear(x.double(), w.double()), w.double()))


def test_rule_refuses_what_is_no_product() -> None:
    model = Compiled([var("x", (8, 8))], 1, lambda emit, x: emit(relax.op.nn.relu(x)))
    assert "0 reduction blocks" in model.decisions[0].refusals[Matmul.name]


def test_panels_leave_few_columns_empty() -> None:
    assert panel_vectors(768, AVX512, "float32") == 3
    assert panel_vectors(16, AVX512, "float32") == 1
    assert panel_vectors(17, AVX512, "float32") == 2
    assert panel_vectors(1000, AVX512, "float32") == 3
    assert panel_vectors(128, AVX512, "float32") == 4
    assert panel_vectors(768, AVX2, "float32") == 2


@pytest.mark.parametrize("cpu", [AVX512, AVX2])
@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
def test_tiles_fit_the_registers(cpu: CpuModel, vectors: int) -> None:
    for rows in (None, 1, 2, 7, 8, 9, 100):
        size = tile_rows(rows, vectors, cpu)
        if vectors <= 2 or cpu is AVX512:
            assert 1 <= size
            assert size * vectors + vectors + 1 <= cpu.vector_registers
        assert rows is None or size <= rows


def test_wide_vectors_in_the_assembly() -> None:
    if CpuModel.from_target(TARGET).vector_bits != 512:
        pytest.skip("this machine has no 512-bit vectors")
    from torch_tvm.backends import build

    model = compile_linear((16,), 64, 96)
    assembly = build(model.scheduled, TARGET).mod.imports[0].inspect_source("asm")
    assert assembly.count("%zmm") > 50
