"""Products of bytes: exact, odd sizes, both kinds of operands, with ``vpdpbusd`` where the target has it."""

from __future__ import annotations

import pytest
import torch
import tvm
from spelled_out import spell_out
from tvm import relax, tirx

from torch_tvm.backends import build, optimize, schedule
from torch_tvm.schedules.instructions.dots import GROUP
from torch_tvm.schedules.target import CpuModel
from torch_tvm.transforms.matmul.packed_products import QUADS, pack
from torch_tvm.workloads.matmul import PackedWeight

from ..relax_models import TARGET, Compiled, check, var

HAS_VNNI = CpuModel.from_target(TARGET).dot(GROUP) is not None
RULE = "int8_matmul"
SIZES = [(1, 1, 1), (1, 64, 48), (2, 3, 5), (5, 7, 50), (8, 64, 96), (17, 33, 100), (130, 258, 33)]


@pytest.fixture(autouse=True)
def products_of_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """``vpdpbusd``, spelled out where this machine has none; not for the tests of another processor's code."""
    if not HAS_VNNI and "mcpu" not in request.fixturenames:
        spell_out(monkeypatch)


def bytes_of(kind: str, *shape: int) -> torch.Tensor:
    low, high = (-128, 128) if kind == "int8" else (0, 256)
    return torch.randint(low, high, shape, dtype=getattr(torch, kind))


def product(emit, x, w):
    return emit(relax.op.matmul(x, w, out_dtype="int32"))


def compile_product(rows, depth, columns, kind="int8", inputs=1, lead=()) -> Compiled:
    params = [var("x", (*lead, rows, depth), kind), var("w", (*lead, depth, columns), "int8")]
    return Compiled(params, inputs, product)


def check_product(model: Compiled, x: torch.Tensor, w: torch.Tensor) -> None:
    exact = torch.matmul(x.long(), w.long())
    check(model(x, w), exact.int(), exact.double())


@pytest.mark.parametrize("kind", ["int8", "uint8"])
@pytest.mark.parametrize("inputs", [1, 2], ids=["weight", "activation"])
@pytest.mark.parametrize(("rows", "depth", "columns"), SIZES)
def test_products_are_exact(rows: int, depth: int, columns: int, inputs: int, kind: str) -> None:
    model = compile_product(rows, depth, columns, kind, inputs)
    assert RULE in model.rules()
    check_product(model, bytes_of(kind, rows, depth), bytes_of("int8", depth, columns))


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_extremes_do_not_saturate(kind: str) -> None:
    low, high = (-128, 127) if kind == "int8" else (0, 255)
    model = compile_product(2, 40, 48, kind)
    for left in (low, high):
        for right in (-128, 127):
            x = torch.full((2, 40), left, dtype=getattr(torch, kind))
            check_product(model, x, torch.full((40, 48), right, dtype=torch.int8))


def test_transposed_weight() -> None:
    body = lambda emit, x, w: product(emit, x, emit(relax.op.permute_dims(w)))
    model = Compiled([var("x", (9, 30), "int8"), var("w", (70, 30), "int8")], 1, body)
    x, w = bytes_of("int8", 9, 30), bytes_of("int8", 70, 30)
    check(model(x, w), (x.long() @ w.long().T).int(), x.double() @ w.double().T)


def test_batches() -> None:
    model = compile_product(6, 20, 50, inputs=2, lead=(3,))
    check_product(model, bytes_of("int8", 3, 6, 20), bytes_of("int8", 3, 20, 50))


def test_dynamic_rows() -> None:
    rows = tirx.Var("rows", "int64")
    model = compile_product(rows, 37, 50)
    assert RULE in model.rules()
    for size in (0, 1, 2, 3, 5, 8, 9, 64, 131):
        check_product(model, bytes_of("int8", size, 37), bytes_of("int8", 37, 50))


def test_long_sums_wrap_around_as_in_eager() -> None:
    model = compile_product(1, 1 << 17, 16, "uint8")
    x, w = torch.full((1, 1 << 17), 255, dtype=torch.uint8), torch.full((1 << 17, 16), 127, dtype=torch.int8)
    assert torch.equal(model(x, w), torch.matmul(x.int(), w.int()))


