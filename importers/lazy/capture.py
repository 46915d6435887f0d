"""One run of a program on the lazy device: what it reads, what it returns and what it writes."""

from __future__ import annotations

import copy
import enum
import inspect
import itertools
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from torch_tvm.aten.decompositions import gaussian_nll_loss
from torch_tvm.dialect.types import is_array
from torch_tvm.importers import attributes
from torch_tvm.importers.lazy import device
from torch_tvm.importers.lazy.calls import WholeOp
from torch_tvm.importers.lazy.whole_ops import IMPORTER, WholeOps, native_batch_norm, random_op
from torch_tvm.importers.recording.argument_strides import LayoutQueries
from torch_tvm.importers.state import address, memory_behind
from torch_tvm.importers.tracing.cumulative_norms import cumulative_norms_unasked
from torch_tvm.importers.tracing.data_dependence import DependsOnData
from torch_tvm.importers.tracing.distribution_checks import ConstraintsAsserted
from torch_tvm.importers.tracing.encoder_padding import encoders_hide_padding
from torch_tvm.importers.tracing.known_numbers import NumbersKnown
from torch_tvm.importers.tracing.mask_questions import MasksUnexamined
from torch_tvm.importers.tracing.seeding import seeding_refused
from torch_tvm.importers.user_code import is_users, user_place
from torch_tvm.support.errors import ImportFailed, InvalidInput, SourceLocation, TorchTvmError, first_line

# Numbers of sources that have no device data of their own: far from those that the backend gives.
_OWN_NUMBERS = itertools.count(10**12)


@dataclass(eq=False)
class Source:
    """A tensor that the program found: an argument (``position`` among the flat ones) or one of its own.

    ``lazy`` stands for ``tensor`` during the run, a view of ``owner``'s where it lies in the memory of that;
    ``number`` is that of its device data. ``replaced`` is what an attribute that held it holds after the run.
    """

    tensor: torch.Tensor
    name: str
    position: int | None = None
    owner: Source | None = None
    lazy: torch.Tensor = field(init=False)
    number: int = field(init=False)
    before: Any = field(init=False)
    replaced: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.owner is None:
            lazy = device.from_cpu(self.tensor)
            self.number = device.data_of([lazy])[0][0]
        else:
            lazy = self._within(self.owner)
            self.number = next(_OWN_NUMBERS)
        if isinstance(self.tensor, torch.nn.Parameter):
            lazy = torch.nn.Parameter(lazy, requires_grad=self.tensor.requires_grad)
        elif self.tensor.requires_grad:
            lazy.requires_grad_()
        self.lazy = lazy
        self.before = device.fingerprint(lazy)

    def _within(self, owner: Source) -> torch.Tensor:
        """The stand-in as a view of that of the owner, in views that the lazy device can write through."""
        if not self.tensor.is_contiguous():
            raise ImportFailed(
                f"'{self.name}' shares memory with '{owner.name}', which the program writes, and is not contiguous",
                stage=f"importer: {IMPORTER}",
                advice="use frontend='torchscript', or give it its own memory",
            )
        start = self.tensor.storage_offset() - owner.tensor.storage_offset()
        flat = owner.lazy.detach().view(-1)
        return flat[start : start + self.tensor.numel()].view(self.tensor.shape)

    @property
    def value(self) -> torch.Tensor:
        """The tensor after the run: what was assigned in its place, or the tensor itself with what
        was written to it.
        """
        return self.lazy if self.replaced is None else self.replaced

    def is_written(self) -> bool:
        """Whether the program wrote it since."""
        if self.replaced is not None:
            return True
        device.sync(self.lazy)
        return device.fingerprint(self.lazy) != self.before


@dataclass
class Capture:
    """What a run left: ``outputs`` are the flat results (lazy tensors or plain values)."""

    sources: list[Source]
    leaves: list[Any]
    in_spec: pytree.TreeSpec
    names: list[str]
    outputs: list[Any]
    out_spec: pytree.TreeSpec
    calls: list[WholeOp]
    queries: LayoutQueries


def capture(program: Callable[..., Any], args: Sequence[Any]) -> Capture:
    """Run ``program(*args)`` on the lazy device; modules run without gradients, on their own tensors' stand-ins."""
    device.start()
    found = _capture(program, args, {})
    owners = _owners(found.sources)
    return _capture(program, args, owners) if owners else found


