"""Ops that a file may not run: while it is read, in the interpreter, and in compiled code."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
import torch

import torch_tvm
from torch_tvm.aten.side_effects import is_harmless, may_be_named
from torch_tvm.support.errors import ImportFailed, InvalidInput, UnsupportedOp

_FROM_FILE = """func.func @main(%x: !torch.vtensor<[4],f32>) -> !torch.vtensor<[4],f32> {
  %name = torch.constant.str "made"
  %true = torch.constant.bool true
  %n = torch.constant.int 4
  %none = torch.constant.none
  %f = torch.operator "torch.aten.from_file"(%name, %true, %n, %none, %none, %none, %none) :
    (!torch.str, !torch.bool, !torch.int, !torch.none, !torch.none, !torch.none, !torch.none)
    -> !torch.vtensor<[4],f32>
  %one = torch.constant.int 1
  %r = torch.aten.add.Tensor %x, %f, %one : !torch.vtensor<[4],f32>, !torch.vtensor<[4],f32>, !torch.int
    -> !torch.vtensor<[4],f32>
  return %r : !torch.vtensor<[4],f32>
}
"""


def test_an_op_that_opens_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = torch_tvm.parse(_FROM_FILE)
    with pytest.raises(UnsupportedOp, match=r"torch.aten.from_file: a module from a file may only run ops of"):
        module(torch.randn(4))
    for fallback in (True, False):
        with pytest.raises(UnsupportedOp, match=r"parse it with allow_ops=\['aten.from_file'\]"):
            torch_tvm.compile(module, fallback=fallback)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "lines",
    [
        ["%f : Tensor = aten::from_file(%name, %true, %n, %none, %none, %none, %none)", "return (%f)"],
        ["aten::save(%n, %name)", "return (%x)"],
        ["%t : Tensor = aten::requires_grad_(%x, %true)", "aten::set_data(%t, %x)", "return (%x)"],
    ],
)
def test_graphs_as_text(lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "graph.ts"
    path.write_text(
        "graph(%x : Float(4)):\n"
        '  %name : str = prim::Constant[value="made"]()\n'
        "  %true : bool = prim::Constant[value=1]()\n  %n : int = prim::Constant[value=4]()\n"
        "  %none : NoneType = prim::Constant()\n  " + "\n  ".join(lines) + "\n"
    )
    state = torch.random.get_rng_state()
    with pytest.raises(ImportFailed, match=r"torch.aten.\w+: this op reads or changes more than its"):
        torch_tvm.parse(path)
    assert os.listdir(tmp_path) == ["graph.ts"]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_ops_of_the_users_own_are_admitted_by_name() -> None:
    with torch.library._scoped_library("torch_tvm_harm", "DEF") as library:
        library.define("halve(Tensor x) -> Tensor")
        library.impl("halve", lambda x: x / 2, "CompositeExplicitAutograd")
        text = """func.func @main(%x: !torch.vtensor<[2],f32>) -> !torch.vtensor<[2],f32> {
          %r = torch.operator "torch.torch_tvm_harm.halve"(%x) : (!torch.vtensor<[2],f32>) -> !torch.vtensor<[2],f32>
          return %r : !torch.vtensor<[2],f32>
        }"""
        with pytest.raises(UnsupportedOp, match="allow_ops="):
            torch_tvm.parse(text)(torch.ones(2))
        admitted = torch_tvm.parse(text, allow_ops=["torch_tvm_harm::halve"])
        assert admitted(torch.ones(2)).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "context",
    [
        {"default_factory_module": "made_module", "default_factory_name": "x", "dict_context": ["a"]},
        {"default_factory_module": "os", "default_factory_name": "getpid", "dict_context": ["a"]},
    ],
)
def test_containers_that_would_import_a_module(
    context: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    leaf: dict[str, object] = {"type": None, "context": None, "children_spec": []}
    spec = [1, {"type": "collections.defaultdict", "context": context, "children_spec": [leaf]}]
    signature = json.dumps({"out": {"pytree": json.dumps(spec)}}).replace("\\", "\\\\").replace('"', '\\"')
    text = f"""func.func @main(%x: !torch.vtensor<[2],f32>) -> !torch.vtensor<[2],f32>
      attributes {{torch_tvm.signature = "{signature}"}} {{ return %x : !torch.vtensor<[2],f32> }}"""
    with pytest.raises(InvalidInput, match="the text of the calling convention is damaged: a container made by"):
        torch_tvm.parse(text)


_WEIGHT = """func.func @main() -> !torch.vtensor<[2],f32> {
  %0 = torch.vtensor.literal(dense_resource<w> : tensor<2xf32>) : !torch.vtensor<[2],f32>
  return %0 : !torch.vtensor<[2],f32>
}
{-#
  dialect_resources: { builtin: { w: "0xBLOB
"""


@pytest.mark.parametrize(
    "blob",
    [
        "",
        '0400" } }\n#-}',
        '0400000000008" } }\n#-}',
        '00000000000080BF0000003F" } }\n#-}',
        '03000000000080BF0000003F" } }\n#-}',
        'FFFFFFFF000080BF0000003F" } }\n#-}',
        "04000000000080BF00",
        '04000000000080BF" } }\n#-}',
    ],
)
def test_damaged_blobs_of_a_text(blob: str) -> None:
    with pytest.raises((InvalidInput, ImportFailed)):
        torch_tvm.parse(_WEIGHT.replace("BLOB", blob))


def test_damaged_blobs_of_bytecode(tmp_path: Path) -> None:
    text = _WEIGHT.replace("BLOB", '04000000000080BF0000003F" } }\n#-}')
    code = torch_tvm.parse(text).bytecode()
    weight = struct.pack("<2f", -1.0, 0.5)
    at = code.index(weight)
    for damaged in (
        code[:at],
        code[: at + 4],
        code[:at] + code[at + 4 :],
        code[: at - 9] + b"\0" * 9 + code[at:],
    ):
        try:
            torch_tvm.parse(damaged)
        except (InvalidInput, ImportFailed):
            pass


def test_which_ops_are_harmless() -> None:
    aten = torch.ops.aten
    for op in (aten.add.Tensor, aten.einsum.default, aten.dropout.default, torch.ops.prims.sum.default):
        assert may_be_named(op)
    for op in (aten.from_file.default, aten.save.default, aten.manual_seed.default, aten.set_.source_Storage):
        assert not is_harmless(op)
    assert not may_be_named(torch.ops.profiler._record_function_enter_new.default)
