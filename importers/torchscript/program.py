"""``import_torchscript``: a scripted or traced program becomes one Torch dialect function."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from torch_tvm.aten import autocast
from torch_tvm.aten.autocast import without_autocast
from torch_tvm.dialect.emitter import Emitter
from torch_tvm.dialect.mlir import func, ir, new_context
from torch_tvm.dialect.module import LAYOUT, Signature, TensorSpec, TorchModule
from torch_tvm.importers.recording.recorder import Recorder
from torch_tvm.importers.recording.storages import LiteralStorage, TensorRef
from torch_tvm.importers.state import Brought, SharedMemory, StateArguments
from torch_tvm.importers.torchscript.arguments import Arguments
from torch_tvm.importers.torchscript.attempt import HINTS, Assumptions, Program
from torch_tvm.importers.torchscript.context import IMPORTER
from torch_tvm.importers.torchscript.evaluator import Evaluator
from torch_tvm.importers.torchscript.graph import SCRIPT_PLACE, Code, nodes_of
from torch_tvm.importers.torchscript.handlers import resolve as handlers
from torch_tvm.importers.torchscript.handlers import tensors
from torch_tvm.importers.torchscript.handlers.objects import SCRIPT_OBJECTS
from torch_tvm.importers.torchscript.profiles import known_examples
from torch_tvm.importers.torchscript.results import Results
from torch_tvm.importers.torchscript.signals import CertainError, KnownSizes, OtherSizes, Specialise
from torch_tvm.importers.torchscript.sizes.demands import AnySizes
from torch_tvm.importers.torchscript.values import ObjectValue, Scalar, kind_of
from torch_tvm.importers.tracing.quiet import quiet_refusals
from torch_tvm.support.errors import ImportFailed, InvalidInput, SourceLocation, first_line
from torch_tvm.support.sandbox import crash_of

STAGE = f"importer: {IMPORTER}"
_ATTEMPTS = 24
_MOST_SIZES = 16


class Restart(Exception):
    """The import has to start again with more number attributes as state."""

    def __init__(self, numbers: dict[str, Any]) -> None:
        super().__init__()
        self.numbers = numbers


def import_torchscript(
    program: Any, example_args: Any = None, *, method: str = "forward", state: Collection[str] = ()
) -> TorchModule:
    """Import a TorchScript program.

    ``program`` is a ``ScriptModule`` (its ``method``), a ``ScriptFunction``, an ``nn.Module`` or a function
    (scripted here), or the path of a file that ``torch.jit.save`` wrote. ``example_args`` is a tuple of
    positional arguments: tensors or ``TensorSpec``s (``None`` is an unknown size), numbers, and lists, tuples
    and dicts of them. Without it, the shapes that a trace, or a profiled run just before, recorded are used.
    ``state`` names attributes that change between calls although this method only reads them.

    Numbers become run-time arguments of type ``!torch.int``, ``!torch.float`` or ``!torch.bool``, unless the
    program can only be imported for their example values; then ``signature.constants`` has them. Strings and
    ``None`` are constants. Raises :class:`ImportFailed` with the user's line for what cannot be imported.
    """
    try:
        loaded = load(program, method, example_args)
        examples = _example_tuple(loaded, example_args)
        with without_autocast():
            module = _attempts(loaded, examples, state)
        if autocast.is_active() and str(_attempts(loaded, examples, state)) != str(module):
            raise ImportFailed(
                "autocast would convert operands, which the script does not say",
                stage=STAGE,
                advice="import the module by import_fx, trace it under autocast, or convert it with .to(dtype)",
            )
        return module
    except UnicodeDecodeError as error:  # PyTorch keeps the names and lines of a file as bytes, and never looked
        raise ImportFailed(f"the program has text that is none: its file is damaged ({error})", stage=STAGE) from None


def import_graph(
    graph: Any, input_metas: Sequence[Any], names: Sequence[str] = (), *, importer: str = IMPORTER
) -> TorchModule:
    """Import a bare ``torch._C.Graph`` (of ``torch._C.parse_ir``, or of a lazy tensor) for inputs like these.

    ``input_metas`` holds a tensor, a ``TensorSpec``, a Python value, or a ``Weight`` or ``Fixed`` per graph
    input; a number for a tensor input is folded as a constant. ``importer`` is what locations call the frontend.
    """
    values = list(graph.inputs())
    if len(values) != len(input_metas):
        raise InvalidInput(f"the graph has {len(values)} inputs, {len(input_metas)} were described", stage=STAGE)
    return _attempts(Program(graph, None, None, list(names), importer), tuple(input_metas))


def _attempts(program: Program, examples: tuple[Any, ...], state: Collection[str] = ()) -> TorchModule:
    assumptions = Assumptions(state=frozenset(state), numbers=_numbers(program.owner, state))
    plain: ImportFailed | None = None
    for _ in range(_ATTEMPTS):
        try:
            with quiet_refusals(), torch.no_grad():
                return _Import(program, examples, assumptions).module()
        except Specialise as request:
            if request.arguments <= assumptions.constants:
                raise request.cause from None
            assumptions.constants |= request.arguments
        except Restart as request:
            assumptions.numbers.update(request.numbers)
        except SharedMemory as shared:
            assumptions.owners.update(shared.owners)
        except CertainError as error:
            raise ImportFailed(
                f"the program raises for these arguments: {error.message}", location=error.location
            ) from None
        except KnownSizes as request:
            assumptions.known_sizes |= request.sizes
        except (OtherSizes, ImportFailed) as stop:
            if isinstance(stop, OtherSizes) and _adopt(assumptions, stop):
                continue
            failure = stop.cause if isinstance(stop, OtherSizes) else stop
            if assumptions.hint == HINTS[0]:
                plain = failure
            if not assumptions.hints or not _has_unknown_sizes(examples):
                raise plain or failure from None
            assumptions.hint = assumptions.hints.pop(0)
            assumptions.sizes, assumptions.asked, assumptions.known_sizes = {}, set(), {}
    raise ImportFailed("the import did not settle on the types of this program", stage=STAGE)


def _adopt(assumptions: Assumptions, request: OtherSizes) -> bool:
    """Take examples of sizes over; whether that is worth another attempt."""
    if len(assumptions.sizes) > _MOST_SIZES or request.sizes.items() <= assumptions.sizes.items():
        return False
    assumptions.sizes |= request.sizes
    assumptions.asked |= request.sizes.keys() if request.are_known else set()
    return True


def _numbers(owner: Any, names: Collection[str]) -> dict[str, Any]:
    """Those of the attributes that are numbers, with their values."""
    found = {}
    for name in names:
        value = owner
        for part in name.split("."):
            value = value.getattr(part) if isinstance(value, SCRIPT_OBJECTS) else getattr(value, part)
        if kind_of(value) is not None:
            found[name] = value
    return found


def _has_unknown_sizes(examples: Any) -> bool:
    leaves = pytree.tree_leaves(examples)
    return any(isinstance(leaf, TensorSpec) and None in leaf.shape for leaf in leaves)


# -- sources -----------------------------------------------------------------------------------------------


def load(program: Any, method: str = "forward", example_args: Any = None) -> Program:
    """The graph behind whatever the user gave; ``example_args`` choose among overloads of a method."""
    script = as_script(program)
    if isinstance(script, torch.jit.ScriptFunction):
        return Program(script.graph, script.schema, None, script)
    if isinstance(script, torch._C.ScriptMethod):
        return Program(script.graph, script.schema, script.owner, script, name=script.name)
    owner = script._c
    bound = owner._get_method(_method_name(owner, method, example_args))
    return Program(bound.graph, bound.schema, owner, (script, bound), name=method)


def example_arguments(program: Any) -> tuple[Any, ...]:
    """What PyTorch knows of the arguments of a program's ``forward``: see :func:`known_examples`."""
    return known_examples(load(program))


