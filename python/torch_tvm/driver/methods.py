"""The methods of a scripted module as compiled code that shares weights and state."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import tvm
from torch.utils import _pytree as pytree

from torch_tvm.dialect.module import TensorSpec, TorchModule
from torch_tvm.driver.pipeline import compile_module
from torch_tvm.importers.torchscript import import_torchscript
from torch_tvm.options import Options
from torch_tvm.reporting.report import Report, fallback_message
from torch_tvm.runtime.module import CompiledModule, refuse_pickling, without_forward
from torch_tvm.runtime.warnings import FallbackWarning, warn_user
from torch_tvm.support.errors import InvalidInput


@dataclass(frozen=True)
class Settings:
    """How each method is compiled."""

    target: tvm.target.Target
    fallback: bool
    options: Options


def compile_methods(
    script: torch.jit.ScriptModule,
    forward: TorchModule | None,
    arguments: Mapping[str, Sequence[Any]],
    settings: Settings,
    report: Report,
) -> CompiledModule:
    """``forward``, imported already, as a compiled module whose ``methods`` are those of ``script``.

    Methods that ``arguments`` names are compiled at once. Without ``forward`` the module itself refuses calls.
    """
    check_names(script, arguments)
    methods = Methods(script, settings)
    if forward is None:
        compiled = without_forward(methods)
    else:
        compiled = methods.compile("forward", arguments["forward"], report, forward)
    for name, args in arguments.items():
        if name != "forward":
            methods[name].fixed = methods.compile(name, args)
    compiled.methods = methods
    return compiled


def check_names(script: torch.jit.ScriptModule, names: Iterable[str]) -> None:
    """Raise :class:`InvalidInput` for a name that is none of a method."""
    known = ["forward", *(name for name in script._c._method_names() if not is_forward(name))]
    for name in names:
        if name not in known:
            raise InvalidInput(f"the module has no method '{name}'; it has: {', '.join(known)}", subject="example_args")


@dataclass
class Variant:
    """One compiled method: what it was imported for, the code, its state, and flat arguments that are fixed."""

    method: str
    args: Sequence[Any]
    code: CompiledModule
    state: frozenset[str] = frozenset()
    constants: dict[int, Any] = field(default_factory=dict)


class Methods:
    """The methods of a scripted module by name, other than ``forward``.

    All of them read and write one state. A method that is compiled later and changes what an earlier one took for
    a constant makes the earlier one compile again.
    """

    def __init__(self, script: torch.jit.ScriptModule, settings: Settings) -> None:
        self._script = script
        self._settings = settings
        self._before = _fingerprints(script)
        self._variants: list[Variant] = []
        self._loaded: dict[str, torch.Tensor] = {}
        self._snapshots: dict[str, torch.Tensor] = {}
        self._state: dict[str, torch.Tensor] = {}
        self.lock = threading.RLock()
        names = script._c._method_names()
        self._methods = {name: Method(self, name) for name in names if not is_forward(name)}

    def __getitem__(self, name: str) -> Method:
        return self._methods[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)

    def __contains__(self, name: object) -> bool:
        return name in self._methods

    def parameters(self, name: str) -> list[Any]:
        """The schema's arguments of a method, without ``self``."""
        return list(self._script._c._get_method(name).schema.arguments[1:])

    def variants(self, name: str) -> list[Variant]:
        """What was compiled of a method."""
        return [variant for variant in self._variants if variant.method == name]

    # -- compiling -------------------------------------------------------------------------------------

    def compile(
        self,
        name: str,
        args: Sequence[Any],
        report: Report | None = None,
        module: TorchModule | None = None,
    ) -> CompiledModule:
        """Compile one method for arguments like these; the code shares the state of the others."""
        if module is None:
            self._check_unmoved()
        described = pytree.tree_map(_described, tuple(args))
        known = set(self._state)
        variant = self._compiled(name, described, report or self._report(), module)
        self._load_into(variant.code, known)
        if not set(self._state) <= known:
            for earlier in self._variants:
                self._refresh(earlier)
        self._variants.append(variant)
        return variant.code

    def _compiled(self, name: str, args: Sequence[Any], report: Report, module: TorchModule | None = None) -> Variant:
        settings = self._settings
        if module is None:
            with report.phase("import"):
                module = import_torchscript(self._script, args, method=name, state=list(self._state))
        code = compile_module(
            module, settings.target, fallback=settings.fallback, options=settings.options, report=report
        )
        if report.fallbacks:
            warn_user(fallback_message(report.fallbacks), FallbackWarning)
        code.share_state(self._state)
        code.share_weights(self._snapshots)
        return Variant(name, args, code, frozenset(module.state), module.signature.constants)

    def _refresh(self, earlier: Variant) -> None:
        """Compile a method again if it reads state that was constant when it was compiled."""
        module = import_torchscript(self._script, earlier.args, method=earlier.method, state=list(self._state))
        if set(module.state) <= earlier.state:
            return
        fresh = self._compiled(earlier.method, earlier.args, self._report(), module)
        self._load_into(fresh.code, set(self._state))
        earlier.code.take_over(fresh.code)
        earlier.state = fresh.state

    def _report(self) -> Report:
        return Report(target=str(self._settings.target), frontend="torchscript")

    def _check_unmoved(self) -> None:
        now = _fingerprints(self._script)
        moved = [name for name, what in self._before.items() if now.get(name) != what]
        moved = [name for name in moved if name not in self._state]
        if moved:
            raise InvalidInput(
                f"changed since the module was compiled: {', '.join(moved[:5])}",
                subject=self._script.original_name,
                advice='compile all its methods at once: example_args={"forward": (...), "encode": (...)}',
            )

    # -- weights and state -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Weights and live state of every method that was compiled."""
        merged: dict[str, torch.Tensor] = {}
        for variant in self._variants:
            merged.update(variant.code.own_state_dict())
        return merged

    def codes(self, other: CompiledModule) -> list[CompiledModule]:
        """The code of all methods but ``other``."""
        return [variant.code for variant in self._variants if variant.code is not other]

    def loaded(self, values: Mapping[str, torch.Tensor]) -> None:
        """Give weights and state that were loaded also to methods that are compiled later."""
        self._loaded.update(values)

    def _load_into(self, code: CompiledModule, known: set[str]) -> None:
        """What was loaded earlier, without the state that may have changed since."""
        values = {name: value for name, value in self._loaded.items() if name not in known}
        if values:
            code.load_state_dict(values, strict=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Methods:
        """A copy with a state of its own; code and weights are shared."""
        fresh = Methods(self._script, self._settings)
        fresh._before, fresh._loaded = self._before, dict(self._loaded)
        fresh._snapshots = dict(self._snapshots)
        for variant in self._variants:
            code = copy.deepcopy(variant.code, memo)
            code.share_state(fresh._state)
            fresh._variants.append(Variant(variant.method, variant.args, code, variant.state, variant.constants))
            if variant.method in self and self[variant.method].fixed is variant.code:
                fresh[variant.method].fixed = code
        return fresh


class Method:
    """A method of a compiled module; call it as the program's.

    It is compiled on its first call, for the types of the arguments, and again for arguments of other types; one that
    ``example_args`` named (``fixed``) takes arguments like those only.
    """

    def __init__(self, methods: Methods, name: str) -> None:
        self.name = name
        self.fixed: CompiledModule | None = None
        self._methods = methods

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raises :class:`InvalidInput` for arguments that do not fit, and what ``torch_tvm.compile`` raises."""
        if self.fixed is not None:
            return self.fixed(*args, **kwargs)
        positional = self._bound(args, kwargs)
        with self._methods.lock:
            code = self._found(positional) or self._methods.compile(self.name, positional)
        return code(*positional)

    def __repr__(self) -> str:
        return f"<compiled method {self.name}, {len(self.compiled)} times compiled>"

    def __copy__(self) -> Method:
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Method:
        return copy.deepcopy(self._methods, memo)[self.name]

    def __reduce_ex__(self, protocol: Any) -> Any:
        refuse_pickling("a compiled method")

    @property
    def compiled(self) -> list[CompiledModule]:
        """What was compiled of it, each with its ``report``; one entry per combination of argument types."""
        return [variant.code for variant in self._methods.variants(self.name)]

    def _found(self, args: Sequence[Any]) -> CompiledModule | None:
        described = pytree.tree_map(_described, tuple(args))
        leaves, spec = pytree.tree_flatten(described)
        for variant in self._methods.variants(self.name):
            others, other = pytree.tree_flatten(variant.args)
            if spec == other and all(
                _is_like(a, b, position in variant.constants)
                for position, (a, b) in enumerate(zip(leaves, others, strict=True))
            ):
                return variant.code
        return None

    def _bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The arguments by position; defaults at the end are left out."""
        parameters = self._methods.parameters(self.name)
        names = [parameter.name for parameter in parameters]
        wrong = [name for name in kwargs if name not in names[len(args) :]]
        if len(args) > len(names) or wrong:
            given = f"unexpected argument '{wrong[0]}'" if wrong else f"{len(args)} were given"
            raise InvalidInput(f"it takes ({', '.join(names)}); {given}", subject=self.name)
        last = max((names.index(name) + 1 for name in kwargs), default=len(args))
        bound = list(args)
        for position, parameter in enumerate(parameters):
            if position < len(args):
                continue
            if parameter.name in kwargs:
                bound.append(kwargs[parameter.name])
            elif not parameter.has_default_value():
                raise InvalidInput(f"argument '{parameter.name}' is missing", subject=self.name)
            elif position < last:
                bound.append(parameter.default_value)
        return bound


def is_forward(name: str) -> bool:
    """Whether a method is ``forward`` or an overload of it."""
    return re.fullmatch(r"forward(__\d+)?", name) is not None


def _described(leaf: Any) -> Any:
    return TensorSpec(tuple(leaf.shape), leaf.dtype) if isinstance(leaf, torch.Tensor) else leaf


def _is_like(given: Any, known: Any, is_fixed: bool) -> bool:
    """Whether code for an argument takes another: a number of the same type, anything else of the same value."""
    if type(given) is not type(known):
        return False
    return (isinstance(given, (bool, int, float)) and not is_fixed) or bool(given == known)


def _fingerprints(script: torch.jit.ScriptModule) -> dict[str, Any]:
    """What changes when someone writes to the module: each tensor's memory and version, each number that is read."""
    tensors = [*script.named_parameters(), *script.named_buffers()]
    found: dict[str, Any] = {name: (tensor.data_ptr(), tensor._version) for name, tensor in tensors}
    for path, module in script.named_modules():
        for name in module._c._method_names():
            graph = module._c._get_method(name).graph
            this = next(graph.inputs()).debugName()
            for node in graph.findAllNodes("prim::GetAttr"):
                if node.output().type().kind() in ("IntType", "FloatType", "BoolType"):
                    found.update(_number(node, this, module._c, path))
    return found


def _number(node: Any, this: str, owner: Any, path: str) -> dict[str, Any]:
    """A number attribute that a graph reads, by its path: ``{}`` when its object is none of the module's own."""
    names: list[str] = []
    while node.kind() == "prim::GetAttr":
        names.insert(0, node.s("name"))
        if node.inputsAt(0).debugName() == this:
            value = owner
            for name in names:
                value = value.getattr(name) if hasattr(value, "getattr") else getattr(value, name)
            return {".".join([*([path] if path else []), *names]): value}
        node = node.inputsAt(0).node()
    return {}


__all__ = ["Method", "Methods", "Settings", "check_names", "compile_methods", "is_forward"]
