"""``import_lazy``: the pending graph of one run on the lazy device becomes a Torch dialect module."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch

from torch_tvm.aten.calls import overloads_of
from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import LAYOUT, MEMORY_ORDER, Signature, TorchModule
from torch_tvm.importers import state
from torch_tvm.importers.lazy.assembly import Node, assemble, assemble_step
from torch_tvm.importers.lazy.capture import Capture, Source, capture
from torch_tvm.importers.lazy.whole_ops import IMPORTER, random_op
from torch_tvm.importers.recording import fake_results
from torch_tvm.importers.recording.recorder import reshaped_in_place
from torch_tvm.importers.torchscript.arguments import Fixed, Weight
from torch_tvm.importers.torchscript.program import import_graph
from torch_tvm.importers.tracing.data_dependence import DependsOnData
from torch_tvm.support.errors import ImportFailed, InvalidInput, TorchTvmError


def import_lazy(program: Callable[..., Any], example_args: Sequence[Any]) -> TorchModule:
    """Run a module or a function once on the lazy device and import the graph that this leaves pending.

    ``example_args`` are CPU tensors, plain values, and lists, tuples and dicts of them; plain values are fixed
    at import. A module's parameters become weights named as in its ``state_dict``; what the program writes
    (buffers, arguments) becomes state and writes. A module runs without gradients. The module and the
    arguments are not touched. A lazy tensor has sizes: a program with sizes, or numbers, that depend on data
    (``nonzero``, ``x[mask]``, ``item``) is recorded by ``import_fx`` instead. Raises
    :class:`ImportFailed`, at the user's line, for what neither takes.
    """
    if isinstance(example_args, torch.Tensor):
        raise InvalidInput(
            "expected a tuple of arguments, got a tensor", subject="example_args", advice="pass (tensor,)"
        )
    if not callable(program) or isinstance(program, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        raise InvalidInput(
            f"expected an nn.Module or a Python function, got {type(program).__name__}",
            subject="import_lazy",
            advice="for a scripted program use import_torchscript",
        )
    try:
        run = capture(program, example_args)
    except DependsOnData as error:
        return _exported(program, example_args, error)
    return to_module(run)


def _exported(program: Callable[..., Any], example_args: Sequence[Any], error: DependsOnData) -> TorchModule:
    """The program by ``import_fx``, which has symbols for what depends on data; ``error`` where it cannot either."""
    from torch_tvm.importers.fx import import_fx

    try:
        with torch.no_grad():
            return import_fx(program, tuple(example_args))
    except TorchTvmError:
        raise error from None


def import_step(roots: Sequence[torch.Tensor], varying: Collection[int] = ()) -> tuple[TorchModule, list[int]]:
    """The pending graph of lazy tensors as a module of its device data, and their positions in ``data_of_step``.

    Data of rank 0 become constants, unless their position is in ``varying``.
    """
    graph, positions = assemble_step(roots, varying, Fixed)
    _refuse_random(graph.nodes)
    parsed = torch._C.parse_ir(str(graph), parse_tensor_constants=True)
    names = [name.removeprefix("%") for name, _, _ in graph.inputs]
    module = import_graph(parsed, [what for _, _, what in graph.inputs], names, importer=IMPORTER)
    module.signature = Signature(names=names[: len(positions)])
    return module, positions


def to_module(run: Capture) -> TorchModule:
    """The module of a captured run."""
    return _Assembly(run).module()


class _Assembly:
    """From a capture to a module."""

    def __init__(self, run: Capture) -> None:
        self.run = run
        self.arguments = [source for source in run.sources if source.position is not None]
        written = [source for source in run.sources if source.is_written()]
        for source in written:
            if source.replaced is None and source.value.shape != source.tensor.shape:
                raise reshaped_in_place(f"'{source.name}'")
        self.state = [source for source in written if source.position is None]
        self.writes = [*(source for source in written if source.position is not None), *self.state]
        self.results = [item for item in run.outputs if isinstance(item, torch.Tensor)]

    def module(self) -> TorchModule:
        held = [(source.number, source.tensor) for source in (*self.arguments, *self.state)]
        weights = [(source.number, Weight(source.tensor, source.name)) for source in self.run.sources]
        roots = [*self.results, *(source.value for source in self.writes)]
        graph = assemble(roots, self.run.calls, held, weights, Fixed)
        whole = {call.overload._schema.name for call in self.run.calls}
        _refuse_random([node for node in graph.nodes if node.kind not in whole])
        parsed = torch._C.parse_ir(str(graph), parse_tensor_constants=True)
        names = [name.removeprefix("%") for name, _, _ in graph.inputs]
        module = import_graph(parsed, [what for _, _, what in graph.inputs], names, importer=IMPORTER)
        _check_dtypes(module, roots)
        self._describe(module)
        return module

    # -- calling convention ------------------------------------------------------------------------------

    def _describe(self, module: TorchModule) -> None:
        run = self.run
        main = module.main.operation
        order = [*self.arguments, *self.state]
        state.describe(main, [source.name for source in self.state], [order.index(source) for source in self.writes])
        if run.queries.fills_expanded:
            raise ImportFailed(
                "the program writes a tensor that is expanded or unfolded, which the lazy device does not do as eager",
                stage=f"importer: {IMPORTER}",
                advice="use clone() before, or another frontend",
            )
        if run.queries.strided_copy is not None:
            raise ImportFailed(
                "as_strided of a copy in another order: on the lazy device, where all is dense, there is no such copy",
                location=run.queries.strided_copy,
                stage=f"importer: {IMPORTER}",
                advice="use another frontend",
            )
        if run.queries.copies_views and any(MEMORY_ORDER in op.attributes for op in view.walk(module.main)):
            raise ImportFailed(
                "the program draws numbers along a tensor that is not contiguous, and on the lazy device all is",
                stage=f"importer: {IMPORTER}",
                advice="make it contiguous before, or use another frontend",
            )
        if run.queries.asked or run.queries.copies_and_writes or LAYOUT in main.attributes:
            self._refuse_other_layouts()
            if LAYOUT not in main.attributes:
                main.attributes[LAYOUT] = ir.StringAttr.get("dense", main.context)
        module.state = {source.name: source.tensor for source in self.state}
        constants = {i: leaf for i, leaf in enumerate(run.leaves) if not isinstance(leaf, torch.Tensor)}
        outputs: list[tuple[Any] | None] = [None if isinstance(item, torch.Tensor) else (item,) for item in run.outputs]
        is_plain = all(output is None for output in outputs)
        module.signature = Signature(run.in_spec, run.out_spec, run.names, constants, None if is_plain else outputs)

    def _refuse_other_layouts(self) -> None:
        """To the lazy device every tensor is dense: there ``contiguous`` never copies."""
        place = self.run.queries.view_copied_and_written
        if place is not None:
            raise ImportFailed(
                "a copy of a view beside a write: on the lazy device, where all is dense, it shares memory with "
                "the view",
                location=place,
                stage=f"importer: {IMPORTER}",
                advice="use clone(), or another frontend",
            )
        if not all(source.tensor.is_contiguous() for source in self.arguments):
            raise ImportFailed(
                "the program gives other numbers for other strides, and an example argument is not contiguous",
                stage=f"importer: {IMPORTER}",
                advice="pass contiguous arguments, then and now",
            )


def _check_dtypes(module: TorchModule, roots: Sequence[torch.Tensor]) -> None:
    """Refuse a result of another dtype than on the lazy device: a 0-d tensor of the program was taken for a number.

    Some ops' results are told wrongly there (:mod:`fake_results`).
    """
    returned = list(module.main.regions[0].blocks[0].operations)[-1].operands
    for value, root in zip(returned, roots, strict=True):
        kind, made = view.tensor_type(value), view.defining_op(value)
        while made is not None and view.op_name(made) == "torch.aten.detach":
            made = view.defining_op(made.operands[0])
        schema = view.op_name(made).replace("torch.aten.", "aten::") if made is not None else ""
        if kind is not None and kind.dtype not in (None, root.dtype) and schema not in fake_results.CORRECTIONS:
            raise ImportFailed(
                f"a result is {kind.dtype} here and {root.dtype} in PyTorch: a tensor of no dimensions sets its dtype",
                stage=f"importer: {IMPORTER}",
                advice="give that tensor a dimension, or use another frontend",
            )


def _refuse_random(nodes: list[Node]) -> None:
    for node in nodes:
        overloads = overloads_of(node.kind) if node.kind.startswith("aten::") else []
        is_random = any(torch.Tag.nondeterministic_seeded in overload.tags for overload in overloads)
        if not is_random or (node.kind == "aten::native_dropout" and not _is_training(node, nodes)):
            continue
        raise random_op(f"torch.{node.kind.replace('::', '.')}", None)


def _is_training(node: Node, nodes: list[Node]) -> bool:
    flag = next((other for other in nodes if other.outputs[:1] and other.outputs[0][0] == node.operands[2]), None)
    return flag is None or "value=0" not in flag.attributes


__all__ = ["Capture", "ImportFailed", "Source", "import_lazy", "import_step", "to_module"]