def as_script(program: Any) -> torch.jit.ScriptModule | torch.jit.ScriptFunction | torch._C.ScriptMethod:
    """What the user gave as TorchScript: a file is loaded, a module or function scripted."""
    if isinstance(program, (str, os.PathLike)):
        return _load_file(os.fspath(program))
    if isinstance(program, (torch.jit.ScriptFunction, torch._C.ScriptMethod, torch.jit.ScriptModule)):
        return program
    if isinstance(program, torch.nn.Module) or callable(program):
        return _script(program)
    raise InvalidInput(
        f"expected a ScriptModule, a ScriptFunction, an nn.Module or a path, got {type(program).__name__}",
        subject="import_torchscript",
        stage=STAGE,
    )


def _method_name(owner: Any, method: str, example_args: Any) -> str:
    """``method``, or the overload of it (``forward__0``, ``forward__1``) that takes the example arguments."""
    if owner._has_method(method):
        return method
    overloads = [name for name in owner._method_names() if re.fullmatch(rf"{method}__\d+", name)]
    for name in overloads:
        arguments = owner._get_method(name).schema.arguments[1:]
        if all(_takes(a.type, example) for a, example in zip(arguments, example_args or (), strict=False)):
            return name
    known = ", ".join(owner._method_names())
    raise InvalidInput(f"the module has no method '{method}' for these arguments; it has: {known}", stage=STAGE)


