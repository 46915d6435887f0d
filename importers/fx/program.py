"""``import_fx``: what it accepts, and how parameters, state and results of a program are told apart."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import GraphModule
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from torch_tvm.dialect.emitter import Emitter
from torch_tvm.dialect.mlir import ir, new_context
from torch_tvm.dialect.module import LAYOUT, STATE, WRITES, Signature, TorchModule
from torch_tvm.importers.aliasing import LayoutQueries, is_dense
from torch_tvm.importers.fx.failure import GENERATOR, export_failure
from torch_tvm.importers.fx.graph import GraphWalk
from torch_tvm.importers.fx.sizes import GraphSizes, graph_sizes
from torch_tvm.importers.mask_questions import MasksUnexamined
from torch_tvm.importers.recorder import Recorder, TensorRef
from torch_tvm.importers.seeding import seeding_refused
from torch_tvm.importers.symbols import bind_argument_shapes
from torch_tvm.support.errors import ImportFailed, InvalidInput

Program = torch.nn.Module | ExportedProgram | Callable[..., Any]


def import_fx(
    program: Program, example_args: Sequence[Any] | None = None, *, dynamic_shapes: Any = None
) -> TorchModule:
    """Import an FX graph module, an exported program, or an ``nn.Module`` or a function (exported for you).

    ``example_args`` is the tuple of positional arguments to export with, ``dynamic_shapes`` as in
    ``torch.export.export``. Tensors that a function finds outside of its arguments are weights.
    Raises :class:`ImportFailed` where the program cannot be exported, with the user's own line.
    """
    if isinstance(program, ExportedProgram):
        return import_exported(program)
    if isinstance(program, GraphModule) and _is_aten_level(program):
        return import_aten_graph(program, example_args)
    if not is_exportable(program):
        raise InvalidInput(
            "import_fx takes an nn.Module, a function, a GraphModule or an ExportedProgram, "
            f"got {type(program).__name__}",
            advice="for a scripted function use import_torchscript",
        )
    if example_args is None:
        raise InvalidInput("importing a module needs example_args", advice="pass a tuple of example tensors")
    module = program if isinstance(program, torch.nn.Module) else _Function(program)
    queries = LayoutQueries(recorded=True)
    with queries:
        program = export(module, example_args, dynamic_shapes=dynamic_shapes)
    return import_exported(program, "dense" if queries.asked else "")


def is_exportable(program: Any) -> bool:
    """Whether ``program`` is an ``nn.Module`` or something that is called like one, and not scripted."""
    scripted = (torch.jit.ScriptModule, torch.jit.ScriptFunction, torch._C.ScriptMethod)
    is_module = isinstance(program, torch.nn.Module)
    return is_module or (callable(program) and not isinstance(program, (type, *scripted)))


class _Function(torch.nn.Module):
    """A function as the module that ``torch.export`` wants."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        try:
            inspect.signature(function)
            self.forward = function
        except ValueError:  # a builtin: export names arguments after the signature
            self.forward = lambda *arguments: function(*arguments)


