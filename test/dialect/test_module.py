"""``TorchModule``: calling convention, state, snapshots, verification and copies."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from torch_tvm.dialect.emitter import Emitter
from torch_tvm.dialect.mlir import ir, new_context
from torch_tvm.dialect.module import TorchModule
from torch_tvm.dialect.parse import parse
from torch_tvm.dialect.signature import Signature
from torch_tvm.support.errors import ImportFailed, InvalidInput

COUNTER = """
func.func @main(%x: !torch.vtensor<[?,3],f32>, %count: !torch.vtensor<[3],f32>)
    -> (!torch.vtensor<[?,3],f32>, !torch.vtensor<[3],f32>, !torch.vtensor<[3],f32>)
    attributes {torch_tvm.state = ["net.count"], torch_tvm.writes = [1]} {
  %one = torch.constant.int 1
  %w = torch.vtensor.literal(dense_resource<"net.w"> : tensor<3xf32>) : !torch.vtensor<[3],f32>
  %y = torch.aten.add.Tensor %x, %w, %one
      : !torch.vtensor<[?,3],f32>, !torch.vtensor<[3],f32>, !torch.int -> !torch.vtensor<[?,3],f32>
  %next = torch.aten.add.Scalar %count, %one, %one
      : !torch.vtensor<[3],f32>, !torch.int, !torch.int -> !torch.vtensor<[3],f32>
  return %y, %count, %next : !torch.vtensor<[?,3],f32>, !torch.vtensor<[3],f32>, !torch.vtensor<[3],f32>
}
{-#
  dialect_resources: { builtin: {
    "net.w": "0x040000000000003F000080BF00000040"
  } }
#-}
"""


def spec_of(tree: Any) -> pytree.TreeSpec:
    return pytree.tree_flatten(tree)[1]


@pytest.fixture
def counter() -> TorchModule:
    """``f({"x": x}, mode="train")`` is ``[x + w, (7, count before)]``; every call adds one to ``count``."""
    weight = torch.tensor([0.5, -1.0, 2.0])
    signature = Signature(
        in_spec=spec_of((({"x": 0},), {"mode": 0})),
        out_spec=spec_of([0, (0, 0)]),
        names=["x", "mode"],
        constants={1: "train"},
        outputs=[None, (7,), None],
    )
    module = ir.Module.parse(COUNTER, new_context())
    return TorchModule(module, {"net.w": weight}, {"net.count": torch.zeros(3)}, signature)


def imported_like(tensor: torch.Tensor, name: str = "w") -> TorchModule:
    """A module that returns one weight; its literal lies over the tensor's memory, as importers make it."""
    module = ir.Module.parse("module {}", new_context())
    weights: dict[str, torch.Tensor] = {}
    emitter = Emitter(module, weights)
    kind = emitter.types.tensor(tensor)
    with ir.InsertionPoint(module.body), ir.Location.unknown(module.context):
        function = ir.Operation.create(
            "func.func",
            attributes={
                "sym_name": ir.StringAttr.get("main", module.context),
                "function_type": ir.TypeAttr.get(ir.FunctionType.get([], [kind], module.context)),
            },
            regions=1,
        )
        block = function.regions[0].blocks.append()
        with emitter.block(block):
            emitter.op("func.return", [emitter.literal(tensor, name)], [])
    return TorchModule(module, weights)


def test_call_nests_results_and_writes_state_back(counter: TorchModule) -> None:
    x = torch.randn(2, 3)
    first = counter({"x": x}, mode="train")
    second = counter({"x": x}, mode="train")
    assert torch.equal(first[0], x + torch.tensor([0.5, -1.0, 2.0]))
    assert first[1][0] == 7 and isinstance(first, list) and isinstance(first[1], tuple)
    assert first[1][1].tolist() == [0, 0, 0], "a result that aliases the state keeps the value before"
    assert second[1][1].tolist() == [1, 1, 1]
    assert counter.state["net.count"].tolist() == [2, 2, 2]


def test_gradients_reach_the_input(counter: TorchModule) -> None:
    x = torch.randn(2, 3, requires_grad=True)
    counter({"x": x}, mode="train")[0].sum().backward()
    assert torch.equal(x.grad, torch.ones(2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, x: f(x, mode="train"), r"expected \(\{'x': \*\}, mode=\*\), got \(\*, mode=\*\)"),
        (lambda f, x: f({"x": x}), r"expected .* got \(\{'x': \*\}\)"),
        (
            lambda f, x: f({"x": x}, mode="eval"),
            r"argument 'mode' was fixed to 'train' at import, got 'eval'",
        ),
        (
            lambda f, x: f({"x": x.double()}, mode="train"),
            r"'x': expected dtype torch.float32, got torch.float64",
        ),
        (lambda f, x: f({"x": x[0]}, mode="train"), r"'x': expected shape \[\?, 3\], got \[3\]"),
        (lambda f, x: f({"x": x[:, :2]}, mode="train"), r"'x': expected shape \[\?, 3\], got \[2, 2\]"),
        (lambda f, x: f({"x": 3}, mode="train"), r"argument 'x': expected a tensor, got int"),
    ],
)
def test_arguments_that_do_not_fit(
    counter: TorchModule, call: Callable[[TorchModule, torch.Tensor], Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        call(counter, torch.randn(2, 3))
    assert counter.state["net.count"].tolist() == [0, 0, 0]


def test_scalar_arguments_are_checked() -> None:
    module = parse("func.func @main(%n: !torch.int, %f: !torch.float) -> !torch.int { return %n : !torch.int }")
    assert module(3, 2) == 3
    for arguments, message in [
        ((True, 1.0), "argument 0: expected int, got bool"),
        ((3, "x"), "argument 1: expected float, got str"),
        ((3,), "expected 2 arguments, got 1"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            module(*arguments)


def test_text_reads_back_exactly(counter: TorchModule) -> None:
    counter({"x": torch.randn(2, 3)}, mode="train")
    text = str(counter)
    again = parse(text)
    assert str(again) == text and str(counter) == text
    assert again.signature == counter.signature
    assert torch.equal(again.weights["net.w"], counter.weights["net.w"])
    assert again.state["net.count"].tolist() == [1, 1, 1]
    x = torch.randn(2, 3)
    assert torch.equal(again({"x": x}, mode="train")[0], counter({"x": x}, mode="train")[0])


@pytest.mark.parametrize("extension", [".mlir", ".mlirbc"])
def test_saved_file_reads_back(counter: TorchModule, tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"m{extension}"
    counter.save(path)
    again = parse(path)
    assert str(again) == str(counter)
    assert [type(v) for v in again({"x": torch.ones(1, 3)}, mode="train")] == [torch.Tensor, tuple]


def test_save_refuses_an_unknown_format(counter: TorchModule, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cannot tell the format[^\n]*\n  name the file .mlir"):
        counter.save(tmp_path / "m.onnx")


def test_save_to_a_place_that_cannot_be_written(counter: TorchModule, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cannot write '.*m.mlir': No such file or directory"):
        counter.save(tmp_path / "missing" / "m.mlir")


def test_elided_text_is_short_and_refused(golden: Callable[[str], None]) -> None:
    module = imported_like(torch.arange(3000.0))
    text = module.asm()
    golden(text)
    with pytest.raises(InvalidInput, match=r"no data for resource 'w'\n  print the module with its weights"):
        parse(text)


DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.complex128,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (1,), (), (0, 4)], ids=str)
def test_weights_of_every_dtype_and_size_survive_text_and_bytecode(
    dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path
) -> None:
    weight = (
        (torch.randn(shape) * 50).to(torch.complex128).to(dtype)
        if dtype.is_complex
        else (torch.randn(shape).abs() * 50).to(dtype)
    )
    module = imported_like(weight)
    module.save(tmp_path / "m.mlirbc")
    for again in (module, parse(str(module)), parse(tmp_path / "m.mlirbc")):
        value = again()
        assert value.dtype == dtype and value.shape == weight.shape
        assert bits(value) == bits(weight)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_state_of_every_dtype_survives_text(dtype: torch.dtype) -> None:
    from torch_tvm.dialect.types import DTYPE_TEXT

    kind = f"!torch.vtensor<[130],{DTYPE_TEXT[dtype]}>"
    text = f"""func.func @main(%s: {kind}) -> {kind} attributes {{torch_tvm.state = ["s"]}} {{
      return %s : {kind}
    }}"""
    state = (torch.randn(130).abs() * 50).to(dtype)
    module = TorchModule(ir.Module.parse(text, new_context()), {}, {"s": state})
    assert bits(parse(str(module)).state["s"]) == bits(state)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def test_odd_resource_names_survive() -> None:
    for name in ('a "quoted" name', "back\\slash", "größe", "a>b", "with: colon", "state.x"):
        weight = torch.randn(4, 4)
        again = parse(str(imported_like(weight, name)))
        assert list(again.weights) == [name] and torch.equal(again(), weight)


def test_weights_are_not_copied_and_a_change_is_noticed() -> None:
    weight = torch.randn(8, 8)
    module = imported_like(weight)
    assert module.weights["w"].data_ptr() == weight.data_ptr() and module().data_ptr() == weight.data_ptr()
    snapshot = copy.deepcopy(module)
    before = weight.clone()
    weight.add_(1)
    assert module.moved_weights() == ["w"]
    for use in (module, module.__str__, module.bytecode, module.check_weights):
        with pytest.raises(InvalidInput, match=r"weights changed since the import: w\n  import the program again"):
            use()
    assert torch.equal(snapshot(), before) and snapshot.moved_weights() == []


def test_exchanged_memory_is_noticed() -> None:
    parameter = torch.nn.Parameter(torch.randn(8, 8))
    module = imported_like(parameter)
    parameter.data = torch.randn(8, 8)
    assert module.moved_weights() == ["w"]


def test_deep_copies_and_pickles_are_independent(counter: TorchModule) -> None:
    copies = [copy.deepcopy(counter), pickle.loads(pickle.dumps(counter))]
    x = torch.randn(1, 3)
    counter({"x": x}, mode="train")
    for each in copies:
        assert each.state["net.count"].tolist() == [0, 0, 0]
        each.weights["net.w"].zero_()
    assert counter.weights["net.w"].tolist() == [0.5, -1.0, 2.0]
    assert torch.equal(counter({"x": x}, mode="train")[0], x + counter.weights["net.w"])


def test_threads_share_a_module() -> None:
    module = parse(COUNTER.replace("torch_tvm.state", "other.state"))
    weight = module.weights["net.w"]
    wrong: list[str] = []

    def work(seed: int) -> None:
        for turn in range(20):
            x, count = torch.full((2, 3), float(seed + turn)), torch.zeros(3)
            y, _ = module(x, count)
            if not torch.equal(y, x + weight) or count.tolist() != [1, 1, 1]:
                wrong.append(f"{seed}.{turn}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_verify_accepts_a_good_module(counter: TorchModule) -> None:
    counter.verify()


def test_verify_names_what_does_not_fit(counter: TorchModule) -> None:
    main = counter.main.operation
    del main.attributes["torch_tvm.state"]
    with pytest.raises(ImportFailed, match=r"torch_tvm.state: state is \[\] in the module and \['net.count'\]"):
        counter.verify()
    counter.state = {}
    main.attributes["torch_tvm.writes"] = ir.Attribute.parse("[5]", counter.mlir.context)
    with pytest.raises(ImportFailed, match=r"torch_tvm.writes: \[5\] does not fit 2 arguments and 3 results"):
        counter.verify()
    main.attributes["torch_tvm.writes"] = ir.Attribute.parse("[1]", counter.mlir.context)
    counter.weights.clear()
    with pytest.raises(InvalidInput, match=r"the module has no data for resource 'net.w'"):
        counter.verify()


def test_verify_repeats_the_diagnostics_of_mlir(counter: TorchModule) -> None:
    function = counter.main.operation
    list(function.regions[0].blocks[0].operations)[-1].operation.erase()
    with pytest.raises(ImportFailed, match=r"MLIR verifier: block with no terminator"):
        counter.verify()


def test_a_module_without_an_entry_says_so() -> None:
    text = """func.func @a() { return }
    func.func @b() { return }"""
    with pytest.raises(InvalidInput, match=r"no entry function; its functions: @a, @b"):
        parse(text)()
    assert str(parse("module {}")) == "module {\n}\n"


def test_the_only_public_function_is_the_entry() -> None:
    text = """func.func private @inner(%x: !torch.int) -> !torch.int { return %x : !torch.int }
    func.func @forward(%x: !torch.int) -> !torch.int {
      %0 = call @inner(%x) : (!torch.int) -> !torch.int
      return %0 : !torch.int
    }"""
    assert parse(text)(5) == 5
