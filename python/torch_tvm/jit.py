"""``torch_tvm.enable()``: functions and modules of TorchScript run compiled, wherever Python calls them.

A call of a scripted or traced function, or of a method of such a module, looks for code for arguments like these and
compiles it where there is none. Weights and buffers are those of the module, at every call. Whatever cannot be
compiled, or would differ from eager in what shares memory, runs in PyTorch; one warning for each program says why.
"""

from __future__ import annotations

import functools
import inspect
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, TypeVar

import torch
import tvm
from torch.utils import _pytree as pytree

from torch_tvm.dialect.module import TorchModule
from torch_tvm.driver.pipeline import compile_module
from torch_tvm.importers.torchscript import import_torchscript
from torch_tvm.inside_torch.graph_module import CompiledGraph
from torch_tvm.options import Options
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.reporting.report import Report
from torch_tvm.runtime.calls.arguments import fits_layout
from torch_tvm.runtime.module import CompiledModule
from torch_tvm.runtime.tracing import is_recorded
from torch_tvm.runtime.warnings import FallbackWarning, warn_user
from torch_tvm.support.errors import InvalidInput, TorchTvmError
from torch_tvm.targets import resolve_target

GROUP = "tvm::CompilationGroup"

_MOST_SIGNATURES = 64
"""Kinds of arguments that one program is compiled for; PyTorch runs the others."""

F = TypeVar("F", bound=Callable[..., Any])
_ENTRIES = (torch._C.ScriptFunction, torch._C.ScriptMethod)
_originals = {kind: (kind.__call__, kind.graph_for) for kind in _ENTRIES}


@dataclass(frozen=True)
class _Settings:
    target: tvm.target.Target
    options: Options


class _Process:
    """What the process is set to: the settings, innermost last, and the code of each program."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.settings: list[_Settings] = []
        self.default_backend: Any = None
        self.programs: weakref.WeakKeyDictionary[Any, _Program] = weakref.WeakKeyDictionary()


_State = _Process()


class _Thread(threading.local):
    """Whether the thread runs code of ours already: the importer itself calls scripted programs."""

    is_inside = False


_thread = _Thread()


class Enabled:
    """What :func:`enable` returns: leaving ``with`` disables again, and as a decorator it holds in
    the function alone.
    """

    def __init__(self, settings: _Settings) -> None:
        self._settings = settings

    def __enter__(self) -> Enabled:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _pop(self._settings)

    def __call__(self, function: F) -> F:
        _pop(self._settings)
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise InvalidInput(
                "a coroutine or a generator runs when its caller likes",
                subject="enable",
                advice="use with inside it",
            )

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            settings = replace(self._settings)  # one for each call: they may overlap in threads
            _push(settings)
            try:
                return function(*args, **kwargs)
            finally:
                _pop(settings)

        return call  # type: ignore[return-value]


def enable(*, target: Any = "auto", options: Mapping[str, Any] | None = None, torch_compile: bool = False) -> Enabled:
    """Run scripted and traced functions and modules compiled, until :func:`disable`.

    Each is compiled when it is called with arguments of a new kind (dtypes, shapes, values of what is no tensor).
    Calls that need gradients, and programs that cannot be compiled, run in PyTorch; one warning says so. A program is
    also run once op by op then, on copies, to see whether its results share memory.
    ``f.graph_for(*args)`` shows a compiled program as one node ``tvm::CompilationGroup`` with its graph. With
    ``torch_compile`` this becomes the default backend of ``torch.compile``, too. ``target`` and ``options`` are those
    of
    :func:`torch_tvm.compile`. Raises :class:`InvalidInput` for a wrong target or option.

    >>> import torch, torch_tvm
    >>> @torch.jit.script
    ... def scale(x, y):
    ...     return x * y + 1
    >>> with torch_tvm.enable():
    ...     print(scale(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0])))
    tensor([3., 7.])
    """
    settings = _Settings(resolve_target(target), Options.parse(options))
    if torch_compile and not hasattr(torch.compiler, "set_default_backend"):
        raise InvalidInput(
            f"torch {torch.__version__} has no default backend to set",
            subject="torch_compile",
            advice='write torch.compile(model, backend="torch_tvm")',
        )
    _push(settings)
    if torch_compile:
        with _State.lock:
            if _State.default_backend is None:
                _State.default_backend = torch.compiler.get_default_backend()
            torch.compiler.set_default_backend("torch_tvm")
    return Enabled(settings)


def disable() -> None:
    """Undo the last :func:`enable`; after the first one PyTorch is as it was. Without one there is nothing to undo.

    >>> import torch_tvm
    >>> enabled = torch_tvm.enable()
    >>> torch_tvm.disable()
    """
    with _State.lock:
        _pop(_State.settings[-1] if _State.settings else None)


def _pop(settings: _Settings | None) -> None:
    """Undo the :func:`enable` that gave these settings, if it is not undone."""
    with _State.lock:
        _State.settings[:] = [each for each in _State.settings if each is not settings]
        if _State.settings:
            return
        for kind in _ENTRIES:
            kind.__call__, kind.graph_for = _originals[kind]
        _State.programs.clear()
        if _State.default_backend is not None:
            torch.compiler.set_default_backend(_State.default_backend)
            _State.default_backend = None


def _push(settings: _Settings) -> None:
    with _State.lock:
        _State.settings.append(settings)
        for kind in _ENTRIES:
            call, graph_for = _originals[kind]
            kind.__call__ = _hooked(call)
            kind.graph_for = _shown(graph_for)


def _hooked(original: Callable[..., Any]) -> Callable[..., Any]:
    """A call of a scripted program that runs its code, where it has some."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = _positional(self, args, kwargs) if kwargs else args
        variant = None if given is None else _variant(self, given)
        if variant is None or given is None:
            return original(self, *args, **kwargs)
        try:
            return variant.run(given)
        except InvalidInput:
            return original(self, *args, **kwargs)  # it answers, or raises eager's own error

    return call


