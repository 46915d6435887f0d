"""``import_fx``: what it accepts, and how parameters, state and results of a program are told apart."""

from __future__ import annotations

import contextlib
import logging
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import GraphModule, Node
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.utils import _pytree as pytree

from torch_tvm.aten import autocast
from torch_tvm.aten.autocast import without_autocast
from torch_tvm.dialect.emitter import Emitter
from torch_tvm.dialect.mlir import ir, new_context
from torch_tvm.dialect.module import LAYOUT, Signature, TorchModule
from torch_tvm.importers.fx.export import export
from torch_tvm.importers.fx.graph import GraphWalk
from torch_tvm.importers.fx.open_sizes import OpenSizes
from torch_tvm.importers.fx.scripted import import_scripted
from torch_tvm.importers.fx.sizes import GraphSizes, graph_sizes
from torch_tvm.importers.recording.aliases import is_always_alias, shares_memory
from torch_tvm.importers.recording.argument_strides import LayoutQueries, is_dense
from torch_tvm.importers.recording.recorder import Recorder, check_in_place
from torch_tvm.importers.recording.storages import LiteralStorage, TensorRef
from torch_tvm.importers.state import Brought, SharedMemory, StateArguments, address, view_of
from torch_tvm.importers.symbols import bind_argument_shapes
from torch_tvm.importers.tracing.data_dependence import DependsOnData
from torch_tvm.support.errors import ImportFailed, InvalidInput

Program: TypeAlias = torch.nn.Module | ExportedProgram | Callable[..., Any]


def import_fx(
    program: Program, example_args: Sequence[Any] | None = None, *, dynamic_shapes: Any = None
) -> TorchModule:
    """Import an FX graph module, an exported program, or an ``nn.Module`` or a function (exported for you).

    ``example_args`` is the tuple of positional arguments to export with, ``dynamic_shapes`` as in
    ``torch.export.export``. Tensors that a function finds outside of its arguments are weights.
    A program that branches on numbers of its tensors, or on sizes that may vary, is scripted, if its script does the
    same: no export has both ways.
    Raises :class:`ImportFailed` where the program cannot be exported, with the user's own line.
    """
    if isinstance(program, ExportedProgram):
        return import_exported(program.run_decompositions({}) if autocast.is_active() else program)
    if isinstance(program, GraphModule) and _is_aten_level(program):
        return import_aten_graph(program)
    if not is_exportable(program):
        raise InvalidInput(
            "import_fx takes an nn.Module, a function, a GraphModule or an ExportedProgram, "
            f"got {type(program).__name__}",
            advice="for a scripted function use import_torchscript",
        )
    if example_args is None:
        raise InvalidInput("importing a module needs example_args", advice="pass a tuple of example tensors")
    return _import_program(program, example_args, dynamic_shapes)


def _import_program(program: Program, example_args: Sequence[Any], dynamic_shapes: Any) -> TorchModule:
    """Export for sizes from 0, else from 1, and import that; script a program of which no export has all branches."""
    queries = LayoutQueries(recorded=True)
    refusals: list[ImportFailed] = []
    for least in (0, 1):  # ``x + x[:1]``: of nothing, the slice has another size
        sizes, exported = OpenSizes(least), None
        try:
            with queries:
                exported = export(program, example_args, dynamic_shapes=dynamic_shapes, sizes=sizes)
        except ImportFailed as refusal:
            refusals.append(refusal)
        depends_on_data = exported is None and isinstance(refusals[-1], DependsOnData)
        if sizes.closed or depends_on_data:
            with contextlib.suppress(Exception):
                return import_scripted(program, example_args, dynamic_shapes)
        if exported is not None:
            return import_exported(exported, "dense" if queries.asked else "")
        if depends_on_data or not sizes.any_unknown:
            break
    raise refusals[0]


def is_exportable(program: Any) -> bool:
    """Whether ``program`` is an ``nn.Module`` or something that is called like one, and not scripted."""
    scripted = (torch.jit.ScriptModule, torch.jit.ScriptFunction, torch._C.ScriptMethod)
    is_module = isinstance(program, torch.nn.Module)
    return is_module or (callable(program) and not isinstance(program, (type, *scripted)))


