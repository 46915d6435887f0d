"""The pending graph as TorchScript text, put together again: whole ops in their places, arguments in order.

The lazy backend prints a graph whose parameters ``%p0, %p1, …`` are device data. Here each parameter becomes
what it stands for: an argument, a weight, a number, or the result of an op that was noted as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from torch_tvm.aten.calls import overloads_of
from torch_tvm.dialect.types import SCALAR_TYPE
from torch_tvm.importers.lazy.calls import WholeOp
from torch_tvm.support.errors import SourceLocation

_NODE = re.compile(r"\s+(%[\w.]+ : .+?) = (\w+::\w+)(\[.*\])?\((.*)\)$")
_OUTPUT = re.compile(r"(%[\w.]+) : (.+?)(?=, %|$)")
_RETURN = re.compile(r"\s+return \((.*)\)$")
_IMPLICIT = ("aten::ScalarImplicit", "aten::IntImplicit", "aten::FloatImplicit")
_RANK_0 = re.compile(r"\[value=\{([^}]*)\}")
_NUMBER_OF = {"Double": float, "Float": float, "Half": float, "BFloat16": float, "Bool": bool}
_VALUE = re.compile(r"%[\w.]+")

# Ops whose second operand may be a number; torch's Python binding made a rank-0 tensor of it.
_TAKES_NUMBER = frozenset(
    f"aten::{stem}"
    for stem in (
        "add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge", "remainder", "fmod", "pow",
        "bitwise_and", "bitwise_or", "bitwise_xor",
    )
)  # fmt: skip


_TAKES_BOUNDS = ("aten::clamp", "aten::clamp_min", "aten::clamp_max", "aten::hardtanh", "aten::threshold")


@dataclass
class Node:
    """One line of a graph: results with types, kind, attributes as text, operands."""

    outputs: list[tuple[str, str]]
    kind: str
    attributes: str
    operands: list[str]

    def __str__(self) -> str:
        results = ", ".join(f"{name} : {kind}" for name, kind in self.outputs)
        given = f"{results} = " if results else ""
        return f"  {given}{self.kind}{self.attributes}({', '.join(self.operands)})"


@dataclass
class GraphText:
    """Nodes, returned values, and typed inputs with what each of them is."""

    nodes: list[Node]
    returns: list[str]
    inputs: list[tuple[str, str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        header = ",\n      ".join(f"{name} : {kind}" for name, kind, _ in self.inputs)
        lines = [f"graph({header}):", *map(str, self.nodes), f"  return ({', '.join(self.returns)})"]
        return "\n".join(lines) + "\n"


def read(text: str) -> tuple[list[Node], list[str]]:
    """The nodes and returned values of what the backend printed."""
    nodes, returns = [], []
    for line in text.splitlines():
        node = _NODE.match(line)
        if node is not None:
            if node.group(2) == "prim::TupleConstruct":
                continue  # beside the results themselves, and of a type that the parser does not know
            outputs = [(name, kind) for name, kind in _OUTPUT.findall(node.group(1))]
            operands = _VALUE.findall(node.group(4))
            nodes.append(Node(outputs, by_value(node.group(2)), node.group(3) or "", operands))
            continue
        end = _RETURN.match(line)
        if end is not None:
            returns = _VALUE.findall(end.group(1))
    types = dict(output for node in nodes for output in node.outputs)
    for item in nodes:
        if item.kind == "aten::reshape" and types.get(item.operands[1]) == "int":
            item.kind = "aten::view_copy"  # as another dtype
    return nodes, returns


def take_constants(nodes: list[Node]) -> tuple[list[Node], dict[str, bool | int | float]]:
    """The rank-0 tensors among the constants as numbers, and the other nodes.

    TorchScript's parser drops the sign of a negative one.
    """
    kept, numbers = [], {}
    for node in nodes:
        found = _RANK_0.match(node.attributes) if node.kind == "prim::Constant" else None
        if found is None:
            kept.append(node)
            continue
        name, kind = node.outputs[0]
        numbers[name] = _NUMBER_OF.get(kind.partition("(")[0], int)(float(found.group(1)))
        if kind.startswith("Long"):
            numbers[name] = int(found.group(1))
    return kept, numbers


@lru_cache(maxsize=4096)
def by_value(kind: str) -> str:
    """The op without storage: ``aten::unfold`` for ``aten::unfold_copy``, ``aten::split`` for its unsafe form."""
    if kind in ("aten::view_copy", "aten::_unsafe_view", "aten::_reshape_copy"):
        return "aten::reshape"
    name = kind.replace("::unsafe_", "::")
    base = name.removesuffix("_copy")
    if base == name or name == "aten::_to_copy":
        return name
    schemas = [overload._schema for overload in overloads_of(base)]
    if not schemas:
        return name
    views = [schema.returns for schema in schemas if not schema.is_mutable]
    return base if any(result.alias_info is not None for results in views for result in results) else name


def place_numbers(
    graph: GraphText, numbers: Mapping[str, bool | int | float | complex], fixed: Callable[[Any], Any]
) -> None:
    """Use rank-0 constants as numbers where their op takes one; ``ScalarImplicit`` of them is the number."""
    scalars: dict[str, str] = {}
    used: set[str] = set()
    kept = []
    for node in graph.nodes:
        if node.kind in _IMPLICIT and node.operands[0] in numbers:
            scalars[node.outputs[0][0]] = node.operands[0]
            continue
        kept.append(node)
        operands = tuple(node.operands)
        for index, operand in enumerate(operands):
            name = scalars.get(operand, operand)
            if name in numbers and (operand in scalars or _is_number_place(node.kind, operands, index, numbers)):
                node.operands[index] = f"%n{name[1:]}"
                used.add(name)
    graph.nodes = kept
    for name in sorted(used):
        value = numbers[name]
        kind = "Scalar" if isinstance(value, bool) else type(value).__name__  # no schema takes a bool for one
        graph.inputs.append((f"%n{name[1:]}", kind, fixed(value)))


def _is_number_place(kind: str, operands: Sequence[str], index: int, numbers: Mapping[str, Any]) -> bool:
    """Whether the constant at ``index`` is a number; of two constants the first is a tensor."""
    if kind in _TAKES_BOUNDS:
        return index >= 1
    if kind not in _TAKES_NUMBER:
        return False
    if kind == "aten::pow":
        return index == 1 or operands[1] not in numbers
    return index == 1 and operands[0] not in numbers


# -- whole ops ---------------------------------------------------------------------------------------------


class WholeOpText:
    """Writes noted ops as nodes; their plain arguments become further inputs."""

    def __init__(self, graph: GraphText, fixed: Callable[[Any], Any]) -> None:
        self.graph = graph
        self.fixed = fixed
        self._count = 0

    def nodes(self, call: WholeOp, value_of: Mapping[int, str], results: Sequence[str]) -> list[Node]:
        """``value_of`` names the tensors among the arguments by identity, ``results`` the op's results."""
        made: list[Node] = []
        schema = call.overload._schema
        operands = []
        for index, argument in enumerate(schema.arguments):
            given = (
                call.args[index] if index < len(call.args) else call.kwargs.get(argument.name, argument.default_value)
            )
            operands.append(self._operand(given, argument, value_of, made))
        attributes = _source(call.place)
        if call.is_list:
            whole = self._name()
            made.append(Node([(whole, "Tensor[]")], by_value(schema.name), attributes, operands))
            made.append(Node([(name, "Tensor") for name in results], "prim::ListUnpack", "", [whole]))
        else:
            outputs = [(name, "Tensor") for name in results]
            is_bit_view = schema.name == "aten::view_copy" and schema.overload_name == "dtype"
            kind = schema.name if is_bit_view else by_value(schema.name)
            made.append(Node(outputs, kind, attributes, operands))
        return made

    def _operand(self, given: Any, argument: Any, value_of: Mapping[int, str], made: list[Node]) -> str:
        if isinstance(given, torch.Tensor):
            return value_of[id(given)]
        if given is None or argument.name in ("device", "layout", "pin_memory", "memory_format"):
            return self._none(made)
        if isinstance(given, (list, tuple)) and any(item is None or isinstance(item, torch.Tensor) for item in given):
            items = [self._operand(item, argument, value_of, made) for item in given]
            is_optional = "Optional" in str(argument.real_type) or any(item is None for item in given)
            kind = "Tensor?[]" if is_optional else "Tensor[]"
            name = self._name()
            made.append(Node([(name, kind)], "prim::ListConstruct", "", items))
            return name
        name = self._name()
        if argument.real_type.kind() == "TensorType" and argument.name == "self":  # ``floor_divide(2, x)``
            number = torch.tensor(given)
            if number.item() != given and given == given:  # refused then where float64 is another result
                number = torch.tensor(given, dtype=torch.float64)
            self.graph.inputs.append((name, "Tensor", self.fixed(number)))
            return name
        value, kind = _plain(given, str(argument.real_type))
        if isinstance(given, bool) and argument.real_type.kind() == "NumberType":
            kind = "Scalar"
        self.graph.inputs.append((name, kind, self.fixed(value)))
        return name

    def _none(self, made: list[Node]) -> str:
        name = self._name()
        made.append(Node([(name, "NoneType")], "prim::Constant", "", []))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"%w{self._count}"


