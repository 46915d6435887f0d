"""Reading operations: order, names, constants and types."""

from __future__ import annotations

import torch

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir, new_context
from torch_tvm.dialect.types import TensorType

TEXT = """
func.func @main(%x: !torch.vtensor<[?,3],f32>, %c: !torch.bool) -> !torch.int {
  %one = torch.constant.int 1
  %none = torch.constant.none
  %list = torch.prim.ListConstruct %one, %one : (!torch.int, !torch.int) -> !torch.list<int>
  %lists = torch.prim.ListConstruct %list, %list
      : (!torch.list<int>, !torch.list<int>) -> !torch.list<list<int>>
  %optional = torch.derefine %none : !torch.none to !torch.optional<int>
  %size = torch.aten.size.int %x, %one : !torch.vtensor<[?,3],f32>, !torch.int -> !torch.int
  %mixed = torch.prim.ListConstruct %one, %size : (!torch.int, !torch.int) -> !torch.list<int>
  %custom = torch.operator "ns.op.ov"(%one) : (!torch.int) -> !torch.int
  %0 = torch.prim.If %c -> (!torch.int) {
    %two = torch.constant.int 2
    torch.prim.If.yield %two : !torch.int
  } else {
    torch.prim.If.yield %size : !torch.int
  }
  return %0 : !torch.int
}
"""


def results_by_name(module: ir.Module) -> dict[str, ir.Value]:
    names = ["one", "none", "list", "lists", "optional", "size", "mixed", "custom"]
    values = [op.results[0] for op in view.walk(module) if op.name != "func.func" and len(op.results)]
    return dict(zip(names, values, strict=False))


def test_walk_visits_regions_after_their_operation() -> None:
    module = ir.Module.parse(TEXT, new_context())
    names = [view.op_name(op) for op in view.walk(module)]
    assert names[0] == "func.func" and names[-1] == "func.return"
    at = names.index("torch.prim.If")
    assert names[at + 1 : at + 4] == ["torch.constant.int", "torch.prim.If.yield", "torch.prim.If.yield"]
    assert [view.op_name(op) for op in view.walk(view.functions(module)["main"])] == names[1:]


def test_walk_survives_the_erasure_of_the_current_operation() -> None:
    module = ir.Module.parse(TEXT, new_context())
    for operation in view.walk(module):
        if operation.name == "torch.operator":
            operation.erase()
    assert "ns.op" not in str(module)


def test_operator_names_are_resolved() -> None:
    module = ir.Module.parse(TEXT, new_context())
    assert "torch.ns.op.ov" in [view.op_name(op) for op in view.walk(module)]


def test_constants_and_what_is_none() -> None:
    module = ir.Module.parse(TEXT, new_context())
    values = results_by_name(module)
    assert view.constant(values["one"]) == 1
    assert view.constant(values["lists"]) == [[1, 1], [1, 1]]
    assert view.is_constant(values["none"]) and view.constant(values["none"], "unknown") is None
    assert view.is_constant(values["optional"]) and view.constant(values["optional"], "unknown") is None
    for name in ("size", "mixed", "custom"):
        assert not view.is_constant(values[name]) and view.constant(values[name], "unknown") == "unknown"
    argument = view.functions(module)["main"].regions[0].blocks[0].arguments[0]
    assert not view.is_constant(argument) and view.defining_op(argument) is None


def test_tensor_types() -> None:
    module = ir.Module.parse(TEXT, new_context())
    main = view.functions(module)["main"]
    tensor, flag = main.regions[0].blocks[0].arguments
    assert view.tensor_type(tensor) == TensorType((None, 3), torch.float32)
    assert view.tensor_type(flag) is None


def test_names_are_unquoted() -> None:
    assert view.unquote('"a\\22b\\5Cc"') == 'a"b\\c'
    assert view.unquote('"gr\\C3\\B6sse"') == "grösse"
    assert view.unquote("plain.name") == "plain.name"