def _is_aten_level(module: GraphModule) -> bool:
    """Whether every call is an ATen overload and the placeholders carry fake tensors."""
    for node in module.graph.nodes:
        if node.op == "placeholder" and "val" not in node.meta:
            return False
        if node.op in ("call_module", "call_method"):
            return False
        if node.op == "call_function" and getattr(node.target, "__module__", "").startswith(("torch.nn", "torch._C")):
            return False
        if node.op == "call_function" and "val" not in node.meta and not _gives_nothing(node):
            return False
    return True


def _gives_nothing(node: Node) -> bool:
    """Whether a call needs no note of what it gives: an item of a result, an assertion."""
    is_op = isinstance(node.target, torch._ops.OpOverload)
    return node.target is operator.getitem or (is_op and not node.target._schema.returns)


class _FunctionBuilder:
    """One ``@main`` under construction: arguments, walk, results, state.

    ``layout`` is what the program asks of its arguments beyond what the graph shows; with ``is_guarded`` PyTorch sees
    to it that their strides are the same at each call.
    """

    def __init__(self, layout: str = "", *, is_guarded: bool = False) -> None:
        self.layout = layout
        self.weights: dict[str, torch.Tensor] = {}
        self.context = new_context()
        self.mlir = ir.Module.create(loc=ir.Location.unknown(self.context))
        self.emitter = Emitter(self.mlir, self.weights)
        self.recorder = Recorder(self.emitter, is_guarded=is_guarded)
        self.outputs: list[tuple[Any] | None] = []

    @without_autocast()
    def build(
        self,
        graph: GraphModule,
        arguments: Sequence[tuple[int, Any]],
        literals: Callable[[Recorder], Mapping[int, Brought]],
        sizes: GraphSizes,
        finish: Callable[[Any], list[ir.Value]],
    ) -> None:
        """``arguments`` are (position, meta) of the placeholders that become function arguments."""
        metas = [meta for _, meta in arguments]
        types = [self.emitter._result_type(meta) for meta in metas]
        function, block = self.emitter.function("main", types)
        self.inputs: dict[int, Any] = {}
        self.state = StateArguments(self.emitter, block)
        with self.emitter.block(block):
            pairs = list(zip(block.arguments, metas, strict=True))
            symbols = bind_argument_shapes(self.emitter, pairs, sizes.ranges)
            for condition, reason in sizes.conditions:
                symbols.demand(condition, reason)
            for index, (position, meta) in enumerate(arguments):
                value = block.arguments[index]
                is_tensor = isinstance(meta, torch.Tensor)
                self.inputs[position] = self.recorder.tensor(value, meta, index) if is_tensor else value
            brought = literals(self.recorder)
            self.inputs.update({position: ref for position, (_, _, ref) in brought.items()})
            count = sum(1 for node in graph.graph.nodes if node.op == "placeholder")
            walk = GraphWalk(self.recorder, graph)
            results = finish(walk.run([self.inputs.get(i) for i in range(count)]))
            self._write_arguments([self.inputs[position] for position, _ in arguments])
            self.state.add_written(self.recorder, [*brought.values(), *walk.attributes.values()])
            self.state.finish(function, results, self.weights)
        layout = max(self.layout, self.recorder.strides.layout)
        if layout:
            _check_layout(metas)
            function.attributes[LAYOUT] = ir.StringAttr.get(layout, self.context)

    def result(self, item: Any) -> list[ir.Value]:
        """The values of one flat output; one that has none is a constant of the signature."""
        value = self.recorder.read(item) if isinstance(item, TensorRef) else item
        is_known = not isinstance(value, ir.Value)
        self.outputs.append((item,) if is_known else None)
        return [] if is_known else [value]

    def _write_arguments(self, references: Sequence[Any]) -> None:
        for index, reference in enumerate(references):
            if not isinstance(reference, TensorRef):
                continue
            check_in_place(reference, f"argument {index}")
            value = self.recorder.read(TensorRef(reference.made))  # by the caller
            if reference.storage.version > 0:
                self.state.write(index, value)


def _check_layout(arguments: Sequence[Any]) -> None:
    """Raise where an example argument is not as the program asks."""
    if not all(is_dense(meta) for meta in arguments if isinstance(meta, torch.Tensor)):
        raise ImportFailed(
            "the program gives other numbers for other strides, and an example argument is not contiguous",
            stage="importer: fx",
            advice="pass contiguous arguments, then and now; or use torch.compile, which looks at strides",
        )