def test_epilogue_is_fused() -> None:
    def body(emit, x, w, scale):
        value = emit(relax.op.astype(product(emit, x, w), "float32"))
        return emit(relax.op.nn.relu(emit(relax.op.multiply(value, scale))))

    params = [var("x", (11, 32), "int8"), var("w", (32, 50), "int8"), var("s", (50,))]
    model = Compiled(params, 1, body)
    assert [d.rule for d in model.decisions if "pack" not in d.kernel] == [RULE]
    x, w, scale = bytes_of("int8", 11, 32), bytes_of("int8", 32, 50), torch.rand(50)
    exact = torch.relu((x.double() @ w.double()) * scale.double())
    check(model(x, w, scale), exact.float(), exact)


def test_packed_weight_holds_groups_of_four_and_the_start_of_sums() -> None:
    builder = relax.BlockBuilder()
    w = var("w", (6, 20), "int8")
    with builder.function("main", [w]):
        with builder.dataflow():
            weight = PackedWeight(6, 20, 16, word=4, has_starts=True)
            packing = builder.call_te(lambda w: pack(w, QUADS, weight, False), w)
            result = builder.emit_output(packing)
        builder.emit_func_output(result)
    mod, _ = schedule(builder.get(), TARGET)
    values = bytes_of("int8", 6, 20)
    packed = torch.from_dlpack(relax.VirtualMachine(build(mod, TARGET), tvm.cpu())["main"](values))
    assert packed.shape == (2, 3, 64)
    padded = torch.zeros(8, 32, dtype=torch.int8)
    padded[:6, :20], padded[:6, 20:] = values, values[:, 19:20]
    expected = padded.reshape(2, 4, 2, 16).permute(2, 0, 3, 1).reshape(2, 2, 64)
    assert torch.equal(packed[:, :2], expected)
    starts = packed[:, 2].contiguous().view(torch.int32).flatten()
    assert torch.equal(starts[:20], -128 * values.sum(0, dtype=torch.int32))


def compile_for(mcpu: str, rows: int = 8) -> tuple[str, list[str]]:
    """Assembly and rules of a product with a weight, for another processor."""
    target = tvm.target.Target({"kind": "llvm", "mcpu": mcpu, "mtriple": "x86_64-linux-gnu", "num-cores": 2})
    builder = relax.BlockBuilder()
    x, w = var("x", (rows, 64), "int8"), var("w", (64, 96), "int8")
    with builder.function("main", [x, w], attrs={"num_input": 1}):
        with builder.dataflow():
            result = builder.emit_output(product(builder.emit, x, w))
        builder.emit_func_output(result)
    mod, decisions = schedule(optimize(builder.get(), target), target)
    return build(mod, target).mod.imports[0].inspect_source("asm"), [d.rule for d in decisions]


@pytest.mark.parametrize("mcpu", ["cascadelake", "znver4", "sapphirerapids"])
def test_targets_with_vnni_use_it_in_full_vectors(mcpu: str) -> None:
    assembly, rules = compile_for(mcpu)
    assert "int8_matmul" in rules
    dots = [line for line in assembly.splitlines() if "vpdpbusd" in line]
    assert len(dots) >= 8 * 3
    assert all("%zmm" in line for line in dots)


@pytest.mark.parametrize("mcpu", ["haswell", "skylake-avx512"])
def test_targets_without_vnni_take_the_general_product(mcpu: str) -> None:
    assembly, rules = compile_for(mcpu)
    assert "int8_matmul" not in rules
    assert "matmul" in rules
    assert "vpdpbusd" not in assembly
    assert any("vpmulld" in line or "vpmaddwd" in line for line in assembly.splitlines())


def test_refusal_names_the_missing_instruction() -> None:
    target = tvm.target.Target({"kind": "llvm", "mcpu": "haswell", "mtriple": "x86_64-linux-gnu"})
    builder = relax.BlockBuilder()
    x, w = var("x", (8, 64), "int8"), var("w", (64, 96), "int8")
    with builder.function("main", [x, w]):
        with builder.dataflow():
            result = builder.emit_output(product(builder.emit, x, w))
        builder.emit_func_output(result)
    _, decisions = schedule(optimize(builder.get(), target), target)
    assert decisions[0].refusals["int8_matmul"] == "the target has no vpdpbusd"
