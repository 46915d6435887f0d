"""The reference interpreter against eager PyTorch and against Python itself."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import torch_tvm
from torch_tvm.aten.calls import callable_for, run_op
from torch_tvm.dialect.mlir import PassManager
from torch_tvm.dialect.parse import parse
from torch_tvm.support.errors import InvalidInput, UnsupportedOp

F23 = "!torch.vtensor<[2,3],f32>"


def run_text(text: str, *args: Any) -> list[Any]:
    return parse(text).run(args)


def body(lines: str, arguments: str, results: str) -> str:
    return f"func.func @main({arguments}) -> ({results}) {{\n{lines}\n}}\n"


def returned(constant: str, kind: str) -> Any:
    (value,) = run_text(body(f"%0 = torch.constant.{constant}\n return %0 : !torch.{kind}", "", f"!torch.{kind}"))
    return value


@pytest.mark.parametrize(
    ("constant", "kind", "expected"),
    [
        ("int -9223372036854775808", "int", -(2**63)),
        ("float 0xFFF0000000000000", "float", float("-inf")),
        ("bool true", "bool", True),
        ("bool false", "bool", False),
        ('str "a\\22b\\5C"', "str", 'a"b\\'),
        ("none", "none", None),
        ('device "cpu"', "Device", torch.device("cpu")),
    ],
)
def test_constant(constant: str, kind: str, expected: Any) -> None:
    value = returned(constant, kind)
    assert value == expected and type(value) is type(expected)


LITERALS = {
    "dense<[[1.5, -2.0, 0.1]]> : tensor<1x3xf32>": torch.tensor([[1.5, -2.0, 0.1]]),
    "dense<0.1> : tensor<2xf64>": torch.full((2,), 0.1, dtype=torch.float64),
    "dense<[1.5, 0x7C00]> : tensor<2xf16>": torch.tensor([1.5, float("inf")], dtype=torch.float16),
    "dense<[1.5, 0xFF80, 3.140630e+00]> : tensor<3xbf16>": torch.tensor(
        [1.5, float("-inf"), 3.140625], dtype=torch.bfloat16
    ),
    "dense<1.5> : tensor<2x2xf8E4M3FN>": torch.full((2, 2), 1.5).to(torch.float8_e4m3fn),
    "dense<[true, false]> : tensor<2xi1>": torch.tensor([True, False]),
    "dense<-7> : tensor<si64>": torch.tensor(-7),
    "dense<[255, 0]> : tensor<2xui8>": torch.tensor([255, 0], dtype=torch.uint8),
    "dense<-128> : tensor<1xsi8>": torch.tensor([-128], dtype=torch.int8),
    "dense<(1.0,-2.5)> : tensor<complex<f32>>": torch.tensor(1 - 2.5j),
    "dense<[(1.0,2.0), (0x7FF0000000000000,-1.0)]> : tensor<2xcomplex<f64>>": torch.tensor(
        [1 + 2j, complex(float("inf"), -1)], dtype=torch.complex128
    ),
    "dense<> : tensor<0x4xf32>": torch.empty(0, 4),
    "dense<> : tensor<0xcomplex<f32>>": torch.empty(0, dtype=torch.complex64),
}


@pytest.mark.parametrize("text", LITERALS)
def test_literal(text: str) -> None:
    expected = LITERALS[text]
    inner = text.partition("tensor<")[2][:-1]
    *sizes, element = re.split(r"(?<=\d)x", inner)
    kind = f"!torch.vtensor<[{','.join(sizes)}],{element}>"
    (value,) = run_text(body(f"%0 = torch.vtensor.literal({text}) : {kind}\n return %0 : {kind}", "", kind))
    assert value.dtype == expected.dtype and value.shape == expected.shape
    assert (
        torch.equal(torch.view_as_real(value), torch.view_as_real(expected))
        if value.is_complex()
        else (torch.equal(value.to(torch.float64), expected.to(torch.float64)))
    )


def test_if_takes_the_branch_of_its_condition() -> None:
    text = body(
        """%one = torch.constant.int 1
           %0 = torch.prim.If %c -> (!torch.int) {
             %then = torch.aten.add.int %x, %one : !torch.int, !torch.int -> !torch.int
             torch.prim.If.yield %then : !torch.int
           } else {
             torch.prim.If.yield %x : !torch.int
           }
           return %0 : !torch.int""",
        "%c: !torch.bool, %x: !torch.int",
        "!torch.int",
    )
    assert run_text(text, True, 41) == [42]
    assert run_text(text, False, 41) == [41]


LOOP = body(
    """%zero = torch.constant.int 0
       %start = torch.aten.ge.int %n, %zero : !torch.int, !torch.int -> !torch.bool
       %0:2 = torch.prim.Loop %n, %start, init(%x, %zero) {
       ^bb0(%i: !torch.int, %acc: !torch.int, %seen: !torch.int):
         %next = torch.aten.add.int %acc, %i : !torch.int, !torch.int -> !torch.int
         %on = torch.aten.lt.int %next, %limit : !torch.int, !torch.int -> !torch.bool
         torch.prim.Loop.condition %on, iter(%next, %acc : !torch.int, !torch.int)
       } : (!torch.int, !torch.bool, !torch.int, !torch.int) -> (!torch.int, !torch.int)
       return %0#0, %0#1 : !torch.int, !torch.int""",
    "%n: !torch.int, %x: !torch.int, %limit: !torch.int",
    "!torch.int, !torch.int",
)


