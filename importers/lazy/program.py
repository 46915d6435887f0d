"""``import_lazy``: the pending graph of one run on the lazy device becomes a Torch dialect module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import STATE, WRITES, Signature, TorchModule
from torch_tvm.importers.lazy import device, graph_text
from torch_tvm.importers.lazy.capture import Capture, Source, capture
from torch_tvm.importers.lazy.whole_ops import IMPORTER, WholeOp, random_op
from torch_tvm.importers.torchscript.arguments import Fixed, Weight
from torch_tvm.importers.torchscript.program import import_graph
from torch_tvm.support.errors import ImportFailed, InvalidInput

STAGE = f"importer: {IMPORTER}"


def import_lazy(program: Callable[..., Any], example_args: Sequence[Any]) -> TorchModule:
    """Run a module or a function once on the lazy device and import the graph that this leaves pending.

    ``example_args`` are CPU tensors, plain values, and lists, tuples and dicts of them; plain values are fixed
    at import. A module's parameters become weights named as in its ``state_dict``; what the program writes
    (buffers, arguments) becomes state and writes. A module runs without gradients. The module and the
    arguments are not touched. Raises :class:`ImportFailed`, at the user's line, for random ops, for values
    read out of tensors, and for ops that the lazy device can neither hold nor describe.
    """
    if isinstance(example_args, torch.Tensor):
        raise InvalidInput("expected a tuple of arguments, got a tensor", subject="example_args", advice="pass (tensor,)")
    if not callable(program) or isinstance(program, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        raise InvalidInput(
            f"expected an nn.Module or a Python function, got {type(program).__name__}",
            subject="import_lazy",
            advice="for a scripted program use import_torchscript",
        )
    return to_module(capture(program, example_args))


def to_module(run: Capture) -> TorchModule:
    """The module of a captured run."""
    return _Assembly(run).module()


class _Assembly:
    """From a capture to one graph text with its inputs described."""

    def __init__(self, run: Capture) -> None:
        self.run = run
        self.written = [source for source in run.sources if source.is_written()]
        self.state = [source for source in self.written if source.position is None]
        written_arguments = [source for source in self.written if source.position is not None]
        self.arguments = [source for source in run.sources if source.position is not None]
        self.results = [item for item in run.outputs if isinstance(item, torch.Tensor)]
        self.writes = [*written_arguments, *self.state]
        self.roots: list[torch.Tensor] = []

    def module(self) -> TorchModule:
        operands = [item for call in self.run.calls for item in _tensors(call)]
        roots = [*self.results, *(source.lazy for source in self.writes), *operands]
        with torch.no_grad():
            copies = [torch.ops.aten.detach_copy.default(root) for root in roots]
        for copy in copies:
            device.sync(copy)
        graph = self._graph(copies, operands)
        parsed = torch._C.parse_ir(str(graph), parse_tensor_constants=True)
        names = [name.removeprefix("%") for name, _, _ in graph.inputs]
        module = import_graph(parsed, [what for _, _, what in graph.inputs], names, importer=IMPORTER)
        self._describe(module)
        return module

    # -- text --------------------------------------------------------------------------------------------

    def _graph(self, roots: list[torch.Tensor], operands: list[torch.Tensor]) -> graph_text.GraphText:
        nodes, returned, data = [], [], []
        if roots:
            nodes, returned = graph_text.read(device.graph_text(roots))
            data = device.data_of(roots)
        self._refuse_random(nodes)
        names = {number: f"%p{index}" for index, (number, _) in enumerate(data)}
        kept = len(self.results) + len(self.writes)
        graph = graph_text.GraphText(nodes, returned[:kept])
        value_of = {id(item): name for item, name in zip(operands, returned[kept:], strict=True)}
        self._inputs(graph, names, data)
        writer = graph_text.WholeOpText(graph, Fixed)
        for call in self.run.calls:
            results = [names.get(number, f"%unused{number}") for number in call.data]
            if any(number in names for number in call.data):
                graph.nodes += writer.nodes(call, value_of, results)
        graph.nodes = graph_text.in_order(graph.nodes, [name for name, _, _ in graph.inputs])
        return graph

    def _inputs(self, graph: graph_text.GraphText, names: dict[int, str], data: list[tuple[int, torch.Tensor]]) -> None:
        """Arguments in the caller's order, then state, then weights, then numbers."""
        known = {number for call in self.run.calls for number in call.data}
        for source in (*self.arguments, *self.state):
            name = names.get(source.number, f"%unused{source.number}")
            graph.inputs.append((name, "Tensor", source.tensor))
            known.add(source.number)
        for source in self.run.sources:
            if source.number in names and source.number not in known:
                graph.inputs.append((names[source.number], "Tensor", Weight(source.tensor, source.name)))
                known.add(source.number)
        numbers: dict[str, Any] = {}
        for number, tensor in data:
            if number in known:
                continue
            graph.inputs.append((names[number], "Tensor", Fixed(tensor.clone())))
            if tensor.dim() == 0 and tensor.dtype in (torch.int64, torch.float64, torch.bool):
                numbers[names[number]] = tensor.item()
        graph_text.place_numbers(graph, numbers, Fixed)

    def _refuse_random(self, nodes: list[graph_text.Node]) -> None:
        for node in nodes:
            packet = getattr(torch.ops.aten, node.kind.removeprefix("aten::"), None)
            if packet is None or not node.kind.startswith("aten::"):
                continue
            overloads = [getattr(packet, name) for name in packet.overloads()]
            if any(torch.Tag.nondeterministic_seeded in overload.tags for overload in overloads):
                if node.kind == "aten::native_dropout" and not _is_training(node, nodes):
                    continue
                raise random_op(f"torch.{node.kind.replace('::', '.')}", None)

    # -- calling convention ------------------------------------------------------------------------------

    def _describe(self, module: TorchModule) -> None:
        run, context = self.run, module.mlir.context
        main = module.main.operation
        if self.state:
            held = [ir.StringAttr.get(source.name, context) for source in self.state]
            main.attributes[STATE] = ir.ArrayAttr.get(held, context)
        if self.writes:
            order = [*self.arguments, *self.state]
            indices = [order.index(source) for source in self.writes]
            main.attributes[WRITES] = ir.DenseI64ArrayAttr.get(indices, context)
        module.state = {source.name: source.tensor for source in self.state}
        constants = {i: leaf for i, leaf in enumerate(run.leaves) if not isinstance(leaf, torch.Tensor)}
        outputs: list[tuple[Any] | None] = [None if isinstance(item, torch.Tensor) else (item,) for item in run.outputs]
        is_plain = all(output is None for output in outputs)
        module.signature = Signature(run.in_spec, run.out_spec, run.names, constants, None if is_plain else outputs)


def _tensors(call: WholeOp) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_leaves((call.args, call.kwargs))
    return [item for item in leaves if isinstance(item, torch.Tensor)]


def _is_training(node: graph_text.Node, nodes: list[graph_text.Node]) -> bool:
    flag = next(other for other in nodes if other.outputs[0][0] == node.operands[2])
    return "value=0" not in flag.attributes


__all__ = ["Capture", "ImportFailed", "Source", "import_lazy", "to_module"]