def _shown(original: Callable[..., Any]) -> Callable[..., Any]:
    """``graph_for`` with one node for what is compiled. PyTorch calls that of a method with the
    module before the rest.
    """

    def graph_for(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = args[1:] if isinstance(self, torch._C.ScriptMethod) else args
        positional = _positional(self, given, kwargs)
        variant = None if positional is None else _variant(self, positional)
        return original(self, *args, **kwargs) if variant is None else variant.graph()

    return graph_for


def _positional(program: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any] | None:
    """The arguments in the order of the schema; ``None`` where one before a given one is left out."""
    parameters = [argument.name for argument in program.schema.arguments]
    names = parameters[isinstance(program, torch._C.ScriptMethod) :][len(args) :]
    given = names[: len(kwargs)]
    return [*args, *(kwargs[name] for name in given)] if set(given) == set(kwargs) else None


def _variant(program: Any, args: Sequence[Any]) -> _Variant | None:
    """Code for a call, made if need be; ``None`` where PyTorch runs it."""
    if _thread.is_inside or not _State.settings or is_recorded():
        return None
    with _State.lock:
        if not _State.settings:
            return None
        settings = _State.settings[-1]
        known = _State.programs.get(program)
        if known is None or known.settings is not settings:
            known = _State.programs[program] = _Program(weakref.ref(program), settings)
    _thread.is_inside = True
    try:
        return known.variant(args)
    finally:
        _thread.is_inside = False


# -- one program ---------------------------------------------------------------------------------------------


@dataclass
class _Program:
    """A function or method: code by kind of arguments, ``None`` for those that PyTorch runs."""

    program: weakref.ref[Any]
    settings: _Settings
    variants: dict[Any, list[_Variant | None]] = field(default_factory=dict)
    is_told: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def variant(self, args: Sequence[Any]) -> _Variant | None:
        kind = _kind(args)
        if kind is None:
            self._tell("it is called with arguments other than tensors, numbers, texts and containers")
            return None
        key, leaves = kind
        with self.lock:
            known = self.variants.setdefault(key, [])
            known[:] = [each for each in known if each is None or each.is_current()]
            fitting = [each for each in known if each is None or each.takes(leaves)]
            if not fitting and sum(map(len, self.variants.values())) >= _MOST_SIGNATURES:
                self._tell(f"it is called with more than {_MOST_SIGNATURES} kinds of arguments")
                return None
            if not fitting:
                fitting = [self._compiled(args)]
                known += fitting
            variant = fitting[0]
            if variant is not None and variant.mixes(leaves):
                self._tell("it writes memory that it has under two names")
                return None
            if variant is not None and torch.is_grad_enabled() and _need_gradient(leaves, variant.tensors()):
                self._tell("it needs gradients, which torch.compile(backend='torch_tvm') trains with")
                return None
            return variant

    def _compiled(self, args: Sequence[Any]) -> _Variant | None:
        program = self.program()
        try:
            _refuse_hooks(program)
            imported = import_torchscript(program, tuple(args))
            _refuse_shared_memory(imported, args)
            module = canonicalize(imported)
            report = Report(target=str(self.settings.target), frontend="torchscript")
            weights = list(module.weights)
            compiled = compile_module(
                module, self.settings.target, options=self.settings.options, report=report, pack=not weights
            )
            return _Variant(program, compiled, module)
        except (_Differs, TorchTvmError) as error:
            self._tell(str(error))
            return None

    def _tell(self, why: str) -> None:
        """Warn of what PyTorch runs; once for each program."""
        if not self.is_told:
            self.is_told = True
            name = getattr(self.program(), "name", "a scripted program")
            lines = why.replace("\n", "\n  ")
            warn_user(f"'{name}' runs in PyTorch, not in compiled code: {lines}", FallbackWarning)


def _kind(args: Sequence[Any]) -> Any:
    """What code depends on of the arguments, and these one by one; ``None`` for those that it does not take."""
    leaves, spec = pytree.tree_flatten(tuple(args))
    kinds: list[Any] = []
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor):
            if leaf.layout != torch.strided or leaf.is_nested:
                return None
            kinds.append((leaf.dtype, tuple(leaf.shape), leaf.device.type))
        elif leaf is None or type(leaf) in (int, float, bool, str):
            kinds.append(type(leaf))
        else:
            return None
    return (spec, tuple(kinds)), leaves