def loop_in_python(n: int, x: int, limit: int) -> list[int]:
    seen, i, goes_on = 0, 0, n >= 0
    while goes_on and i < n:
        x, seen = x + i, x
        goes_on = x < limit
        i += 1
    return [x, seen]


@pytest.mark.parametrize(
    "arguments", [(0, 5, 100), (1, 5, 100), (10, 5, 1000), (10, 5, 11), (-1, 5, 100), (20000, 0, 10**12)]
)
def test_loop(arguments: tuple[int, int, int]) -> None:
    assert run_text(LOOP, *arguments) == loop_in_python(*arguments)


def test_loop_values_swap_simultaneously() -> None:
    text = body(
        """%true = torch.constant.bool true
           %0:2 = torch.prim.Loop %n, %true, init(%a, %b) {
           ^bb0(%i: !torch.int, %x: !torch.int, %y: !torch.int):
             torch.prim.Loop.condition %true, iter(%y, %x : !torch.int, !torch.int)
           } : (!torch.int, !torch.bool, !torch.int, !torch.int) -> (!torch.int, !torch.int)
           return %0#0, %0#1 : !torch.int, !torch.int""",
        "%n: !torch.int, %a: !torch.int, %b: !torch.int",
        "!torch.int, !torch.int",
    )
    assert run_text(text, 3, 1, 2) == [2, 1]


def test_lists_tuples_and_dictionaries() -> None:
    text = body(
        """%zero = torch.constant.int 0
           %key = torch.constant.str "k"
           %list = torch.prim.ListConstruct %a : (!torch.int) -> !torch.list<int>
           %alias = torch.aten.append.t %list, %b : !torch.list<int>, !torch.int -> !torch.list<int>
           %0:2 = torch.prim.ListUnpack %list : !torch.list<int> -> !torch.int, !torch.int
           %n = torch.aten.len.t %list : !torch.list<int> -> !torch.int
           %item = torch.aten.__getitem__.t %list, %zero : !torch.list<int>, !torch.int -> !torch.int
           %pair = torch.prim.TupleConstruct %0#1, %n : !torch.int, !torch.int -> !torch.tuple<int, int>
           %1:2 = torch.prim.TupleUnpack %pair : !torch.tuple<int, int> -> !torch.int, !torch.int
           %other = torch.constant.str "other"
           %d = torch.prim.DictConstruct keys(%key, %other : !torch.str, !torch.str)
                values(%item, %b : !torch.int, !torch.int) -> !torch.dict<str, int>
           %v = torch.aten.__getitem__.Dict_str %d, %key : !torch.dict<str, int>, !torch.str -> !torch.int
           return %1#0, %1#1, %v : !torch.int, !torch.int, !torch.int""",
        "%a: !torch.int, %b: !torch.int",
        "!torch.int, !torch.int, !torch.int",
    )
    assert run_text(text, 7, 9) == [9, 2, 7]