def export(
    program: torch.nn.Module,
    example_args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> ExportedProgram:
    """``torch.export.export``, with its failures turned into :class:`ImportFailed` at the user's line."""
    try:
        with (
            warnings.catch_warnings(),
            _quiet_logs(),
            _GeneratorsRefused(),
            seeding_refused(),
            MasksUnexamined(),
        ):
            warnings.simplefilter("ignore")
            args, named = _distinct((tuple(example_args), dict(kwargs or {})))
            exported = torch.export.export(program, args, named, dynamic_shapes=dynamic_shapes, strict=False)
            # Under autocast the ops of an export have its results, and only tracing them again shows its casts.
            return exported.run_decompositions({}) if torch.is_autocast_enabled("cpu") else exported
    except Exception as error:
        is_function = isinstance(program, _Function)
        scope = getattr(program.forward, "__qualname__", "") if is_function else type(program).__name__
        raise export_failure(scope, error) from error


class _GeneratorsRefused(TorchFunctionMode):
    """Refuses a call that draws from a generator of the program's own: export forgets which one it was."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for given in (*args, *kwargs.values()):
            if isinstance(given, torch.Generator) and given is not torch.default_generator:
                raise RuntimeError(GENERATOR)
        return func(*args, **kwargs)


def _distinct(arguments: Any) -> Any:
    """The arguments with a tensor object of its own for each: export takes one object for one argument."""
    seen: set[int] = set()

    def own(item: Any) -> Any:
        if not isinstance(item, torch.Tensor):
            return item
        if id(item) in seen:
            return item.detach().requires_grad_(item.requires_grad)
        seen.add(id(item))
        return item

    return pytree.tree_map(own, arguments)


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Without torch's log of a failed export: the error that we raise says the same, at the user's line."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


def _is_aten_level(module: GraphModule) -> bool:
    """Whether every call is an ATen overload and the placeholders carry fake tensors."""
    for node in module.graph.nodes:
        if node.op == "placeholder" and "val" not in node.meta:
            return False
        if node.op in ("call_module", "call_method"):
            return False
        if node.op == "call_function" and getattr(node.target, "__module__", "").startswith(
            ("torch.nn", "torch._C")
        ):
            return False
        if node.op == "call_function" and "val" not in node.meta and node.target.__name__ != "getitem":
            return False
    return True


class _FunctionBuilder:
    """One ``@main`` under construction: arguments, walk, results, attributes."""

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self.context = new_context()
        self.mlir = ir.Module.create(loc=ir.Location.unknown(self.context))
        self.emitter = Emitter(self.mlir, self.weights)
        self.recorder = Recorder(self.emitter)

    def build(
        self,
        graph: GraphModule,
        arguments: Sequence[Any],
        literals: Mapping[int, tuple[torch.Tensor, str]],
        sizes: GraphSizes,
        finish: Any,
    ) -> None:
        """``arguments`` are (position, meta) of the placeholders that become function arguments."""
        self.metas = [meta for _, meta in arguments]
        types = [self.emitter._result_type(meta) for meta in self.metas]
        self.function, block = self.emitter.function("main", types)
        inputs: dict[int, Any] = {}
        with self.emitter.block(block):
            pairs = list(zip(block.arguments, (meta for _, meta in arguments), strict=True))
            symbols = bind_argument_shapes(self.emitter, pairs, sizes.ranges)
            for condition, reason in sizes.conditions:
                symbols.demand(condition, reason)
            for index, (position, meta) in enumerate(arguments):
                value = block.arguments[index]
                inputs[position] = (
                    self.recorder.tensor(value, meta, argument=index)
                    if isinstance(meta, torch.Tensor)
                    else value
                )
            for position, (tensor, name) in literals.items():
                inputs[position] = self.recorder.tensor(self.emitter.literal(tensor, name), tensor)
            self.references = [inputs[position] for position, _ in arguments]
            count = sum(1 for node in graph.graph.nodes if node.op == "placeholder")
            outputs = GraphWalk(self.recorder, graph).run([inputs.get(i) for i in range(count)])
            results = finish(outputs)
            self.emitter.location = ir.Location.unknown(self.context)
            self.emitter.op("func.return", results, [])
        self._set_type(types, [value.type for value in results])

    def _set_type(self, inputs: Sequence[ir.Type], results: Sequence[ir.Type]) -> None:
        kind = ir.FunctionType.get(list(inputs), list(results), context=self.context)
        self.function.attributes["function_type"] = ir.TypeAttr.get(kind, context=self.context)

    def attributes(self, state: Sequence[str], writes: Sequence[int]) -> None:
        if state:
            names = [ir.StringAttr.get(name, self.context) for name in state]
            self.function.attributes[STATE] = ir.ArrayAttr.get(names, self.context)
        if writes:
            self.function.attributes[WRITES] = ir.DenseI64ArrayAttr.get(list(writes), self.context)

    def ask(self, layout: str) -> None:
        """Say what the program asks of its arguments; those of the example have to be like that."""
        if not layout:
            return
        if not all(is_dense(meta) for meta in self.metas if isinstance(meta, torch.Tensor)):
            raise ImportFailed(
                "the program gives other numbers for other strides, and an example argument is not contiguous",
                stage="importer: fx",
                advice="pass contiguous arguments, then and now; or use torch.compile, which looks at strides",
            )
        self.function.attributes[LAYOUT] = ir.StringAttr.get(layout, self.context)


def import_exported(program: ExportedProgram, layout: str = "") -> TorchModule:
    """Import an exported program: weights are literals, mutated buffers are state, user inputs arguments.

    ``layout`` is what the program asks of its arguments beyond what the graph shows.
    """
    if any(_updates_statistics(node) or _is_autocast(node) for node in program.graph.nodes):
        program = program.run_decompositions({})
    signature = program.graph_signature
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    mutated = _mutated(program)
    builder = _FunctionBuilder()
    user: list[tuple[int, Any]] = []
    state: list[tuple[int, Any]] = []
    names: list[str] = []
    state_tensors: dict[str, torch.Tensor] = {}
    literals: dict[int, tuple[torch.Tensor, str]] = {}
    constants: dict[int, Any] = {}
    position_of_user = 0
    for position, (node, spec) in enumerate(zip(placeholders, signature.input_specs, strict=True)):
        if spec.kind == InputKind.USER_INPUT:
            meta = node.meta.get("val")
            if isinstance(meta, (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)):
                user.append((position, meta))
                names.append(node.name)
            else:
                constants[position_of_user] = meta
            position_of_user += 1
            continue
        tensor, target = _lifted(program, spec)
        if target in mutated:
            state.append((position, tensor))
            state_tensors[target] = tensor
        elif isinstance(tensor, torch.Tensor):
            literals[position] = (tensor, target)
    arguments = [*user, *state]
    outputs: list[tuple[Any] | None] = []
    writes: list[int] = []

    def finish(results: Any) -> list[ir.Value]:
        flat = pytree.tree_leaves(results, is_leaf=lambda item: item is None)
        values = []
        for item, spec in zip(flat, signature.output_specs, strict=True):
            if spec.kind == OutputKind.USER_OUTPUT:
                value, constant = _output(builder, item)
                outputs.append(constant)
                values.extend([] if value is None else [value])
            else:
                _write_back(builder, program, spec, item, state_tensors, len(user))
        extra, indices = _written(builder)
        writes.extend(indices)
        return [*values, *extra]

    sizes = graph_sizes(program.graph, program.range_constraints)
    builder.build(program.graph_module, arguments, literals, sizes, finish)
    builder.attributes(list(state_tensors), writes)
    builder.ask(max(layout, builder.recorder.aliasing.layout))
    call_spec = program.call_spec
    result = Signature(call_spec.in_spec, call_spec.out_spec, names, constants, outputs)
    return TorchModule(builder.mlir, builder.weights, state_tensors, result, builder.emitter.inlined)


def _mutated(program: ExportedProgram) -> set[str]:
    """Buffers and other tensors that the program writes: listed in the signature, or changed in place by a node."""
    signature = program.graph_signature
    found = set(signature.buffers_to_mutate.values())
    by_name = {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    if not any(_is_mutable(node) for node in program.graph.nodes):
        return found
    aliases: dict[torch.fx.Node, str] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in by_name:
            aliases[node] = by_name[node.name]
        elif node.op == "call_function" and node.args and isinstance(node.args[0], torch.fx.Node):
            source = aliases.get(node.args[0])
            schema = getattr(node.target, "_schema", None)
            if (
                source is not None
                and schema is not None
                and schema.returns
                and schema.returns[0].alias_info is not None
            ):
                aliases[node] = source
            if schema is not None and schema.is_mutable:
                for argument, value in zip(schema.arguments, node.args, strict=False):
                    written = argument.alias_info is not None and argument.alias_info.is_write
                    if written and isinstance(value, torch.fx.Node) and value in aliases:
                        found.add(aliases[value])
    return found


def _updates_statistics(node: torch.fx.Node) -> bool:
    """A normalisation in training mode writes its running statistics, which its schema does not say."""
    name = getattr(getattr(node.target, "_schema", None), "name", "")
    if name == "aten::batch_norm":
        return node.args[5] is True and node.args[3] is not None
    return name == "aten::instance_norm" and node.args[5] is True and node.args[3] is not None


def _is_autocast(node: torch.fx.Node) -> bool:
    """A region under autocast: its casts are not in it."""
    is_region = isinstance(node.target, torch._ops.HigherOrderOperator)
    return is_region and node.target.name() == "wrap_with_autocast"


def _is_mutable(node: torch.fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _lifted(program: ExportedProgram, spec: Any) -> tuple[Any, str]:
    target = spec.target or spec.arg.name
    if target in program.state_dict:
        return program.state_dict[target], target
    return program.constants.get(target), target


def _output(builder: _FunctionBuilder, item: Any) -> tuple[ir.Value | None, tuple[Any] | None]:
    if isinstance(item, TensorRef):
        return builder.recorder.read(item), None
    if isinstance(item, ir.Value):
        return item, None
    return None, (item,)


def _write_back(
    builder: _FunctionBuilder,
    program: ExportedProgram,
    spec: Any,
    item: Any,
    state: Mapping[str, Any],
    users: int,
) -> None:
    """An output that the signature calls a mutation becomes a write to its argument."""
    if spec.kind == OutputKind.BUFFER_MUTATION:
        index = users + list(state).index(spec.target)
    elif spec.kind == OutputKind.USER_INPUT_MUTATION:
        inputs = [s.arg.name for s in program.graph_signature.input_specs if s.kind == InputKind.USER_INPUT]
        index = inputs.index(spec.target)
    else:
        return
    builder.recorder.write(builder.references[index], builder.recorder.read(item))


def _written(builder: _FunctionBuilder) -> tuple[list[ir.Value], list[int]]:
    """New values of the arguments that were written, and their indices."""
    values, indices = [], []
    for index, reference in enumerate(builder.references):
        if isinstance(reference, TensorRef) and reference.storage.version > 0:
            values.append(builder.recorder.read(reference))
            indices.append(index)
    return values, indices


def import_aten_graph(module: GraphModule, example_args: Sequence[Any] | None = None) -> TorchModule:
    """Import a graph module at ATen level whose placeholders are its arguments (AOTAutograd's form)."""
    builder = _FunctionBuilder()
    nodes = [node for node in module.graph.nodes if node.op == "placeholder"]
    arguments = [
        (position, node.meta["val"])
        for position, node in enumerate(nodes)
        if isinstance(
            node.meta["val"], (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool, int, float)
        )
    ]
    outputs: list[tuple[Any] | None] = []
    writes: list[int] = []
    specs: list[Any] = []

    def finish(results: Any) -> list[ir.Value]:
        flat, spec = pytree.tree_flatten(results, is_leaf=lambda item: item is None)
        specs.append(spec)
        values = []
        for item in flat:
            value, constant = _output(builder, item)
            outputs.append(constant)
            values.extend([] if value is None else [value])
        extra, indices = _written(builder)
        writes.extend(indices)
        return [*values, *extra]

    ranges = _shape_env_ranges([meta for _, meta in arguments])
    builder.build(module, arguments, {}, GraphSizes(ranges), finish)
    builder.attributes([], writes)
    builder.ask(builder.recorder.aliasing.layout)
    in_spec = pytree.tree_structure((tuple(range(len(nodes))), {}))
    present = {position for position, _ in arguments}
    constants = {i: None for i in range(len(nodes)) if i not in present}
    names = [nodes[position].name for position, _ in arguments]
    return TorchModule(
        builder.mlir,
        builder.weights,
        {},
        Signature(in_spec, specs[0], names, constants, outputs),
        builder.emitter.inlined,
    )


def _shape_env_ranges(metas: Sequence[Any]) -> dict[Any, Any]:
    for meta in metas:
        sizes = meta.shape if isinstance(meta, torch.Tensor) else [meta]
        for size in sizes:
            if isinstance(size, torch.SymInt):
                return dict(size.node.shape_env.var_to_range)
    return {}


__all__ = ["ImportFailed", "export", "import_aten_graph", "import_exported", "import_fx"]
