"""``prim::`` nodes: constants, containers, objects, calls, type tests and errors."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch

from torch_tvm.dialect.types import SCALAR_TYPE
from torch_tvm.importers.recording.storages import TensorRef
from torch_tvm.importers.torchscript import control_flow, graph
from torch_tvm.importers.torchscript.evaluator import Env, Evaluator
from torch_tvm.importers.torchscript.graph import Instruction
from torch_tvm.importers.torchscript.handlers import tensors
from torch_tvm.importers.torchscript.handlers.registry import handles
from torch_tvm.importers.torchscript.values import (
    UNINITIALIZED,
    DictValue,
    FunctionValue,
    FutureValue,
    ListValue,
    Maybe,
    ObjectValue,
    Scalar,
    kind_of,
    tuple_class,
)
from torch_tvm.importers.tracing.mask_questions import asks_of_mask, is_encoder


def constant(ev: Evaluator, value: Any, name: str = "") -> Any:
    """A constant of the graph as a value; containers are fresh each time. ``name`` is a tensor's."""
    if value is None or isinstance(value, (bool, int, float, str, FunctionValue)):
        return value
    if isinstance(value, torch.Tensor) and value.layout == torch.strided:
        are_sizes = value.dtype == torch.int64 and value.dim() == 1 and value.numel() <= tensors.KNOWN_ELEMENTS
        if value.numel() <= 1 or are_sizes:
            return tensors.known_tensor(ev, value)
    return ev.objects.value(value, name or "constant")


def wrap(result: Any) -> Any:
    """A folded Python result as a value."""
    if isinstance(result, list):
        return ListValue([wrap(item) for item in result])
    return SCALAR_TYPE[result] if isinstance(result, torch.dtype) else result


def unwrap(ev: Evaluator, value: Any) -> Any:
    """A value as a plain Python one, for folding."""
    if isinstance(value, ListValue):
        return [unwrap(ev, item) for item in ev.items(value)]
    return value


def control(ev: Evaluator, instruction: Instruction, env: Env) -> None:
    """``prim::If`` and ``prim::Loop``, whose blocks share the environment."""
    if instruction.kind == "prim::If":
        control_flow.run_if(ev, instruction, env)
    else:
        control_flow.run_loop(ev, instruction, env)


@handles("prim::Uninitialized")
def _uninitialized(ev: Evaluator, args: list[Any]) -> Any:
    return UNINITIALIZED


@handles("prim::ListConstruct")
def _list(ev: Evaluator, args: list[Any]) -> ListValue:
    return ListValue(args, ev.instruction.output_type)


@handles("prim::ListUnpack")
def _unpack_list(ev: Evaluator, args: list[Any]) -> Any:
    items = ev.items(args[0])
    if len(items) != len(ev.instruction.outputs):
        raise ev.certain(
            f"RuntimeError: expected {len(ev.instruction.outputs)} elements in a list but found {len(items)}"
        )
    return items[0] if len(items) == 1 else items


@handles("prim::TupleConstruct", "prim::NamedTupleConstruct")
def _tuple(ev: Evaluator, args: list[Any]) -> tuple[Any, ...]:
    own = ev.instruction.output_type
    named = tuple_class(own.str(), own.annotation_str)
    return named(*args) if named is not None else tuple(args)


@handles("prim::TupleUnpack")
def _unpack_tuple(ev: Evaluator, args: list[Any]) -> Any:
    return args[0][0] if len(args[0]) == 1 else args[0]


@handles("prim::TupleIndex")
def _tuple_index(ev: Evaluator, args: list[Any]) -> Any:
    if isinstance(args[1], Scalar):
        raise ev.failure("a tuple index must be known at import", origin=args[1].origin)
    return args[0][args[1]]


@handles("prim::TupleSlice")
def _tuple_slice(ev: Evaluator, args: list[Any]) -> Any:
    return tuple(args[0][ev.instruction.node.i("beg") : ev.instruction.node.i("end")])


@handles("prim::DictConstruct")
def _dict(ev: Evaluator, args: list[Any]) -> DictValue:
    keys = args[::2]
    if any(isinstance(key, (Scalar, TensorRef)) for key in keys):
        raise ev.failure("a dict key must be known at import")
    return DictValue(dict(zip(keys, args[1::2], strict=True)), ev.instruction.output_type)


# -- objects -----------------------------------------------------------------------------------------------


@handles("prim::CreateObject")
def _create(ev: Evaluator, args: list[Any]) -> ObjectValue:
    return ObjectValue(ev.instruction.output_type)