def _need_gradient(leaves: Sequence[Any], tensors: Sequence[torch.Tensor]) -> bool:
    return any(leaf.requires_grad for leaf in (*leaves, *tensors) if isinstance(leaf, torch.Tensor))


class _Differs(Exception):
    """Compiled code would not be what the program is, although its numbers are."""


def _refuse_hooks(program: Any) -> None:
    """PyTorch runs hooks around the method; code of ours has them, too."""
    owner = getattr(program, "owner", None)
    if owner is not None and (owner._get_forward_hooks() or owner._get_forward_pre_hooks()):
        raise _Differs("the module has hooks, which PyTorch calls by itself")


def _refuse_shared_memory(module: TorchModule, args: Sequence[Any]) -> None:
    """Raise where a result shares memory with an argument, a tensor of the module or another result: code gives copies.

    The ops themselves tell: they run once, on copies of what they are given.
    """
    flat = [_copied(value) for value in (*module.signature.flatten(args, {}), *module.state.values())]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            results = module.run(flat)
        except Exception as error:  # whatever it is, eager says it
            raise _Differs(f"it raises for these arguments: {error}") from error
    results = results[: len(results) - len(module.writes)]
    held = [value for value in (*flat, *module.weights.values()) if isinstance(value, torch.Tensor)]
    for result in results:
        if not isinstance(result, torch.Tensor):
            continue
        if any(_share(result, other) for other in held):
            raise _Differs(
                "a result may share memory with an argument, a buffer or another result, and compiled code gives copies"
            )
        if any(size > 1 and not stride for size, stride in zip(result.shape, result.stride(), strict=True)):
            raise _Differs("a result is expanded, and compiled code gives all of its numbers")
        held.append(result)


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _share(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one is other or (one.numel() > 0 and _memory(one) == _memory(other))


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _inlined(program: Any) -> Any:
    graph = program.graph.copy()
    torch._C._jit_pass_inline(graph)
    return graph


# -- code for one kind of arguments --------------------------------------------------------------------------


class _Variant:
    """Compiled code with the weights and the state that the program has at the moment of a call."""

    def __init__(self, program: Any, compiled: CompiledModule, module: TorchModule) -> None:
        self._program = weakref.ref(program)
        self._owner = getattr(program, "owner", None)
        used = set(compiled.weight_names())
        self._weights = {name: tensor for name, tensor in module.weights.items() if name in used}
        self._live = {name: path for name in self._weights if (path := self._path(name)) is not None}
        self._state = {name: self._live_tensor(name) for name in module.state}
        self._writes = bool(compiled.parts().code.convention.writes)
        self._constants = dict(module.signature.constants)
        self._layout = module.layout
        self._values = [(read, read()) for read in self._readers(program)]
        if self._state:
            compiled.share_state(dict(self._state))
        self._compiled = compiled
        self._graph: CompiledGraph | None = None

    def run(self, args: Sequence[Any]) -> Any:
        """Call the code with the present weights."""
        if not self._weights:
            return self._compiled(*args)
        if self._graph is None:
            first = len(self._weights)
            self._graph = CompiledGraph(self._compiled, range(first, first + len(args)), list(enumerate(self._weights)))
        return self._graph(*self.tensors(), *args)

    def takes(self, leaves: Sequence[Any]) -> bool:
        """Whether the code is for the values and the strides of these flat arguments, where it depends on them."""
        tensors = (leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
        if not all(fits_layout(self._layout, tensor) for tensor in tensors):
            return False
        return all(bool(leaves[position] == value) for position, value in self._constants.items())

    def mixes(self, leaves: Sequence[Any]) -> bool:
        """Whether something is written that may be seen under another name: as an argument and in the module, say."""
        if not self._writes:
            return False
        own = [*self.tensors(), *self._state.values()]
        given = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        places = {_memory(tensor) for tensor in own if tensor.numel()}
        is_apart = len(places) == sum(tensor.numel() > 0 for tensor in own)
        return not is_apart or any(leaf.numel() and _memory(leaf) in places for leaf in given)

    def is_current(self) -> bool:
        """Whether the numbers that the program read, and the tensors that it changes, are still those."""
        try:
            return all(read() == value for read, value in self._values) and all(
                self._live_tensor(name) is tensor for name, tensor in self._state.items()
            )
        except (AttributeError, RuntimeError, _Differs):
            return False

    def tensors(self) -> list[torch.Tensor]:
        """The weights now, in the order of their names."""
        return [self._read(self._live[name]) if name in self._live else t for name, t in self._weights.items()]

    def graph(self) -> Any:
        """The program as one node, with its graph."""
        inner = _inlined(self._program())
        outer = torch._C.Graph()
        inputs = []
        for value in inner.inputs():
            given = outer.addInput(value.debugName().split(".")[0])
            given.setType(value.type())
            inputs.append(given)
        results = list(inner.outputs())
        node = outer.create(GROUP, inputs, len(results))
        node.g_("Subgraph", inner)
        outer.insertNode(node)
        for result, given in zip(node.outputs(), results, strict=True):
            result.setType(given.type())
            outer.registerOutput(result)
        return outer

    def _path(self, name: str) -> tuple[str, ...] | None:
        """Where the module has the weight, ``None`` for a constant of the program."""
        path = tuple(name.split("."))
        try:
            found = self._read(path)
        except (AttributeError, RuntimeError):
            return None
        return path if isinstance(found, torch.Tensor) and found.shape == self._weights[name].shape else None

    def _live_tensor(self, name: str) -> torch.Tensor:
        try:
            tensor = self._read(name.split("."))
        except (AttributeError, RuntimeError):
            tensor = None
        if not isinstance(tensor, torch.Tensor) or not tensor.is_contiguous():
            raise _Differs(f"it changes '{name}', which is no dense tensor of the module")
        return tensor

    def _read(self, path: Sequence[str]) -> Any:
        if self._owner is None:
            raise AttributeError(".".join(path))
        value = self._owner
        for part in path:
            value = value.getattr(part)
        return value

    def _readers(self, program: Any) -> list[Callable[[], Any]]:
        """Functions that read what the graph takes from the module and what is neither a tensor nor a module.

        Of a tensor that may be ``None``, as the bias of a convolution is, they read whether it is.
        """
        paths = set()
        graph = _inlined(program)  # its nodes live as long as it does
        for node in graph.findAllNodes("prim::GetAttr"):
            if node.output().type().kind() not in ("ClassType", "TensorType"):
                names: list[str] = []
                while node.kind() == "prim::GetAttr":
                    names.insert(0, node.s("name"))
                    node = node.inputsAt(0).node()
                paths.add(tuple(names))
        return [functools.partial(self._read_plain, path) for path in sorted(paths)]

    def _read_plain(self, path: Sequence[str]) -> Any:
        value = self._read(path)
        return torch.Tensor if isinstance(value, torch.Tensor) else value


__all__ = ["Enabled", "disable", "enable"]
