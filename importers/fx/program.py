"""``import_fx``: what it accepts, and how parameters, state and results of a program are told apart."""

from __future__ import annotations

import functools
import inspect
import logging
import operator
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch._C._functorch import is_functorch_wrapped_tensor
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.export._trace import _export
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from torch_tvm.aten import autocast
from torch_tvm.aten.autocast import without_autocast
from torch_tvm.aten.decompositions import WITHOUT_QUESTIONS
from torch_tvm.dialect.emitter import Emitter
from torch_tvm.dialect.mlir import ir, new_context
from torch_tvm.dialect.module import LAYOUT, Signature, TorchModule
from torch_tvm.importers import attributes
from torch_tvm.importers.cumulative_norms import cumulative_norms_unasked
from torch_tvm.importers.data_dependence import DependsOnData
from torch_tvm.importers.distribution_checks import ConstraintsAsserted
from torch_tvm.importers.encoder_padding import encoders_hide_padding
from torch_tvm.importers.fx.failure import DATA, GENERATOR, export_failure
from torch_tvm.importers.fx.graph import GraphWalk
from torch_tvm.importers.fx.quick_fakes import quick_batch_norms
from torch_tvm.importers.fx.scripted import import_scripted
from torch_tvm.importers.fx.sizes import GraphSizes, graph_sizes
from torch_tvm.importers.known_numbers import NumbersKnown
from torch_tvm.importers.mask_questions import MasksUnexamined
from torch_tvm.importers.quiet import quiet_refusals
from torch_tvm.importers.recording.aliases import is_always_alias, shares_memory
from torch_tvm.importers.recording.aliasing import LayoutQueries, is_dense
from torch_tvm.importers.recording.recorder import Recorder, check_in_place
from torch_tvm.importers.recording.storages import LiteralStorage, TensorRef
from torch_tvm.importers.seeding import seeding_refused
from torch_tvm.importers.state import Brought, SharedMemory, StateArguments, address, view_of
from torch_tvm.importers.symbols import bind_argument_shapes
from torch_tvm.importers.user_code import TORCH
from torch_tvm.support.errors import ImportFailed, InvalidInput

Program: TypeAlias = torch.nn.Module | ExportedProgram | Callable[..., Any]


def import_fx(
    program: Program, example_args: Sequence[Any] | None = None, *, dynamic_shapes: Any = None
) -> TorchModule:
    """Import an FX graph module, an exported program, or an ``nn.Module`` or a function (exported for you).

    ``example_args`` is the tuple of positional arguments to export with, ``dynamic_shapes`` as in
    ``torch.export.export``. Tensors that a function finds outside of its arguments are weights.
    A program that branches on numbers of its tensors is scripted, if its script does the same: no export has both ways.
    Raises :class:`ImportFailed` where the program cannot be exported, with the user's own line.
    """
    if isinstance(program, ExportedProgram):
        return import_exported(program.run_decompositions({}) if autocast.is_active() else program)
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
    try:
        with queries:
            exported = export(module, example_args, dynamic_shapes=dynamic_shapes)
    except DependsOnData as refusal:
        try:
            return import_scripted(program, example_args, dynamic_shapes)
        except Exception:
            raise refusal from None
    return import_exported(exported, "dense" if queries.asked else "")


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
            self.forward = _as_forward(function)
        except ValueError:  # a builtin: export names arguments after the signature
            self.forward = lambda *arguments: function(*arguments)


