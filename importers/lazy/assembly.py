"""From pending tensors, noted ops and known data to one graph text with its inputs described."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch

from torch_tvm.importers.lazy import device, graph_text
from torch_tvm.importers.lazy.calls import WholeOp, tensors_of
from torch_tvm.importers.lazy.graph_text import GraphText, Node

_NUMBERS = (torch.int64, torch.float64, torch.bool, torch.complex128)
Inputs = Sequence[tuple[int, Any]]


def assemble(
    roots: Sequence[torch.Tensor],
    calls: Sequence[WholeOp],
    inputs: Inputs,
    weights: Inputs,
    fixed: Callable[[Any], Any],
) -> GraphText:
    """The graph that computes ``roots``.

    ``inputs`` become its first inputs, all of them and in order; ``weights`` follow where they are read: both are
    pairs of a number of device data and what describes the input. Other data are constants of the program,
    described by ``fixed(value)``.
    """
    operands = [item for call in calls for item in tensors_of(call)]
    copies = _copies([*roots, *operands])
    nodes, returned = graph_text.read(device.graph_text(copies)) if copies else ([], [])
    data = device.data_of(copies) if copies else []
    names = {number: f"%p{index}" for index, (number, _) in enumerate(data) if number >= 0}
    graph = GraphText(nodes, returned[: len(roots)])
    graph.nodes, numbers = graph_text.take_constants(graph.nodes)
    lifted = _describe(graph, names, data, calls, (inputs, weights), fixed)
    graph.inputs += [(name, "Tensor", fixed(torch.tensor(value))) for name, value in numbers.items()]
    numbers.update(lifted)
    graph_text.place_numbers(graph, numbers, fixed)
    value_of = {id(item): name for item, name in zip(operands, returned[len(roots) :], strict=True)}
    writer = graph_text.WholeOpText(graph, fixed)
    whole: list[Node] = []
    for call in calls:
        if call.has_effect or any(number in names for number in call.data):
            results = [names.get(number, f"%unused{number}") for number in call.data]
            whole += writer.nodes(call, value_of, results)
    graph.nodes = whole + graph.nodes  # what has an effect has it in the program's order
    graph.nodes = graph_text.in_order(graph.nodes, [name for name, _, _ in graph.inputs])
    return graph


def assemble_step(
    roots: Sequence[torch.Tensor], varying: Collection[int], fixed: Callable[[Any], Any]
) -> tuple[GraphText, list[int]]:
    """The graph that computes ``roots`` from all device data, and the positions of its inputs in :func:`data_of_step`.

    Data of rank 0 are numbers of the program, unless their position is in ``varying``.
    """
    copies = _copies(roots)
    nodes, returned = graph_text.read(device.graph_text(copies))
    nodes, numbers = graph_text.take_constants(nodes)
    graph = GraphText(nodes, returned)
    constants = [(name, "Tensor", fixed(torch.tensor(value))) for name, value in numbers.items()]
    positions = []
    for index, (_, tensor) in enumerate(device.data_of(copies)):
        name = f"%p{index}"
        if tensor.dim() > 0 or index in varying:
            graph.inputs.append((name, "Tensor", tensor))
            positions.append(index)
            continue
        constants.append((name, "Tensor", fixed(tensor.clone())))
        if tensor.dtype in _NUMBERS:
            numbers[name] = tensor.item()
    graph.inputs += constants
    graph_text.place_numbers(graph, numbers, fixed)
    return graph, positions


def data_of_step(roots: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The CPU tensors that the pending graph of ``roots`` reads, in the order of its inputs."""
    return [tensor for _, tensor in device.data_of(_copies(roots))]


def constant_value(tensor: torch.Tensor, calls: Sequence[WholeOp], opaque: set[int]) -> torch.Tensor | None:
    """The value of a pending tensor that depends on no data in ``opaque``; ``None`` if it does."""
    makers = {number: call for call in calls for number in call.data}
    pending = [number for number, _ in device.data_of(_copies([tensor]))]
    needed: dict[int, WholeOp] = {}
    seen: set[int] = set()
    while pending:
        number = pending.pop()
        if number in seen:
            continue
        seen.add(number)
        if number in opaque:
            return None
        call = makers.get(number)
        if call is not None and id(call) not in needed:
            needed[id(call)] = call
            operands = _copies(tensors_of(call))
            pending += [found for found, _ in device.data_of(operands)] if operands else []
    used = [call for call in calls if id(call) in needed]
    graph = assemble([tensor], used, (), (), lambda value: value)
    parsed = torch._C.parse_ir(str(graph), parse_tensor_constants=True)
    function = torch._C._create_function_from_graph("constant", parsed)
    value: torch.Tensor = function(*(value for _, _, value in graph.inputs))
    return value


def _copies(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Nodes for tensors that may be mere device data, which the backend leaves out of its text."""
    with torch.no_grad():
        copies = [torch.ops.aten.detach_copy.default(tensor) for tensor in tensors]
    for copy in copies:
        device.sync(copy)
    return copies


def _describe(
    graph: GraphText,
    names: dict[int, str],
    data: Sequence[tuple[int, torch.Tensor]],
    calls: Sequence[WholeOp],
    described: tuple[Inputs, Inputs],
    fixed: Callable[[Any], Any],
) -> dict[str, Any]:
    """Add the inputs to the graph; the rank-0 constants among them by name."""
    inputs, weights = described
    known = {number for call in calls for number in call.data}
    for number, what in inputs:
        graph.inputs.append((names.get(number, f"%unused{number}"), "Tensor", what))
        known.add(number)
    for number, what in weights:
        if number in names and number not in known:
            graph.inputs.append((names[number], "Tensor", what))
            known.add(number)
    numbers: dict[str, Any] = {}
    for index, (number, tensor) in enumerate(data):
        if number in known:
            continue
        graph.inputs.append((f"%p{index}", "Tensor", fixed(tensor.clone())))
        if tensor.dim() == 0 and tensor.dtype in _NUMBERS:
            numbers[f"%p{index}"] = tensor.item()
    return numbers


__all__ = ["Node", "assemble", "assemble_step", "constant_value", "data_of_step"]