def _takes(kind: Any, example: Any) -> bool:
    if isinstance(example, (torch.Tensor, TensorSpec)):
        return "TensorType" in (kind.kind(), *(inner.kind() for inner in _optional(kind)))
    return kind.kind() != "TensorType"


def _optional(kind: Any) -> list[Any]:
    return [kind.getElementType()] if kind.kind() == "OptionalType" else []


@contextmanager
def _own_calls() -> Iterator[None]:
    """Keeps torch.jit's deprecation warnings, caused by calls of ours, from the user."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\..* is deprecated.*")
        warnings.filterwarnings("ignore", message=r".*torch\.jit\..* is not supported in Python.*")
        yield


_SPARE_MEMORY = 1 << 30


def _read_all(path: str) -> None:
    """Load a file and ask for the source line of every node: PyTorch reads the lines only then, and checks neither."""
    with _own_calls():
        module = torch.jit.load(path, map_location="cpu")
    for name in module._c._method_names():
        for node in nodes_of(module._c._get_method(name).inlined_graph):
            node.sourceRange()


def _load_file(path: str) -> Any:
    if not os.path.isfile(path):
        raise InvalidInput(f"'{path}' is a directory" if os.path.isdir(path) else f"no such file: {path}", stage=STAGE)
    failure = crash_of(lambda: _read_all(path), memory=4 * os.path.getsize(path) + _SPARE_MEMORY)
    if failure is not None:
        raise ImportFailed(
            f"the file is damaged: PyTorch cannot read it ({failure})",
            subject=path,
            stage=STAGE,
            advice="save the module again with torch.jit.save",
        )
    try:
        with _own_calls():
            return torch.jit.load(path, map_location="cpu")
    except Exception as error:  # a damaged file: RuntimeError, and UnicodeDecodeError for text that is none
        problem = first_line(error).split(". This is an internal miniz error")[0]
        is_exported = path.endswith(".pt2")
        raise ImportFailed(
            f"not a TorchScript file: {problem}",
            subject=path,
            stage=STAGE,
            advice="pass torch.export.load(path)" if is_exported else "save the module with torch.jit.save",
        ) from None


def _script(program: Any) -> Any:
    try:
        with _own_calls():
            return torch.jit.script(program)
    except Exception as error:
        raise ImportFailed(
            f"torch.jit.script failed: {first_line(error)}",
            location=_place_in(str(error)),
            stage=STAGE,
            advice="use import_fx, torch.jit.trace, or change the code so that it scripts",
        ) from error


def _place_in(text: str) -> SourceLocation | None:
    found = SCRIPT_PLACE.search(text)
    return SourceLocation(found.group(1), int(found.group(2)), "", IMPORTER) if found else None


def _example_tuple(program: Program, example_args: Any) -> tuple[Any, ...]:
    if example_args is None:
        return known_examples(program)
    if isinstance(example_args, (torch.Tensor, TensorSpec)):
        return (example_args,)
    if not isinstance(example_args, (tuple, list)):
        raise InvalidInput(f"example_args must be a tuple of arguments, got {type(example_args).__name__}", stage=STAGE)
    return tuple(example_args)


# -- one attempt -------------------------------------------------------------------------------------------


class _Import:
    """One attempt to import a program under certain assumptions."""

    def __init__(self, program: Program, examples: tuple[Any, ...], assumptions: Assumptions) -> None:
        self.program = program
        self.examples = examples
        self.assumptions = assumptions
        context = new_context()
        unknown = ir.Location.unknown(context)
        self.mlir = ir.Module.create(loc=unknown)
        self.weights: dict[str, torch.Tensor] = {}
        self.emitter = Emitter(self.mlir, self.weights)
        shape_env = AnySizes(duck_shape=False, specialize_zero_one=False)
        mode = FakeTensorMode(shape_env=shape_env, allow_non_fake_inputs=True)
        self.ev = Evaluator(handlers, Recorder(self.emitter), mode, program.importer)

    def module(self) -> TorchModule:
        none = ir.FunctionType.get([], [], context=self.emitter.context)
        with ir.Location.unknown(self.emitter.context), ir.InsertionPoint(self.mlir.body):
            function = func.FuncOp("main", none)
        self.block = function.regions[0].blocks.append()
        self.state = StateArguments(self.emitter, self.block)
        with self.emitter.block(self.block):
            arguments = Arguments(self.ev, self.block, self.program, self.examples, self.assumptions)
            values = arguments.values()
            self._number_state()
            code = Code(self.program.graph, self.program.keep)
            outcome = self._run(code, values)
            results = Results(self.ev, outcome)
            self._add_state(arguments)
            arguments.bind_sizes()
            self.state.finish(function.operation, results.values, self.weights)
        layout = self.ev.recorder.strides.layout
        if layout:
            function.attributes[LAYOUT] = ir.StringAttr.get(layout, self.emitter.context)
        signature = Signature(
            in_spec=arguments.in_spec,
            out_spec=results.spec,
            names=arguments.names,
            constants=arguments.constants,
            outputs=results.outputs if any(output is not None for output in results.outputs) else None,
        )
        self.mlir.operation.verify()
        return TorchModule(self.mlir, self.weights, self.state.tensors, signature, self.emitter.inlined)

    def _run(self, code: Code, values: list[Any]) -> Any:
        if self.program.owner is not None:
            self.ev.objects.owners = self.assumptions.owners
            self.ev.objects.name_weights(torch.jit._recursive.wrap_cpp_module(self.program.owner))
            this = self.ev.objects.object(self.program.owner, "")
            return self.ev.objects.call_with_hooks(this, self.program.name, code, values)
        return self.ev.call(code, values, "")

    # -- state -----------------------------------------------------------------------------------------

    def _number_state(self) -> None:
        """Number attributes that the program changes are 0-d state tensors."""
        for path, number in self.assumptions.numbers.items():
            tensor = torch.tensor(number, dtype=torch.float64 if isinstance(number, float) else None)
            ref = tensors.literal(self.ev, tensor, path)
            self.ev.objects.tensors[id(tensor)] = (path, tensor, ref)
            self.ev.objects.number_storages[path] = ref.storage
            self.ev.objects.numbers[path] = tensors.element(self.ev, ref, kind_of(number))

    def _add_state(self, arguments: Arguments) -> None:
        """Make every tensor, number and attribute that the program changed a result that the caller writes back.

        Raises :class:`ImportFailed` for a list or dict of the module that it changed.
        """
        for index, value in arguments.writes():
            self.state.write(index, value)
        for path in self.ev.objects.changed_containers():
            raise self._unsupported_state(path)
        objects = self.ev.objects
        final: dict[str, tuple[Brought, ir.Value]] = {}
        for owner, name, before, after in objects.reassigned():
            self._reassigned(owner, name, before, after, final)
        objects.find_shared()
        self.state.add_written(self.ev.recorder, [each for each in objects.found() if each[0] not in final])
        for name, ((_, tensor, ref), value) in final.items():
            storage = ref.storage
            literal = storage.initial if ref.is_whole and isinstance(storage, LiteralStorage) else None
            self.state.write(self.state.add(name, tensor, ref.meta, literal), value)
        for name, storage in objects.read():
            if name in self.assumptions.state and name not in self.state.tensors:
                self.state.add_storage(storage)

    def _reassigned(
        self,
        owner: ObjectValue,
        name: str,
        before: Any,
        after: Any,
        final: dict[str, tuple[Brought, ir.Value]],
    ) -> None:
        path = f"{owner.path}.{name}" if owner.path else name
        if isinstance(before, TensorRef) and isinstance(after, TensorRef):
            brought = self.ev.objects.brought(before)
            assert brought is not None
            if before.meta.dtype != after.meta.dtype or tuple(before.meta.shape) != tuple(after.meta.shape):
                raise ImportFailed(
                    f"attribute '{path}' changes its shape or dtype",
                    stage=STAGE,
                    advice="keep the shape and dtype of a module's state",
                )
            final[brought[0]] = (brought, self.ev.recorder.read(after))
            return
        if kind_of(before) is None or kind_of(before) != kind_of(after):
            if before == after:
                return
            raise self._unsupported_state(path)
        if path not in self.assumptions.numbers:
            if not isinstance(after, Scalar) and before == after:
                return
            raise Restart({path: before})
        number = next(each for each in self.ev.objects.found() if each[0] == path)
        final[path] = (number, self.ev.scalars.tensor(after))

    def _unsupported_state(self, path: str) -> ImportFailed:
        return ImportFailed(
            f"attribute '{path}' is changed by the program, and it is neither a tensor nor a number",
            stage=STAGE,
            advice="keep such state outside the module, or in a buffer",
        )
