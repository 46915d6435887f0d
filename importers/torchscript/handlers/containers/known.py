"""Lists, dicts and strings of the program: evaluated at import, whatever their elements are.

A list whose length is only known at run time (it grew inside a run-time loop or branch) is a stacked tensor.
"""

from __future__ import annotations

from typing import Any

import torch

from torch_tvm.aten.dtypes import SCALAR_DTYPE
from torch_tvm.importers.recording.storages import TensorRef
from torch_tvm.importers.torchscript.evaluator import Evaluator, Handler
from torch_tvm.importers.torchscript.handlers import tensors
from torch_tvm.importers.torchscript.handlers.registry import handles
from torch_tvm.importers.torchscript.values import (
    ListValue,
    Scalar,
    Stack,
    is_number,
    kind_of,
    origins,
)

aten = torch.ops.aten


def _bounds(ev: Evaluator, *numbers: Any) -> None:
    for number in numbers:
        if isinstance(number, Scalar):
            raise ev.failure("a list bound must be known at import", origin=number.origin)


def _same(ev: Evaluator, a: Any, b: Any) -> Any:
    """Equality of two TorchScript values, as a known or run-time bool."""
    if is_number(a) and is_number(b):
        if isinstance(a, Scalar) or isinstance(b, Scalar):
            return ev.scalars.binary("eq", a, b)
        return a == b
    if isinstance(a, TensorRef) and isinstance(b, TensorRef):
        return tensors.element(ev, tensors.call(ev, aten.eq.Tensor, [a, b]), "bool")
    if isinstance(a, (tuple, ListValue)) and isinstance(b, (tuple, ListValue)):
        return _same_items(ev, _sequence(ev, a), _sequence(ev, b))
    return a == b


def _sequence(ev: Evaluator, value: Any) -> list[Any]:
    return ev.items(value) if isinstance(value, ListValue) else list(value)


def _same_items(ev: Evaluator, a: list[Any], b: list[Any]) -> Any:
    if len(a) != len(b):
        return False
    result: Any = True
    for x, y in zip(a, b, strict=True):
        result = _and(ev, result, _same(ev, x, y))
        if result is False:
            return False
    return result


def _and(ev: Evaluator, a: Any, b: Any) -> Any:
    if isinstance(a, Scalar) and isinstance(b, Scalar):
        return ev.scalars.binary("and", a, b)
    return (b if a else False) if not isinstance(a, Scalar) else (a if b else False)


# -- lists -------------------------------------------------------------------------------------------------


@handles("aten::len.t", "aten::len.any")
def _len(ev: Evaluator, args: list[Any]) -> Any:
    return ev.containers.length(args[0])


@handles("aten::__getitem__.t", "aten::select.t")
def _getitem(ev: Evaluator, args: list[Any]) -> Any:
    return ev.containers.get(*args)


@handles("aten::append.t")
def _append(ev: Evaluator, args: list[Any]) -> Any:
    ev.containers.append(*args)
    return args[0]


@handles("aten::extend.t")
def _extend(ev: Evaluator, args: list[Any]) -> None:
    for item in list(ev.items(args[1])):
        ev.containers.append(args[0], item)


@handles("aten::_set_item.t")
def _set_item(ev: Evaluator, args: list[Any]) -> Any:
    target, index, item = args
    ev.touch(target)
    if isinstance(index, Scalar) or isinstance(target.items, Stack):
        _set_stacked(ev, target, index, item)
        return target
    if not -len(target.items) <= index < len(target.items):
        raise ev.certain("IndexError: list index out of range")
    target.items = list(target.items)
    target.items[index] = item
    return target


def _set_stacked(ev: Evaluator, target: ListValue, index: Any, item: Any) -> None:
    """Write at a run-time index: through the stacked tensor; a list of known length is unstacked again."""
    stack = target.items
    count = None
    if not isinstance(stack, Stack):
        count = len(stack)
        kind = "tensor" if isinstance(item, TensorRef) else kind_of(item)
        if kind is None or not count:
            raise ev.failure("a list index must be known at import here", origin=origins(index))
        stack = tensors.stack_of(ev, stack, kind)
    position = tensors.scalar_tensor(ev, index)
    row = item if stack.kind == "tensor" else tensors.scalar_tensor(ev, item)
    updated = tensors.call(ev, aten.index_put.default, [stack.tensor, ListValue([position]), row, False])
    if count is None:
        target.items = Stack(stack.kind, updated)
        return
    rows = [tensors.call(ev, aten.select.int, [updated, 0, i]) for i in range(count)]
    target.items = rows if stack.kind == "tensor" else [tensors.element(ev, row, stack.kind) for row in rows]