def import_exported(program: ExportedProgram, layout: str = "") -> TorchModule:
    """Import an exported program: weights are literals, mutated buffers are state, user inputs arguments.

    ``layout`` is what the program asks of its arguments beyond what the graph shows.
    """
    if any(_is_autocast(node) or _is_transform(node) for node in program.graph.nodes):
        program = program.run_decompositions({})
    program = _with_shared_memory(program)
    try:
        return _Exported(program, {}, layout).module()
    except SharedMemory as shared:
        return _Exported(program, shared.owners, layout).module()


class _Exported:
    """The import of an exported program; ``owners`` are tensors by the address of memory that several share."""

    def __init__(self, program: ExportedProgram, owners: Mapping[int, tuple[str, torch.Tensor]], layout: str) -> None:
        self.program = program
        self.owners = owners
        self.builder = _FunctionBuilder(layout)
        self.nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
        self.positions = {node.name: position for position, node in enumerate(self.nodes)}
        self.by_target: dict[str, TensorRef] = {}

    def module(self) -> TorchModule:
        program, builder = self.program, self.builder
        arguments: list[tuple[int, Any]] = []
        constants: dict[int, Any] = {}
        specs = program.graph_signature.input_specs
        positions = [i for i, spec in enumerate(specs) if spec.kind == InputKind.USER_INPUT]
        for user, position in enumerate(positions):
            meta = self.nodes[position].meta.get("val")
            if isinstance(meta, (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)):
                arguments.append((position, meta))
            else:
                constants[user] = meta
        sizes = graph_sizes(program.graph, program.range_constraints)
        builder.build(program.graph_module, arguments, self._literals, sizes, self._results)
        names = _argument_names(program, [self.nodes[position].name for position in positions])
        spec = program.call_spec
        signature = Signature(spec.in_spec, spec.out_spec, names, constants, builder.outputs)
        return TorchModule(builder.mlir, builder.weights, builder.state.tensors, signature, builder.emitter.inlined)

    def _literals(self, recorder: Recorder) -> dict[int, Brought]:
        """Weights, buffers and constants by the position of their placeholders."""
        lifted = {
            position: _lifted(self.program, spec)
            for position, spec in enumerate(self.program.graph_signature.input_specs)
            if spec.kind != InputKind.USER_INPUT
        }
        metas = {id(tensor): self._meta(position) for position, (tensor, _) in lifted.items()}
        owners = {}
        for where, (name, memory) in self.owners.items():
            meta = metas[id(memory)] if id(memory) in metas else self._fake(memory)
            owners[where] = recorder.whole(LiteralStorage(recorder.emitter, memory, name, meta))
        found: dict[int, Brought] = {}
        for position, (tensor, target) in lifted.items():
            if not isinstance(tensor, torch.Tensor):
                continue
            where, meta = address(tensor), self._meta(position)
            if where in owners:
                ref = view_of(owners[where], self.owners[where][1], tensor, meta)
            else:
                ref = recorder.whole(LiteralStorage(recorder.emitter, tensor, target, meta))
            found[position] = (target, tensor, ref)
            self.by_target[target] = ref
        return found

    def _meta(self, position: int) -> Any:
        return self.nodes[position].meta.get("val")

    def _fake(self, tensor: torch.Tensor) -> torch.Tensor:
        mode = detect_fake_mode([node.meta.get("val") for node in self.nodes]) or FakeTensorMode()
        fake: torch.Tensor = mode.from_tensor(tensor, static_shapes=True)
        return fake

    def _results(self, results: Any) -> list[ir.Value]:
        flat = pytree.tree_leaves(results, is_leaf=lambda item: item is None)
        values = []
        for item, spec in zip(flat, self.program.graph_signature.output_specs, strict=True):
            if spec.kind == OutputKind.USER_OUTPUT:
                values += self.builder.result(item)
            elif spec.kind == OutputKind.BUFFER_MUTATION:
                self._write(self.by_target[spec.target], item)
            elif spec.kind == OutputKind.USER_INPUT_MUTATION:
                self._write(self.builder.inputs[self.positions[spec.target]], item)
        return values

    def _write(self, target: TensorRef, item: Any) -> None:
        """An output that the signature calls a mutation becomes a write."""
        self.builder.recorder.write(target, self.builder.recorder.read(item))