def test_unpacking_a_list_of_another_length_is_an_error() -> None:
    text = body(
        "%0 = torch.prim.ListUnpack %l : !torch.list<int> -> !torch.int\n return %0 : !torch.int",
        "%l: !torch.list<int>",
        "!torch.int",
    )
    with pytest.raises(RuntimeError, match=r"expected 1 elements, got 2"):
        run_text(text, [1, 2])


def test_calls_recurse_with_their_own_values() -> None:
    text = """
    func.func private @factorial(%n: !torch.int) -> !torch.int {
      %one = torch.constant.int 1
      %stop = torch.aten.le.int %n, %one : !torch.int, !torch.int -> !torch.bool
      %0 = torch.prim.If %stop -> (!torch.int) {
        torch.prim.If.yield %one : !torch.int
      } else {
        %m = torch.aten.sub.int %n, %one : !torch.int, !torch.int -> !torch.int
        %r = func.call @factorial(%m) : (!torch.int) -> !torch.int
        %p = torch.aten.mul.int %n, %r : !torch.int, !torch.int -> !torch.int
        torch.prim.If.yield %p : !torch.int
      }
      return %0 : !torch.int
    }
    func.func @main(%n: !torch.int) -> !torch.int {
      %0 = call @factorial(%n) : (!torch.int) -> !torch.int
      return %0 : !torch.int
    }"""
    assert run_text(text, 10) == [3628800]


def test_raise_keeps_the_message_and_names_the_line() -> None:
    text = body(
        """%message = torch.constant.str "only positive numbers"
           %none = torch.constant.none
           torch.prim.RaiseException %message, %none : !torch.str, !torch.none loc("model.py":41:0)
           return""",
        "",
        "",
    )
    with pytest.raises(RuntimeError, match=r"model.py:41: torch.prim.RaiseException: only positive numbers"):
        run_text(text)


def test_an_error_of_an_op_keeps_its_kind_and_names_op_and_line() -> None:
    text = body(
        f"""%one = torch.constant.int 1
           %0 = torch.aten.select.int %x, %one, %i : {F23}, !torch.int, !torch.int
                -> !torch.vtensor<[2],f32> loc("net.py":7:0)
           return %0 : !torch.vtensor<[2],f32>""",
        f"%x: {F23}, %i: !torch.int",
        "!torch.vtensor<[2],f32>",
    )
    x = torch.randn(2, 3)
    assert torch.equal(run_text(text, x, 2)[0], x[:, 2])
    with pytest.raises(IndexError, match=r"net.py:7: torch.aten.select.int: .*out of range.*\n.*reference interpreter"):
        run_text(text, x, 3)


def test_state_results_are_returned_and_not_written() -> None:
    text = f"""
    func.func @main(%x: {F23}) -> ({F23}, {F23}) attributes {{torch_tvm.writes = [0]}} {{
      %0 = torch.aten.neg %x : {F23} -> {F23}
      %1 = torch.aten.abs %x : {F23} -> {F23}
      return %0, %1 : {F23}, {F23}
    }}"""
    x = torch.randn(2, 3)
    before = x.clone()
    first, second = run_text(text, x)
    assert torch.equal(first, -before) and torch.equal(second, before.abs()) and torch.equal(x, before)