def _owners(sources: Sequence[Source]) -> dict[int, tuple[str, torch.Tensor]]:
    """By address: the tensor around those of the program that share memory of which the program writes some."""
    groups: dict[int, list[Source]] = {}
    for source in sources:
        if source.position is None:
            groups.setdefault(address(source.tensor), []).append(source)
    return {
        where: memory_behind([(source.name, source.tensor) for source in group])
        for where, group in groups.items()
        if len(group) > 1 and any(source.is_written() for source in group)
    }


def _capture(
    program: Callable[..., Any], args: Sequence[Any], owners: Mapping[int, tuple[str, torch.Tensor]]
) -> Capture:
    leaves, in_spec = pytree.tree_flatten((tuple(args), {}))
    names = _names(program, args)
    is_module = isinstance(program, torch.nn.Module)
    has_gradients = torch.is_grad_enabled() and not is_module
    whole = WholeOps(has_gradients)
    run = _Run(whole.opaque, owners)
    for name, leaf in zip(names, leaves, strict=True):
        _check_fixed(name, leaf)
    stand_ins = [
        run.source(leaf, names[position], position).lazy if isinstance(leaf, torch.Tensor) else leaf
        for position, leaf in enumerate(leaves)
    ]
    body = run.stand_in(program) if is_module else program
    before = attributes.of_module(body) if isinstance(body, torch.nn.Module) else {}
    given, _ = pytree.tree_unflatten(stand_ins, in_spec)
    queries = LayoutQueries(recorded=False)
    with torch.set_grad_enabled(has_gradients), queries, MasksUnexamined(), ConstraintsAsserted(), whole:
        result = run.call(body, given, type(program).__name__ if is_module else "")
        flat, out_spec = pytree.tree_flatten(result, is_leaf=lambda item: item is None)
        outputs = [run.on_device(item) for item in flat]
        for item in outputs:
            _check_output(item)
        if is_module:
            run.note_attributes(program, body, before)
    return Capture(list(run.sources.values()), leaves, in_spec, names, outputs, out_spec, whole.calls, queries)


_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, range, enum.Enum),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
    *(type, types.FunctionType, types.BuiltinFunctionType),
)


def _check_fixed(name: str, leaf: Any) -> None:
    """Refuse an argument that is no tensor and may change between two calls: the graph holds what it is now."""
    if isinstance(leaf, torch.Tensor) or _cannot_change(leaf):
        return
    raise InvalidInput(
        f"a {type(leaf).__name__} may change between calls, and the graph holds what it is now",
        subject=f"argument '{name}'",
        stage=f"importer: {IMPORTER}",
        advice="pass its tensors and numbers, in lists, tuples, dicts or named tuples where they are many",
    )


def _cannot_change(value: Any) -> bool:
    if isinstance(value, slice):
        return all(map(_cannot_change, (value.start, value.stop, value.step)))
    if isinstance(value, frozenset):
        return all(map(_cannot_change, value))
    if is_dataclass(value) and not isinstance(value, type):
        is_frozen = value.__dataclass_params__.frozen  # type: ignore[attr-defined]
        return is_frozen and all(_cannot_change(getattr(value, each.name)) for each in fields(value))
    is_number = any((each.__module__, each.__name__) == ("numpy", "generic") for each in type(value).__mro__)
    return is_number or isinstance(value, _PLAIN)


def _check_output(item: Any) -> None:
    if item is None or isinstance(item, (bool, int, float, str, torch.dtype, torch.device)):
        return
    if isinstance(item, torch.Tensor) and item.device.type == "lazy":
        device.sync(item)
        return
    raise ImportFailed(
        f"the program returns a {type(item).__name__}",
        stage=f"importer: {IMPORTER}",
        advice="return tensors, numbers, and lists, tuples and dicts of them",
    )


def _names(program: Callable[..., Any], args: Sequence[Any]) -> list[str]:
    """A name for each flat argument: the parameter's, with the path inside of it."""
    function = program.forward if isinstance(program, torch.nn.Module) else program
    try:
        parameters = [p.name for p in inspect.signature(function).parameters.values() if p.kind != p.VAR_POSITIONAL]
    except (TypeError, ValueError):
        parameters = []
    names = []
    for index, argument in enumerate(args):
        own = parameters[index] if index < len(parameters) else f"arg{index}"
        paths, _ = pytree.tree_flatten_with_path(argument)
        names += [own + pytree.keystr(path) for path, _ in paths]
    return names