@handles("prim::GetAttr")
def _get_attribute(ev: Evaluator, args: list[Any]) -> Any:
    if isinstance(args[0], ObjectValue):
        return ev.objects.get(args[0], ev.instruction.name, ev.instruction.output_type)
    return getattr(args[0], ev.instruction.name)


@handles("prim::SetAttr")
def _set_attribute(ev: Evaluator, args: list[Any]) -> None:
    ev.objects.set(args[0], ev.instruction.name, args[1])


@handles("prim::CallMethod")
def _call_method(ev: Evaluator, args: list[Any]) -> Any:
    target = args[0]
    types = [value.type() for value in ev.instruction.node.inputs()]
    code = ev.objects.method(target, ev.instruction.name, types, ev.instruction.output_type)
    path = target.path if target.source is not None else None
    if is_encoder(str(types[0])) and args[2] is None and args[3] is not None:
        return _call_encoder(ev, code, args, path)
    return ev.call(code, args, path)


def _call_encoder(ev: Evaluator, code: graph.Code, args: list[Any], path: str | None) -> Any:
    """An encoder with a padding mask: without gradients it packs its sequences, and padding becomes zeros."""
    before, ev.grad_enabled = ev.grad_enabled, torch.is_grad_enabled()
    try:
        return ev.call(code, args, path)
    finally:
        ev.grad_enabled = before


# Scripting drops the call in these that scales rows longer than ``max_norm``: see the test of LimitedEmbedding.
_LOOKUPS = ("torch.nn.functional.embedding", "torch.nn.functional.embedding_bag")


def _renormalise(ev: Evaluator, args: list[Any]) -> None:
    _, indices, weight, _, max_norm, norm_type, *_ = args
    tensors.call(ev, torch.ops.aten.embedding_renorm_.default, [weight, indices, max_norm, norm_type])


@handles("prim::CallFunction")
def _call_function(ev: Evaluator, args: list[Any]) -> Any:
    if asks_of_mask(str(args[0].type)) and args[2] is None:
        return False
    if str(args[0].type).removeprefix("__torch__.") in _LOOKUPS and args[4] is not None:
        _renormalise(ev, args)
    types = [value.type() for value in ev.instruction.node.inputs()]
    code = ev.objects.function(args[0].name, [args[0].type, *types[1:]], ev.instruction.output_type)
    return ev.call(code, args)


@handles("prim::fork", "prim::awaitable")
def _fork(ev: Evaluator, args: list[Any]) -> FutureValue:
    code = graph.of_graph(ev.instruction.node.g("Subgraph"))
    return FutureValue(ev.call(code, args))


@handles("aten::wait", "prim::awaitable_wait")
def _wait(ev: Evaluator, args: list[Any]) -> Any:
    return args[0].value


@handles("prim::Enter")
def _enter(ev: Evaluator, args: list[Any]) -> Any:
    code = ev.objects.method(args[0], "__enter__", [ev.instruction.input_type], ev.instruction.output_type)
    return ev.call(code, args)


@handles("prim::Exit")
def _exit(ev: Evaluator, args: list[Any]) -> Any:
    target = args[0]
    if "no_grad" in str(target.type) or "enable_grad" in str(target.type):
        ev.grad_enabled = bool(target.attributes.get("prev", True))
        return None
    nothing = torch._C.NoneType.get()
    code = ev.objects.method(
        target, "__exit__", [ev.instruction.input_type, nothing, nothing, nothing], ev.instruction.output_type
    )
    return ev.call(code, [target, None, None, None])


# -- types -------------------------------------------------------------------------------------------------


@handles("prim::isinstance")
def _isinstance(ev: Evaluator, args: list[Any]) -> bool:
    own = ev.instruction.input_type
    if isinstance(args[0], Maybe):
        return _isinstance_of_maybe(ev, args[0])
    return any(_matches(args[0], own, wanted) for wanted in ev.instruction.node.tys("types"))


def _isinstance_of_maybe(ev: Evaluator, maybe: Maybe) -> Any:
    own, wanted = ev.instruction.input_type, ev.instruction.node.tys("types")
    if_none = any(_matches(None, own, each) for each in wanted)
    if_set = any(_matches(maybe.value, own, each) for each in wanted)
    if if_none == if_set:
        return if_set
    return maybe.flag if if_set else ev.scalars.negate(maybe.flag)