def test_symbolic_sizes_and_casts_are_looked_through() -> None:
    text = body(
        f"""%s = torch.symbolic_int "s0" {{min_val = 2, max_val = 10}} : !torch.int
           torch.bind_symbolic_shape %x, [%s], affine_map<()[s0] -> (s0, 3)> : !torch.vtensor<[?,3],f32>
           %0 = torch.tensor_static_info_cast %x : !torch.vtensor<[?,3],f32> to {F23}
           %1 = torch.copy.to_tensor %0 : !torch.tensor<[2,3],f32>
           %one = torch.constant.int 1
           %2 = torch.aten.add_.Tensor %1, %1, %one
                : !torch.tensor<[2,3],f32>, !torch.tensor<[2,3],f32>, !torch.int -> !torch.tensor<[2,3],f32>
           %3 = torch.copy.to_vtensor %1 : {F23}
           %4 = torch.derefine %3 : {F23} to !torch.optional<vtensor<[2,3],f32>>
           return %4 : !torch.optional<vtensor<[2,3],f32>>""",
        "%x: !torch.vtensor<[?,3],f32>",
        "!torch.optional<vtensor<[2,3],f32>>",
    )
    x = torch.randn(2, 3)
    before = x.clone()
    assert torch.equal(run_text(text, x)[0], 2 * before)
    assert torch.equal(x, before), "the copy must keep the argument from being changed"


def test_reified_shape_calculations_run_their_body() -> None:
    module = parse(
        body(
            f"%0 = torch.aten.tanh %x : {F23} -> !torch.vtensor\n return %0 : !torch.vtensor",
            f"%x: {F23}",
            "!torch.vtensor",
        )
    )
    PassManager.parse("builtin.module(torch-reify-shape-calculations)", module.mlir.context).run(module.mlir.operation)
    assert "torch.shape.calculate" in str(module)
    x = torch.randn(2, 3)
    assert torch.equal(module.run([x])[0], x.tanh())


def test_operator_names_resolve_with_and_without_prefix() -> None:
    for name in ("torch.aten.add.Tensor", "aten.add.Tensor"):
        text = body(
            f"""%two = torch.constant.int 2
                %0 = torch.operator "{name}"(%x, %x, %two) : ({F23}, {F23}, !torch.int) -> {F23}
                return %0 : {F23}""",
            f"%x: {F23}",
            F23,
        )
        x = torch.randn(2, 3)
        assert torch.equal(run_text(text, x)[0], torch.add(x, x, alpha=2))


def test_unknown_operator_is_refused_with_its_line() -> None:
    text = body(f'%0 = torch.operator "nowhere.op"(%x) : ({F23}) -> {F23}\n return %0 : {F23}', f"%x: {F23}", F23)
    with pytest.raises(UnsupportedOp, match=r"torch.nowhere.op: this PyTorch has no such operator"):
        run_text(text, torch.randn(2, 3))


def test_wrong_argument_count() -> None:
    text = body(f"return %x : {F23}", f"%x: {F23}", F23)
    with pytest.raises(InvalidInput, match=r"@main: expected 1 flat arguments, got 2"):
        run_text(text, 1, 2)


SCALAR_OPS: list[tuple[str, tuple[Any, ...], Any]] = [
    ("aten.add.int", (2, 3), 5),
    ("aten.floordiv.int", (-7, 2), -4),
    ("aten.remainder.int", (-7, 3), 2),
    ("aten.div.int", (7, 2), 3.5),
    ("aten.div", (7, 2), 3.5),
    ("aten.eq.int", (1, 1), True),
    ("aten.__and__.bool", (True, False), False),
    ("aten.__not__", (False,), True),
    ("aten.__is__", (None, None), True),
    ("aten.__isnot__", (1, None), True),
    ("aten.Int.Tensor", (torch.tensor(3),), 3),
    ("aten.Float.Tensor", (torch.tensor(1.5),), 1.5),
    ("aten.Bool.Tensor", (torch.tensor(True),), True),
    ("aten.Int.float", (3.9,), 3),
    ("aten.ScalarImplicit", (torch.tensor(3),), 3),
    ("aten.size.int", (torch.empty(4, 5), 1), 5),
    ("aten.size", (torch.empty(4, 5),), [4, 5]),
    ("aten.dim", (torch.empty(4, 5),), 2),
    ("aten.numel", (torch.empty(4, 5),), 20),
    ("aten.len.Tensor", (torch.empty(4, 5),), 4),
    ("aten.ceil.float", (1.2,), 2),
    ("aten.sqrt.int", (9,), 3.0),
    ("aten.neg.int", (3,), -3),
    ("aten.slice.t", ([1, 2, 3], None, None, 2), [1, 3]),
    ("aten.add.t", ([1], [2]), [1, 2]),
    ("aten.__contains__.str_list", (["a"], "a"), True),
    ("aten.__contains__.int_list", ([1], 2), False),
    ("aten.eq.str", ("a", "a"), True),
    ("aten.eq.int_list", ([1], [1]), True),
    ("aten.format", ("{}-{}", 1, "x"), "1-x"),
    ("prim.max.int", (2, 3), 3),
    ("prim.min.self_int", ([4, 2],), 2),
    ("prim.dtype", (torch.empty(1),), 6),
]