@handles("aten::insert.t")
def _insert(ev: Evaluator, args: list[Any]) -> None:
    _bounds(ev, args[1])
    ev.touch(args[0])
    items = list(ev.items(args[0]))
    items.insert(args[1], args[2])
    args[0].items = items


@handles("aten::pop.t")
def _pop(ev: Evaluator, args: list[Any]) -> Any:
    target, index = args[0], args[1] if len(args) > 1 else -1
    _bounds(ev, index)
    ev.touch(target)
    if isinstance(target.items, Stack):
        if index not in (0, -1):
            raise ev.failure("only the first or last element of a list of run-time length can be popped")
        item = ev.containers.get(target, index)
        start, end = (1, None) if index == 0 else (0, -1)
        rest = tensors.call(ev, aten.slice.Tensor, [target.items.tensor, 0, start, end, 1])
        target.items = Stack(target.items.kind, rest)
        return item
    items = list(target.items)
    if not -len(items) <= index < len(items):
        raise ev.certain("IndexError: pop from empty list")
    item = items.pop(index)
    target.items = items
    return item


@handles("aten::clear.t")
def _clear(ev: Evaluator, args: list[Any]) -> None:
    ev.touch(args[0])
    args[0].items = []


@handles("aten::reverse.t")
def _reverse(ev: Evaluator, args: list[Any]) -> None:
    ev.touch(args[0])
    if isinstance(args[0].items, Stack):
        stack = args[0].items
        args[0].items = Stack(stack.kind, tensors.call(ev, aten.flip.default, [stack.tensor, ListValue([0])]))
        return
    args[0].items = list(args[0].items)[::-1]


@handles("aten::copy.t", "aten::list.t")
def _copy(ev: Evaluator, args: list[Any]) -> ListValue:
    items = args[0].items
    return ListValue(items if isinstance(items, Stack) else list(items), args[0].type)


@handles("aten::list")
def _list_of_text(ev: Evaluator, args: list[Any]) -> ListValue:
    return ListValue(list(args[0]))


@handles("aten::slice.t")
def _slice(ev: Evaluator, args: list[Any]) -> ListValue:
    source, start, end, step = args
    if isinstance(source.items, Stack):
        ref = tensors.call(ev, aten.slice.Tensor, [source.items.tensor, 0, start, end, step])
        return ListValue(Stack(source.items.kind, ref), source.type)
    _bounds(ev, start, end, step)
    return ListValue(list(source.items)[start:end:step], source.type)


@handles("aten::add.t")
def _concatenate(ev: Evaluator, args: list[Any]) -> ListValue:
    return ListValue([*ev.items(args[0]), *ev.items(args[1])], args[0].type)


@handles("aten::add_.t")
def _extend_in_place(ev: Evaluator, args: list[Any]) -> ListValue:
    _extend(ev, args)
    return args[0]


@handles("aten::mul.left_t", "aten::mul.right_")
def _repeat(ev: Evaluator, args: list[Any]) -> ListValue:
    source, count = args if isinstance(args[0], ListValue) else args[::-1]
    items = ev.items(source)
    if isinstance(count, Scalar) and len(items) == 1 and not isinstance(items[0], Scalar):
        kind = kind_of(items[0])
        if kind is not None:
            dtype = SCALAR_DTYPE[kind]
            full = tensors.call(
                ev, aten.full.default, [ListValue([count]), items[0], dtype, None, torch.device("cpu"), None]
            )
            return ListValue(Stack(kind, full), source.type)
    _bounds(ev, count)
    return ListValue(items * count, source.type)


@handles("aten::mul_.t")
def _repeat_in_place(ev: Evaluator, args: list[Any]) -> ListValue:
    _bounds(ev, args[1])
    ev.touch(args[0])
    args[0].items = ev.items(args[0]) * args[1]
    return args[0]


@handles(
    "aten::__contains__.int_list",
    "aten::__contains__.str_list",
    "aten::__contains__.float_list",
    "aten::__contains__.bool_list",
    "aten::__contains__.enum_list",
)
def _contains(ev: Evaluator, args: list[Any]) -> Any:
    result: Any = False
    for item in ev.items(args[0]):
        found = _same(ev, item, args[1])
        if found is True:
            return True
        if found is not False:
            result = ev.scalars.binary("or", result, found) if isinstance(result, Scalar) else found
    return result


_LISTS = ("int", "float", "bool", "Tensor", "str", "enum")


@handles(*(f"aten::eq.{kind}_list" for kind in _LISTS if kind != "enum"))
def _equal_lists(ev: Evaluator, args: list[Any]) -> Any:
    return _same(ev, *args)