def _matches(value: Any, own: Any, wanted: Any) -> bool:
    kind = wanted.kind()
    if kind == "OptionalType":
        return value is None or _matches(value, own, wanted.getElementType())
    if kind == "UnionType":
        return any(_matches(value, own, member) for member in wanted.containedTypes())
    simple = {
        "NoneType": value is None,
        "TensorType": isinstance(value, TensorRef),
        "IntType": kind_of(value) == "int",
        "FloatType": kind_of(value) == "float",
        "BoolType": kind_of(value) == "bool",
        "StringType": isinstance(value, str),
        "EnumType": isinstance(value, Enum),
        "AnyListType": isinstance(value, ListValue),
        "AnyTupleType": isinstance(value, tuple),
    }
    if kind in simple:
        return simple[kind]
    if kind == "NumberType":
        return kind_of(value) is not None
    if kind == "TupleType":
        members = wanted.containedTypes()
        return (
            isinstance(value, tuple)
            and len(value) == len(members)
            and all(_matches(v, m, m) for v, m in zip(value, members, strict=True))
        )
    return _matches_container(value, own, wanted, kind)


def _matches_container(value: Any, own: Any, wanted: Any, kind: str) -> bool:
    expected: dict[str, Any] = {
        "ListType": ListValue,
        "DictType": DictValue,
        "ClassType": ObjectValue,
        "InterfaceType": ObjectValue,
    }
    if kind not in expected or not isinstance(value, expected[kind]):
        return False
    if value.type is not None:
        return value.type.isSubtypeOf(wanted)
    return own.isSubtypeOf(wanted) or own.kind() in ("AnyType", "OptionalType", "UnionType")


@handles("prim::data")
def _data(ev: Evaluator, args: list[Any]) -> Any:
    return tensors.call(ev, torch.ops.aten.detach.default, args)


@handles(
    "prim::unchecked_cast",
    "prim::unchecked_unwrap_optional",
    "prim::annotate",
    "prim::profile",
    "prim::profile_ivalue",
)
def _same(ev: Evaluator, args: list[Any]) -> Any:
    is_refined = isinstance(args[0], Maybe) and ev.instruction.output_type.kind() != "OptionalType"
    return args[0].value if is_refined else args[0]


@handles("aten::_unwrap_optional")
def _unwrap_optional(ev: Evaluator, args: list[Any]) -> Any:
    if args[0] is None:
        raise ev.certain("RuntimeError: Unwrapping null optional")
    if isinstance(args[0], Maybe):
        control_flow.assert_that(ev, args[0].flag, "RuntimeError: Unwrapping null optional")
        return args[0].value
    return args[0]


@handles("aten::__is__")
def _is(ev: Evaluator, args: list[Any]) -> Any:
    for maybe, other in (args, args[::-1]):
        if isinstance(maybe, Maybe) and other is None:
            return ev.scalars.negate(maybe.flag)
    return args[0] is args[1] or (args[0] is None and args[1] is None)


@handles("aten::__isnot__")
def _is_not(ev: Evaluator, args: list[Any]) -> Any:
    for maybe, other in (args, args[::-1]):
        if isinstance(maybe, Maybe) and other is None:
            return maybe.flag
    return not _is(ev, args)


@handles("prim::ImplicitTensorToNum")
def _number(ev: Evaluator, args: list[Any]) -> Any:
    kind = {"IntType": "int", "FloatType": "float", "BoolType": "bool"}.get(ev.instruction.output_type.kind())
    return tensors.element(ev, args[0], kind)


@handles("prim::EnumName")
def _enum_name(ev: Evaluator, args: list[Any]) -> str:
    return args[0].name


@handles("prim::EnumValue")
def _enum_value(ev: Evaluator, args: list[Any]) -> Any:
    return ev.objects.value(args[0].value, "constant")


@handles("prim::device")
def _device(ev: Evaluator, args: list[Any]) -> Any:
    return args[0].meta.device


# -- errors and effects ------------------------------------------------------------------------------------


@handles("prim::RaiseException")
def _raise(ev: Evaluator, args: list[Any]) -> Any:
    message = str(args[0])
    name = args[1].split(".")[-1] if len(args) > 1 and isinstance(args[1], str) else ""
    if name and not message.startswith(name):
        message = f"{name}: {message}"
    raise ev.certain(message)


@handles("aten::_assert_async")
def _assert_async(ev: Evaluator, args: list[Any]) -> None:
    """``aten::_assert_async(Tensor self)`` and ``.msg(Tensor self, str assert_msg)``."""
    condition = tensors.element(ev, args[0], "bool")
    if condition is not True:
        control_flow.assert_that(ev, condition, str(args[1]) if len(args) > 1 else "an assertion failed")


@handles("prim::Print")
def _print(ev: Evaluator, args: list[Any]) -> None:
    return None


@handles("prim::PythonOp")
def _python(ev: Evaluator, args: list[Any]) -> Any:
    raise ev.failure(
        f"this calls Python ('{ev.instruction.node.pyname() or 'a function'}'), which is no TorchScript",
        advice="remove torch.jit.ignore from the function, or call it outside the compiled program",
    )