@pytest.mark.parametrize(("name", "operands", "expected"), SCALAR_OPS, ids=[row[0] for row in SCALAR_OPS])
def test_op_on_python_values(name: str, operands: tuple[Any, ...], expected: Any) -> None:
    (value,) = run_op(f"torch.{name}", operands)
    assert value == expected and type(value) is type(expected)


def test_ops_make_tensors_of_python_values() -> None:
    (number,) = run_op("torch.prim.NumToTensor.Scalar", [3])
    assert number.dtype == torch.int64 and number.item() == 3
    (made,) = run_op("torch.aten.tensor", [[[1, 2], [3, 4]], 6, None, False])
    assert torch.equal(made, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    (zeros,) = run_op("torch.aten.zeros", [[2, 0], 7, 0, torch.device("cpu"), False])
    assert zeros.dtype == torch.float64 and zeros.shape == (2, 0)


def test_keyword_only_operands_arrive_by_position() -> None:
    x = torch.randn(3, 5)
    (cast,) = run_op("torch.aten._to_copy", [x, 15, None, None, None, False, None])
    assert cast.dtype == torch.bfloat16
    (total,) = run_op("aten.sum.dim_IntList", [x, [1], True, 7])
    assert torch.equal(total, x.sum(1, True, dtype=torch.float64))


def test_several_results_come_as_a_list() -> None:
    x = torch.randn(4, 3)
    values, indices = run_op("torch.aten.max.dim", [x, 1, False])
    assert torch.equal(values, x.max(1).values) and torch.equal(indices, x.max(1).indices)


def test_a_list_result_is_one_result() -> None:
    (pieces,) = run_op("torch.aten.split.Tensor", [torch.arange(5), 2, 0])
    assert [piece.tolist() for piece in pieces] == [[0, 1], [2, 3], [4]]


def test_views_are_not_copied() -> None:
    x = torch.randn(4, 3)
    (view,) = run_op("torch.aten.view", [x, [3, 4]])
    assert view.data_ptr() == x.data_ptr()


def test_a_custom_op_runs_under_its_own_name() -> None:
    library = torch.library.Library("torch_tvm_test", "DEF")
    library.define("twice(Tensor x, *, int plus) -> (Tensor, Tensor)")
    library.impl("twice", lambda x, *, plus: (2 * x + plus, x), "CPU")
    x = torch.randn(3)
    first, second = callable_for("torch.torch_tvm_test.twice")(x, 1)
    assert torch.equal(first, 2 * x + 1) and torch.equal(second, x)


def test_as_strided_addresses_elements_in_their_order() -> None:
    x = torch.arange(12.0).reshape(3, 4)
    for given in (x.t(), x[1:], x):
        (found,) = run_op("torch.aten.as_strided", [given, [2, 2], [3, 1], 1])
        assert torch.equal(found, given.contiguous().clone().as_strided((2, 2), (3, 1), 1))


def test_integers_to_the_power_of_a_whole_float_are_floats() -> None:
    """torch-mlir makes 2.0 an integer."""
    x = torch.arange(1, 5)
    for power in (2.0, -1.0):
        module = torch_tvm.import_fx(lambda x, power=power: x**power, (x,))
        torch.testing.assert_close(module(x), x**power)