class _Run:
    """Stand-ins on the lazy device for every tensor that a program meets."""

    def __init__(self, opaque: set[int], owners: Mapping[int, tuple[str, torch.Tensor]]) -> None:
        self.sources: dict[int, Source] = {}
        self.opaque = opaque
        self.owners = owners

    def source(self, tensor: torch.Tensor, name: str, position: int | None = None) -> Source:
        """The source of a tensor; two arguments that are one tensor are refused where they are written."""
        if tensor.device.type != "cpu" or not is_array(tensor):
            raise InvalidInput(
                f"'{name}' is no plain CPU tensor ({type(tensor).__name__}, {tensor.device.type}, {tensor.layout})",
                stage=f"importer: {IMPORTER}",
                advice="pass CPU tensors; they are moved to the lazy device here",
            )
        key = id(tensor) if position is None else -1 - position
        found = self.sources.get(key)
        if found is None:
            owner = self._owner(tensor) if position is None else None
            found = self.sources[key] = Source(tensor, name, position, owner)
            self.opaque.add(found.number)
        return found

    def _owner(self, tensor: torch.Tensor) -> Source | None:
        name, memory = self.owners.get(address(tensor), ("", tensor))
        return None if memory is tensor else self.source(memory, name)

    def stand_in(self, module: torch.nn.Module) -> torch.nn.Module:
        """A copy of a module that shares no tensor with it: its tensors are on the lazy device."""
        memo: dict[int, Any] = {}
        for name, tensor in _tensors_of(module):
            memo[id(tensor)] = self.source(tensor, name).lazy
        return copy.deepcopy(module, memo)

    def note_attributes(self, module: torch.nn.Module, body: torch.nn.Module, before: attributes.Attributes) -> None:
        """Note the tensors that ``body``, the copy of ``module`` that ran, has given up for others.

        ``before`` are its attributes before it ran.
        """
        left = dict(_tensors_of(body))
        for name, tensor in _tensors_of(module):
            source, value = self.sources[id(tensor)], self.on_device(left.get(name))
            if value is source.lazy:
                continue
            if value is None or (value.dtype, value.shape) != (tensor.dtype, tensor.shape):
                raise ImportFailed(
                    f"attribute '{name}' changes its shape or dtype",
                    stage=f"importer: {IMPORTER}",
                    advice="keep the shape and dtype of a module's state",
                )
            _check_output(value)
            source.replaced = value
        for key, (_, new) in attributes.changes(before, attributes.of_module(body)).items():
            if isinstance(before[key], torch.Tensor) or _is_on(new, "lazy"):
                continue
            raise ImportFailed(
                f"attribute '{'.'.join(part for part in key if part)}' is changed by the program",
                stage=f"importer: {IMPORTER}",
                advice="make it a buffer, or use frontend='torchscript', where it becomes state",
            )

    def on_device(self, item: Any) -> Any:
        """The stand-in of a CPU tensor that the program found elsewhere; anything else as it is."""
        if isinstance(item, torch.Tensor) and item.device.type == "cpu":
            return self.source(item, f"captured_{len(self.sources)}").lazy
        return item

    def call(self, program: Callable[..., Any], args: Sequence[Any], scope: str) -> Any:
        try:
            with (
                torch.device("lazy"),
                _Watch(self),
                seeding_refused(),
                NumbersKnown(),
                encoders_hide_padding(),
                cumulative_norms_unasked(),
            ):
                return program(*args)
        except TorchTvmError:
            raise
        except Exception as error:
            problem = first_line(error)
            raise ImportFailed(
                f"the program fails on the lazy device: {type(error).__name__}: {problem}",
                location=_place_of(error, scope),
            ) from error