@handles(*(f"aten::ne.{kind}_list" for kind in _LISTS if kind != "enum"))
def _different_lists(ev: Evaluator, args: list[Any]) -> Any:
    return ev.scalars.negate(_same(ev, *args))


@handles("aten::index.list_int", "aten::index.list_float", "aten::index.list_bool", "aten::index.list_str")
def _index(ev: Evaluator, args: list[Any]) -> int:
    items = ev.items(args[0])
    _bounds(ev, *items, args[1])
    if args[1] not in items:
        raise ev.certain(f"ValueError: {args[1]} is not in list")
    return items.index(args[1])


@handles("aten::count.int", "aten::count.float", "aten::count.bool", "aten::count.str")
def _count(ev: Evaluator, args: list[Any]) -> int:
    items = ev.items(args[0])
    _bounds(ev, *items, args[1])
    return items.count(args[1])


@handles("aten::remove.int", "aten::remove.float", "aten::remove.bool", "aten::remove.str")
def _remove(ev: Evaluator, args: list[Any]) -> None:
    position = _index(ev, args)
    ev.touch(args[0])
    args[0].items = [item for i, item in enumerate(args[0].items) if i != position]


@handles("aten::Delete.t")
def _delete(ev: Evaluator, args: list[Any]) -> None:
    _pop(ev, args)


@handles("aten::sort.int", "aten::sort.float", "aten::sort.bool", "aten::sort.str")
def _sort(ev: Evaluator, args: list[Any]) -> None:
    ev.touch(args[0])
    args[0].items = _sorted_items(ev, args)


@handles("aten::sorted.int", "aten::sorted.float", "aten::sorted.bool", "aten::sorted.str")
def _sorted(ev: Evaluator, args: list[Any]) -> ListValue:
    return ListValue(_sorted_items(ev, args), args[0].type)


def _sorted_items(ev: Evaluator, args: list[Any]) -> list[Any]:
    items = ev.items(args[0])
    if not any(isinstance(item, Scalar) for item in items):
        return sorted(items, reverse=bool(args[1]) if len(args) > 1 else False)
    kind = kind_of(items[0]) or "int"
    stack = tensors.stack_of(ev, items, kind)
    ordered = tensors.call(ev, aten.sort.default, [stack.tensor, 0, bool(args[1]) if len(args) > 1 else False])[0]
    rows = [tensors.call(ev, aten.select.int, [ordered, 0, i]) for i in range(len(items))]
    return [tensors.element(ev, row, kind) for row in rows]


def _reduce(name: str) -> Handler:
    def reduce(ev: Evaluator, args: list[Any]) -> Any:
        source = args[0]
        if isinstance(source.items, Stack):
            function = {"add": aten.sum.default, "min": aten.min.default, "max": aten.max.default}[name]
            return tensors.element(ev, tensors.call(ev, function, [source.items.tensor]), source.items.kind)
        items = list(source.items)
        if not items:
            if name == "add":
                return 0
            raise ev.certain(f"ValueError: {name}() arg is an empty sequence")
        result = items[0]
        for item in items[1:]:
            if isinstance(result, Scalar) or isinstance(item, Scalar):
                result = ev.scalars.binary(name, result, item)
            else:
                result = {"add": result + item, "min": min(result, item), "max": max(result, item)}[name]
        return result

    return reduce


handles("aten::sum.int", "aten::sum.float", "aten::sum.bool")(_reduce("add"))
handles("prim::min.self_int", "prim::min.self_float", "prim::min.self_bool")(_reduce("min"))
handles("prim::max.self_int", "prim::max.self_float", "prim::max.self_bool")(_reduce("max"))


def _quantify(is_all: bool) -> Handler:
    def quantify(ev: Evaluator, args: list[Any]) -> Any:
        result: Any = is_all
        for item in ev.items(args[0]):
            truth = ev.scalars.convert(item, "bool")
            if isinstance(truth, Scalar) and isinstance(result, Scalar):
                result = ev.scalars.binary("and" if is_all else "or", result, truth)
            elif isinstance(truth, Scalar):
                result = truth if result is is_all else result
            elif truth is not is_all:
                return not is_all
        return result

    return quantify


handles("aten::all.int", "aten::all.float", "aten::all.bool")(_quantify(True))
handles("aten::any.int", "aten::any.float", "aten::any.bool", "aten::any.str")(_quantify(False))


@handles("prim::rangelist")
def _rangelist(ev: Evaluator, args: list[Any]) -> ListValue:
    _bounds(ev, args[0])
    return ListValue(list(range(args[0])))