def _as_forward(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with code of the name ``forward``: export notes the lines of no other code."""
    if isinstance(function, types.MethodType):
        return types.MethodType(_as_forward(function.__func__), function.__self__)
    if isinstance(function, functools.partial):
        return functools.partial(_as_forward(function.func), *function.args, **function.keywords)
    if not isinstance(function, types.FunctionType):
        own = getattr(function, "__call__", None)  # noqa: B004
        return _as_forward(own) if isinstance(own, types.MethodType) else function
    code = function.__code__.replace(co_name="forward")
    same = types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    same.__kwdefaults__, same.__qualname__ = function.__kwdefaults__, function.__qualname__
    same.__module__, same.__annotations__ = function.__module__, function.__annotations__
    same.__dict__.update(function.__dict__)
    return same


def export(
    program: torch.nn.Module,
    example_args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> ExportedProgram:
    """``torch.export.export``, with its failures turned into :class:`ImportFailed` at the user's line.

    Tensors that the program puts in place of its parameters, buffers and attributes are written to those; a program
    that depends on another attribute which it changes is such a failure: export would keep the first value.
    """

    def exported() -> ExportedProgram:
        with (
            warnings.catch_warnings(),
            _quiet_logs(),
            quiet_refusals(),
            quick_batch_norms(),
            _ForgottenRefused(),
            seeding_refused(),
            MasksUnexamined(),
            ConstraintsAsserted(),
            encoders_hide_padding(),
            cumulative_norms_unasked(),
            _WithoutQuestions(),
            NumbersKnown(),
        ):
            warnings.simplefilter("ignore")
            args, named = _distinct((tuple(example_args), dict(kwargs or {})))
            how: dict[str, Any] = {"dynamic_shapes": dynamic_shapes, "strict": False}
            try:
                found = torch.export.export(program, args, named, **how)
                holds = any(map(is_functorch_wrapped_tensor, found.constants.values()))
            except GuardOnDataDependentSymNode as refusal:  # ``int(x)``: dynamo knows it for ``x.item()``
                holds = False
                try:
                    found = torch.export.export(program, args, named, **how | {"strict": True})
                except Exception:
                    raise refusal from None
            except Exception as error:
                holds = _takes_gradients(error)
                if not holds:
                    raise
            if holds:  # ``torch.func.grad`` and its kin are there below autograd only
                found = _export(program, args, named, **how, pre_dispatch=False)
            # Under autocast the ops of an export have its results, and only tracing them again shows its casts.
            return found.run_decompositions({}) if autocast.is_active() else found

    before = attributes.of_module(program)
    state: set[Key] = set()
    try:
        with _watched(program, state) as changed:
            result = exported()
        read = _constants_read(result)
        state |= {key for key, values in changed.items() if _is_state(before[key], values, read)}
        if state:
            with _watched(program, state) as changed:
                result = exported()
    except Exception as error:
        is_function = isinstance(program, _Function)
        scope = getattr(program.forward, "__qualname__", "") if is_function else type(program).__name__
        raise export_failure(scope, error) from error
    finally:
        attributes.forget_new(program, before)
        attributes.assign(program, {key: old for key, (old, _) in _changed_since(program, before).items()})
    if changed:
        _refuse_dependence(program, before, changed, result, exported)
    return result


def _takes_gradients(error: Exception) -> bool:
    """Whether an export failed within ``torch.func.grad`` and its kin."""
    frames = traceback.extract_tb(error.__traceback__)
    return any("_functorch/eager_transforms" in frame.filename for frame in frames)


Key = tuple[str, str]
Changed = dict[Key, tuple[Any, Any]]


def _changed_since(program: torch.nn.Module, before: attributes.Attributes) -> Changed:
    return attributes.changes(before, attributes.of_module(program))


def _are_alike(old: Any, new: Any) -> bool:
    """Whether both are tensors of one type."""
    are_tensors = isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor)
    return are_tensors and old.dtype == new.dtype and tuple(old.shape) == tuple(new.shape)


def _is_state(original: Any, values: tuple[Any, Any], read: set[int]) -> bool:
    """Whether an attribute that the program replaces is one that it reads, and can be written."""
    return _are_alike(*values) and _is_read(original, read)


def _is_read(original: Any, read: set[int]) -> bool:
    return any(tensor.untyped_storage().data_ptr() in read for tensor in attributes.tensors(original))


@contextmanager
def _watched(program: torch.nn.Module, state: set[Key]) -> Iterator[Changed]:
    """Collects the attributes that a call of the program changes.

    Registered tensors, and those of ``state``, that it replaces are written instead, at the end of the call.
    """
    changed: Changed = {}
    start: attributes.Attributes = {}

    def enter(module: torch.nn.Module, args: Any) -> None:
        start.update(attributes.of_module(program))

    def leave(module: torch.nn.Module, args: Any, result: Any) -> Any:
        found = _changed_since(program, start)
        written = {
            key: values
            for key, values in found.items()
            if _are_alike(*values) and (key in state or attributes.is_registered(program, key))
        }
        changed.update({key: values for key, values in found.items() if key not in written})
        if not written:
            return None
        olds = {old.untyped_storage()._cdata for old, _ in written.values()}

        def apart(item: Any) -> Any:
            is_old = isinstance(item, torch.Tensor) and item.untyped_storage()._cdata in olds
            return item.clone() if is_old else item

        kept = pytree.tree_map(apart, result)
        values = [(old, new.clone()) for old, new in written.values()]
        with torch.no_grad():
            for old, new in values:
                old.copy_(new)
        attributes.assign(program, {key: old for key, (old, _) in written.items()})
        return kept

    hooks = [program.register_forward_pre_hook(enter, prepend=True), program.register_forward_hook(leave)]
    try:
        yield changed
    finally:
        for hook in hooks:
            hook.remove()


def _refuse_dependence(
    program: torch.nn.Module,
    before: attributes.Attributes,
    changed: Changed,
    result: ExportedProgram,
    exported: Callable[[], ExportedProgram],
) -> None:
    """Raise when what the program changed is what it reads: another export, with it changed, is another graph."""
    read = _constants_read(result)
    for key, (old, new) in changed.items():
        are_tensors = isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor)
        if are_tensors and attributes.is_registered(program, key):
            raise ImportFailed(
                f"the program gives '{'.'.join(filter(None, key))}' another shape or dtype",
                stage="importer: fx",
                advice="keep the shape and dtype of a module's state",
            )
        if _is_read(before[key], read):
            raise _dependent(key)
    after = {key: attributes.with_zeros(new) for key, (_, new) in changed.items()}
    attributes.assign(program, after)
    try:
        again = exported()
        is_same = again.graph_module.code == result.graph_module.code
    except Exception:
        is_same = False
    finally:
        attributes.forget_new(program, before)
        attributes.assign(program, {key: before[key] for key in changed})
    if not is_same:
        raise _dependent(next(iter(changed)))


def _constants_read(program: ExportedProgram) -> set[int]:
    """Addresses of the constants that the graph reads."""
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    specs = [spec for spec in program.graph_signature.input_specs if spec.arg.name in used]
    constants = [program.constants.get(spec.target or "") for spec in specs]
    return {each.untyped_storage().data_ptr() for each in constants if isinstance(each, torch.Tensor)}


def _dependent(key: tuple[str, str]) -> ImportFailed:
    name = ".".join(part for part in key if part)
    return ImportFailed(
        f"the program changes its attribute '{name}' and reads it in the next call",
        stage="importer: fx",
        advice="make it a buffer (register_buffer), or use frontend='torchscript', where it becomes state; "
        "if it is a cache, which a call fills for these sizes, call the program once before",
    )


class _WithoutQuestions(TorchFunctionMode):
    """Has functions that ask for a tensor's values give the same without, and gives ``masked_select`` a tensor as large
    as its mask: for another, fake tensors allow too few results.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        func = WITHOUT_QUESTIONS.get(func, func)
        if func in (torch.masked_select, torch.Tensor.masked_select) and len(args) == 2 and not kwargs:
            args = torch.broadcast_tensors(*args)
        return func(*args, **(kwargs or {}))


class _ForgottenRefused(TorchFunctionMode):
    """Refuses what export forgets: which generator of its own a program draws from, and what it assigns to ``.data``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == torch.Tensor.data.__set__ and not _called_by_torch():
            raise RuntimeError(DATA)
        for given in (*args, *kwargs.values()):
            if isinstance(given, torch.Generator) and given is not torch.default_generator:
                raise RuntimeError(GENERATOR)
        return func(*args, **kwargs)


def _called_by_torch() -> bool:
    """Whether code of torch's calls the function that a mode is asked about; modes ask each other."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_name == "__torch_function__":
        frame = frame.f_back
    return frame.f_code.co_filename.startswith(TORCH)


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
        layout = max(self.layout, self.recorder.aliasing.layout)
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

    def __init__(
        self, program: ExportedProgram, owners: Mapping[int, tuple[str, torch.Tensor]], layout: str
    ) -> None:
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
        return TorchModule(
            builder.mlir, builder.weights, builder.state.tensors, signature, builder.emitter.inlined
        )

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
    """The user's names of arguments that are single values: the nodes of ``Q`` and ``naïve`` are ``q`` and ``na_ve``."""
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
        source = (
            node.args[0].meta.get("val") if node.args and isinstance(node.args[0], torch.fx.Node) else None
        )
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


def import_aten_graph(
    module: GraphModule, example_args: Sequence[Any] | None = None, *, is_guarded: bool = False
) -> TorchModule:
    """Import a graph module at ATen level whose placeholders are its arguments (AOTAutograd's form).

    With ``is_guarded`` PyTorch calls it with arguments of these strides only.
    """
    builder = _FunctionBuilder(is_guarded=is_guarded)
    nodes = [node for node in module.graph.nodes if node.op == "placeholder"]
    arguments = [
        (position, node.meta["val"])
        for position, node in enumerate(nodes)
        if isinstance(
            node.meta["val"], (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool, int, float)
        )
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
    return TorchModule(
        builder.mlir, builder.weights, builder.state.tensors, signature, builder.emitter.inlined
    )


def _shape_env_ranges(metas: Sequence[Any]) -> dict[Any, Any]:
    for meta in metas:
        sizes = meta.shape if isinstance(meta, torch.Tensor) else [meta]
        for size in sizes:
            if isinstance(size, torch.SymInt):
                return dict(size.node.shape_env.var_to_range)
    return {}


__all__ = ["ImportFailed", "export", "import_aten_graph", "import_exported", "import_fx"]
