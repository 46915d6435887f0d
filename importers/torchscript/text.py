"""TorchScript graphs as text: ``.ts`` files whose tensor inputs have complete types, ``Float(2, 3)``."""

from __future__ import annotations

from typing import Any

import torch

from torch_tvm.dialect.module import TensorSpec, TorchModule
from torch_tvm.importers.torchscript.graph import nodes_of
from torch_tvm.importers.torchscript.profiles import AnyNumber
from torch_tvm.importers.torchscript.program import STAGE, import_graph
from torch_tvm.support.errors import ImportFailed, InvalidInput, first_line

_MODULES = "a graph of a module has no weights: print that of a function, or save the module as a .pt file"
_HERE = "<--- HERE"
_NUMBERS = {"IntType": "int", "FloatType": "float", "BoolType": "bool"}


def read_graph(text: str, source: str = "-") -> TorchModule:
    """Import the text of a graph, as ``str(script.graph)`` prints it when the types of its inputs are complete.

    Numbers among its inputs stay run-time arguments. Raises :class:`ImportFailed` with the line and column of
    malformed text, :class:`InvalidInput` for an input of unknown shape.
    """
    try:
        graph = torch._C.parse_ir(text, parse_tensor_constants=True)
    except RuntimeError as error:
        advice = _MODULES if "__torch__" in text else ""
        raise ImportFailed(_located(str(error), text, source), stage=STAGE, advice=advice) from None
    for node in nodes_of(graph):
        problem = _problem(node)
        if problem:
            raise ImportFailed(_located(f"{problem}\n{node.sourceRange()}", text, source), stage=STAGE)
    inputs = list(graph.inputs())
    examples = [_example(value.type(), value.debugName()) for value in inputs]
    return import_graph(graph, examples, [value.debugName() for value in inputs])


def _example(kind: Any, name: str) -> Any:
    if kind.kind() in _NUMBERS:
        return AnyNumber(_NUMBERS[kind.kind()])
    if kind.kind() == "TensorType" and kind.sizes() is not None and kind.dtype() is not None:
        return TensorSpec(tuple(kind.sizes()), kind.dtype())
    raise InvalidInput(
        f"input '%{name}' of type {kind.annotation_str} has no known shape",
        stage=STAGE,
        advice=f"write its type in full: %{name} : Float(2, 3)",
    )


def _problem(node: Any) -> str:
    """What is wrong with a node that parsed: an op that does not exist, a constant that cannot be read."""
    if node.kind() == "prim::Constant":
        try:
            node.output().toIValue()
        except RuntimeError as error:
            return first_line(error)
    is_op = node.kind().split("::")[0] not in ("prim", "onnx")
    if not is_op or node.schema() != "(no schema)":
        return ""
    overloads = torch._C._jit_get_schemas_for_operator(node.kind())
    if not overloads:
        return f"no such op: {node.kind()}"
    given = ", ".join(value.type().annotation_str for value in node.inputs())
    return f"{node.kind()} does not take ({given})"


def _located(message: str, text: str, source: str) -> str:
    """``source:line:column: problem`` with the line and a caret, from the excerpt in TorchScript's message."""
    lines = message.strip("\n").split("\n")
    problem = next((line.strip().rstrip(":") for line in lines if line.strip()), "malformed text")
    marker = next((index for index, line in enumerate(lines) if _HERE in line), 0)
    if marker == 0:
        return f"{source}: {problem}"
    excerpt, column = lines[marker - 1], len(lines[marker]) - len(lines[marker].lstrip())
    before = [line for line in lines[1:marker] if line.strip()]
    candidates = [number for number, line in enumerate(text.split("\n"), 1) if line == excerpt]
    number = _best(candidates, before, text.split("\n"))
    return f"{source}:{number}:{column + 1}: {problem}\n  {excerpt}\n  {' ' * column}^"


def _best(candidates: list[int], before: list[str], lines: list[str]) -> int:
    """The line number whose preceding lines are those of the excerpt."""
    for number in candidates:
        if lines[max(0, number - len(before)) : number] == before[-number:]:
            return number
    return candidates[0] if candidates else 1