def _plain(value: Any, wanted: str) -> tuple[Any, str]:
    """A plain argument and its TorchScript type."""
    if isinstance(value, torch.dtype):
        return SCALAR_TYPE[value], "int"
    if isinstance(value, (list, tuple)):
        element = "float" if "float" in wanted or any(isinstance(item, float) for item in value) else "int"
        element = "bool" if "bool" in wanted else element
        convert = {"float": float, "int": int, "bool": bool}[element]
        return [convert(item) for item in value], f"{element}[]"
    if isinstance(value, int) and not isinstance(value, bool) and "float" in wanted:
        return float(value), "float"
    if isinstance(value, torch.SymInt):
        return int(value), "int"
    return value, type(value).__name__


def _source(place: SourceLocation) -> str:
    if not place.file or '"' in place.file or "\\" in place.file:
        return ""
    return f'[source="{place.file}:{place.line}"]'


# -- order -------------------------------------------------------------------------------------------------


def in_order(nodes: Iterable[Node], given: Iterable[str]) -> list[Node]:
    """The nodes, each after those whose results it reads."""
    makers = {name: node for node in nodes for name, _ in node.outputs}
    done = set(given)
    ordered: list[Node] = []
    for start in nodes:
        pending = [start]
        while pending:
            node = pending[-1]
            if node.outputs and node.outputs[0][0] in done:
                pending.pop()
                continue
            missing = [makers[name] for name in node.operands if name not in done and name in makers]
            if missing:
                pending += reversed(missing)
                continue
            done.update(name for name, _ in node.outputs)
            ordered.append(node)
            pending.pop()
    return ordered