def _tensors_of(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters, buffers and plain tensor attributes by name."""
    yield from module.named_parameters()
    yield from module.named_buffers()
    for (path, name), value in attributes.of_module(module).items():
        if isinstance(value, torch.Tensor):
            yield f"{path}.{name}" if path else name, value


def _place_of(error: Exception, scope: str) -> SourceLocation:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    if not frames:
        return SourceLocation(scope=scope, importer=IMPORTER)
    return SourceLocation(frames[-1].filename, frames[-1].lineno or 0, scope, IMPORTER)


def _normal(mean: Any, std: Any = 1.0, size: Any = None, **named: Any) -> torch.Tensor:
    """``torch.normal``, which does not ask for the device of what it makes."""
    if size is None:
        return torch.normal(mean, std, **named)
    return torch.normal(mean, std, size, **{"device": "lazy", **named})


def _stays(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """``x.cpu()`` of a program whose tensors are on the CPU anyhow."""
    return tensor


def _listed(tensor: torch.Tensor) -> Any:
    """``x.tolist()`` by one number after the other: as a whole it would leave the device, with what lies there now."""
    return [_listed(row) for row in tensor.unbind()] if tensor.dim() else tensor.item()


_INSTEAD: dict[Any, Callable[..., Any]] = {
    torch.Tensor.cpu: _stays,
    torch.Tensor.tolist: _listed,
    torch.native_batch_norm: native_batch_norm,
    torch.normal: _normal,
    torch.nn.functional.gaussian_nll_loss: gaussian_nll_loss,
}


def _placed(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """The arguments with the lazy device where the program says the CPU, or an op of ``torch.ops`` makes a tensor."""
    args, kwargs = pytree.tree_map(_elsewhere, (args, kwargs))
    if function is torch.Tensor.to and args[1:2] in _CPU:
        args = (args[0], _LAZY, *args[2:])
    if (kwargs.get("device"),) in _CPU or (_makes_tensors(function) and kwargs.get("device") is None):
        kwargs = {**kwargs, "device": _LAZY}
    return args, kwargs


def _elsewhere(item: Any) -> Any:
    return _LAZY if isinstance(item, torch.device) and item.type == "cpu" else item


def _makes_tensors(function: Any) -> bool:
    """Whether it is an op that takes a device, and no tensor that has one."""
    if isinstance(function, torch._ops.OpOverloadPacket):
        return all(_makes_tensors(getattr(function, name)) for name in function.overloads() if not name.endswith("out"))
    if not isinstance(function, torch._ops.OpOverload):
        return False
    arguments = function._schema.arguments
    return any(a.name == "device" for a in arguments) and not any("Tensor" in str(a.type) for a in arguments)


_CPU = (("cpu",), ("cpu:0",))
_LAZY = torch.device("lazy", 0)  # the one that tensors are on: to any other they are copied
_OF_MEMORY = {torch.Tensor.resize_, torch.Tensor.resize_as_, torch.Tensor.set_}


class _Watch(TorchFunctionMode):
    """Moves CPU tensors that the program brings along, and reports what leaves the lazy device."""

    def __init__(self, run: _Run) -> None:
        super().__init__()
        self.run = run
        self.fallbacks = device.fallbacks()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = pytree.tree_map(self.run.on_device, (args, kwargs or {}))
        args, kwargs = _placed(function, args, kwargs)
        if torch.is_autocast_enabled("cpu"):
            raise ImportFailed(
                "the lazy device does not know autocast",
                subject=getattr(function, "__name__", str(function)),
                location=user_place(sys._getframe(1), IMPORTER),
                advice="import the program with import_fx or import_torchscript, or convert it with .to(dtype)",
            )
        if function in _OF_MEMORY:
            raise ImportFailed(
                "the lazy device does not know how a tensor lies in memory",
                subject=f"Tensor.{function.__name__}",
                location=user_place(sys._getframe(1), IMPORTER),
                advice="create a new tensor, or use frontend='torchscript'",
            )
        state = torch.get_rng_state()
        result = _INSTEAD.get(function, function)(*args, **kwargs)
        if not torch.equal(state, torch.get_rng_state()):
            name = getattr(function, "__name__", str(function))
            raise random_op(name, user_place(sys._getframe(1), IMPORTER))
        after = device.fallbacks()
        if after != self.fallbacks:
            new = [name for name, count in after.items() if count != self.fallbacks.get(name)]
            raise DependsOnData(
                "this op runs eagerly in the middle of the capture: there is no lazy kernel for it",
                subject=", ".join(f"torch.{name.replace('::', '.')}" for name in new),
                location=user_place(sys._getframe(1), IMPORTER),
                advice="import the program with import_fx or import_torchscript",
            )
        is_moved = any(_is_on(item, "lazy") for item in pytree.tree_leaves((args, kwargs)))
        if is_moved and any(_is_on(item, "cpu") for item in pytree.tree_leaves(result)):
            raise ImportFailed(
                "the program copies a tensor from the lazy device to the CPU",
                subject=getattr(function, "__name__", str(function)),
                location=user_place(sys._getframe(1), IMPORTER),
                advice="leave the tensor where it is, or use its own device: x.device",
            )
        return result


def _is_on(item: Any, kind: str) -> bool:
    return isinstance(item, torch.Tensor) and item.device.type == kind


__all__ = ["Capture", "Source", "capture"]
