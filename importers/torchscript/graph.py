"""TorchScript graphs decoded once into instructions, so that evaluating them again costs little."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch

from torch_tvm.aten.calls import overload_of
from torch_tvm.importers.torchscript.values import FunctionValue
from torch_tvm.importers.user_code import is_users

SCRIPT_PLACE = re.compile(r'File "([^"]+)", line (\d+)')
_TRACE_PLACE = re.compile(r"^(.+?)\((\d+)\): ", re.M)


class Instruction:
    """One node: ``kind`` and ``overload`` name it, ``inputs`` and ``outputs`` are value numbers."""

    __slots__ = (
        "_place",
        "blocks",
        "constant",
        "handler",
        "inputs",
        "kind",
        "name",
        "node",
        "outputs",
        "overload",
        "qualified",
    )

    def __init__(self, node: torch._C.Node, blocks: list[Code]) -> None:
        self.node = node
        self.kind = node.kind()
        self.inputs = tuple(value.unique() for value in node.inputs())
        self.outputs = tuple(value.unique() for value in node.outputs())
        self.blocks = blocks
        self.name = node.s("name") if node.hasAttribute("name") and node.kindOf("name") == "s" else ""
        self.constant: Any = _constant(node) if self.kind == "prim::Constant" else None
        if isinstance(self.constant, torch.Tensor):
            own = node.output().debugName()
            self.name = "" if own.isdigit() else own.removeprefix("self.")
        self.overload: torch._ops.OpOverload | None = None
        self.qualified = self.kind
        if not self.kind.startswith("prim::") or _has_overload(node):
            self.qualified, self.overload = _schema_of(node)
        self._place: tuple[str, int] | None = None
        self.handler: Any = None

    @property
    def place(self) -> tuple[str, int]:
        """File and line, ``("", 0)`` when unknown; for a trace the innermost frame outside torch."""
        if self._place is None:
            self._place = _noted(self.node) if self.node.hasAttribute("source") else _place_of(self.node)
        return self._place

    @property
    def input_type(self) -> Any:
        """The type of the first operand."""
        return self.node.inputsAt(0).type()

    @property
    def output_type(self) -> Any:
        """The type of the first result."""
        return self.node.outputsAt(0).type()


def _place_of(node: Any) -> tuple[str, int]:
    try:
        return _place(node.sourceRange())
    except RuntimeError:  # a file whose program is sound and whose record of source lines is not
        return "", 0


class Code:
    """A block: its parameters, instructions and returned values. ``size`` counts nested instructions too."""

    __slots__ = ("instructions", "keep", "parameters", "returns", "size")

    def __init__(self, block: Any, keep: Any = None) -> None:
        self.parameters = tuple(value.unique() for value in block.inputs())
        self.instructions = [_decode(node) for node in block.nodes()]
        self.returns = tuple(value.unique() for value in block.outputs())
        self.size: int = sum(1 + sum(inner.size for inner in i.blocks) for i in self.instructions)
        self.keep = keep if keep is not None else block


def _decode(node: torch._C.Node) -> Instruction:
    blocks = [Code(block) for block in node.blocks()]
    return Instruction(node, blocks)


def _constant(node: torch._C.Node) -> Any:
    value = node.output()
    if value.type().kind() == "FunctionType":
        return FunctionValue(node.s("name"), value.type())
    if not node.hasAttribute("value"):
        return None
    return value.toIValue()


def _has_overload(node: torch._C.Node) -> bool:
    return node.schema() != "(no schema)"


@lru_cache(maxsize=8192)
def _resolve(schema: str) -> tuple[str, torch._ops.OpOverload | None]:
    qualified = schema.split("(", 1)[0]
    return qualified, overload_of(qualified)


def _schema_of(node: torch._C.Node) -> tuple[str, torch._ops.OpOverload | None]:
    if not _has_overload(node):
        return node.kind(), None
    try:
        return _resolve(node.schema())
    except (AttributeError, RuntimeError):
        return node.kind(), None


def _noted(node: torch._C.Node) -> tuple[str, int]:
    """The place in a node's own ``source`` attribute, ``file:line``."""
    file, _, line = node.s("source").rpartition(":")
    return (file, int(line)) if file and line.isdigit() else ("", 0)


@lru_cache(maxsize=16384)
def _place(text: str) -> tuple[str, int]:
    script = SCRIPT_PLACE.search(text)
    if script is not None:
        return script.group(1), int(script.group(2))
    frames = [(file.strip(), int(line)) for file, line in _TRACE_PLACE.findall(text)]
    own = [frame for frame in frames if is_users(frame[0])]
    return (own or frames or [("", 0)])[0]


def nodes_of(block: Any) -> Iterator[Any]:
    """The nodes of a graph or a block, each before those of its own blocks."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes_of(inner)


def of_graph(graph: Any) -> Code:
    return Code(graph, graph)


def of_call(kind: str, name: str, types: Sequence[Any], result: Any) -> Code:
    """The body of a function or of a script class's method, obtained by inlining a call of it."""
    graph = torch._C.Graph()
    inputs = []
    for each in types:
        value = graph.addInput()
        value.setType(each)
        inputs.append(value)
    if kind == "prim::CallFunction":
        function = graph.create("prim::Constant", [], 1)
        function.s_("name", name)
        function.output().setType(types[0])
        graph.appendNode(function)
        inputs[0] = function.output()
    call = graph.create(kind, inputs, 1)
    if kind == "prim::CallMethod":
        call.s_("name", name)
    call.output().setType(result)
    graph.appendNode(call)
    graph.registerOutput(call.output())
    torch._C._jit_pass_inline(graph)
    return Code(graph, graph)