def _argument_names(program: ExportedProgram, names: list[str]) -> list[str]:
    """The user's names of arguments that are single values: the nodes of ``Q`` and ``naïve`` are
    ``q`` and ``na_ve``.
    """
    signature, in_spec = program.module_call_graph[0].signature, program.call_spec.in_spec
    if signature is None or signature.forward_arg_names is None or in_spec is None:
        return names
    args, kwargs = pytree.tree_unflatten(list(range(in_spec.num_leaves)), in_spec)
    given = [*zip(signature.forward_arg_names, args, strict=False), *kwargs.items()]
    own = {position: name for name, position in given if isinstance(position, int)}
    return [own.get(position, name) for position, name in enumerate(names)]


def _with_shared_memory(program: ExportedProgram) -> ExportedProgram:
    """A program whose fake tensors share memory where its tensors do: those of one that was saved do not."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        source = node.args[0].meta.get("val") if node.args and isinstance(node.args[0], torch.fx.Node) else None
        result = node.meta.get("val")
        if schema is None or not isinstance(source, torch.Tensor) or not isinstance(result, torch.Tensor):
            continue
        if is_always_alias(schema):
            if not shares_memory(source, result):
                _propagate(program)
            break
    return program


def _is_autocast(node: torch.fx.Node) -> bool:
    """A region under autocast: its casts are not in it."""
    is_region = isinstance(node.target, torch._ops.HigherOrderOperator)
    return is_region and node.target.name() == "wrap_with_autocast"


def _is_transform(node: torch.fx.Node) -> bool:
    """A step of ``torch.vmap``: what the ops between become is not in the graph."""
    return getattr(node.target, "__module__", "") == "torch._functorch.predispatch"


def _propagate(program: ExportedProgram) -> None:
    """Compute the fake tensors anew, if PyTorch can."""
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"]
    mode = detect_fake_mode(values)
    try:
        FakeTensorProp(program.graph_module, mode).propagate_dont_convert_inputs(*values)
    except (RuntimeError, TypeError, ValueError, NotImplementedError):
        logging.getLogger(__name__).debug("no fake tensors that share memory", exc_info=True)


def _lifted(program: ExportedProgram, spec: Any) -> tuple[Any, str]:
    target = spec.target or spec.arg.name
    if target in program.state_dict:
        return program.state_dict[target], target
    return program.constants.get(target), target


def import_aten_graph(module: GraphModule, *, is_guarded: bool = False) -> TorchModule:
    """Import a graph module at ATen level whose placeholders are its arguments (AOTAutograd's form).

    With ``is_guarded`` PyTorch calls it with arguments of these strides only.
    """
    builder = _FunctionBuilder(is_guarded=is_guarded)
    nodes = [node for node in module.graph.nodes if node.op == "placeholder"]
    arguments = [
        (position, node.meta["val"])
        for position, node in enumerate(nodes)
        if isinstance(node.meta["val"], (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool, int, float))
    ]
    specs: list[Any] = []

    def finish(results: Any) -> list[ir.Value]:
        flat, spec = pytree.tree_flatten(results, is_leaf=lambda item: item is None)
        specs.append(spec)
        return [value for item in flat for value in builder.result(item)]

    ranges = _shape_env_ranges([meta for _, meta in arguments])
    builder.build(module, arguments, lambda recorder: {}, GraphSizes(ranges), finish)
    in_spec = pytree.tree_structure((tuple(range(len(nodes))), {}))
    present = {position for position, _ in arguments}
    constants = {i: None for i in range(len(nodes)) if i not in present}
    names = [nodes[position].name for position, _ in arguments]
    signature = Signature(in_spec, specs[0], names, constants, builder.outputs)
    return TorchModule(builder.mlir, builder.weights, builder.state.tensors, signature, builder.emitter.inlined)


def _shape_env_ranges(metas: Sequence[Any]) -> dict[Any, Any]:
    for meta in metas:
        sizes = meta.shape if isinstance(meta, torch.Tensor) else [meta]
        for size in sizes:
            if isinstance(size, torch.SymInt):
                return dict(size.node.shape_env.var_to_range)
    return {}


__all__ = ["ImportFailed", "import_aten_graph", "import_exported", "import_fx"]
