"""``CompiledModule``: what ``torch_tvm.compile`` returns."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, NoReturn, Protocol

import torch
from torch.utils import _pytree as pytree

from torch_tvm.aten.dtypes import dtype_name
from torch_tvm.runtime import loop
from torch_tvm.runtime.calls import failures
from torch_tvm.runtime.calls.arguments import (
    ALIGNMENT,
    ArgumentCheck,
    as_kernel_argument,
    as_reals,
    dense,
    flatten,
    is_kernel_ready,
    why_unreadable,
)
from torch_tvm.runtime.calls.call_source import call_source
from torch_tvm.runtime.calls.convention import Convention, describe_value
from torch_tvm.runtime.calls.overlap import overlaps, refuse_overlaps
from torch_tvm.runtime.calls.tensors import as_torch, snapshot
from torch_tvm.runtime.code import Code
from torch_tvm.runtime.kernel_events import ProfiledCalls, is_profiled, profiler
from torch_tvm.runtime.library import DeviceProgram, Machine
from torch_tvm.runtime.threads import configure_threads
from torch_tvm.runtime.tracing import hide_from_dynamo, refuse_recording, traced_names
from torch_tvm.runtime.weights.packed import Weights, is_like
from torch_tvm.support.errors import InvalidInput

_PLAIN = frozenset({torch.Tensor, torch.nn.Parameter, torch.nn.Buffer})


class Origin(Protocol):
    """What a module was compiled from, for what needs the compiler again."""

    @property
    def relax_module(self) -> Any: ...

    @property
    def tir_module(self) -> Any: ...

    def benchmark(self, module: CompiledModule, args: Sequence[Any], runs: int) -> Any: ...

    def save(
        self,
        module: CompiledModule,
        path: str | PathLike[str],
        *,
        targets: Sequence[Any] | None,
        originals: bool,
        sample_args: Sequence[Any] | None,
        linker: str | None,
    ) -> None: ...

    def export_library(
        self, module: CompiledModule, path: str | PathLike[str], *, target: Any, linker: str | None
    ) -> None: ...


class _Thread(threading.local):
    """The virtual machine of the current thread, made on its first call."""

    def __init__(self, code: Code) -> None:
        self.vm = code.new_vm()
        self.main = self.vm["main"]
        self.configure()

    def configure(self) -> None:
        self.threads = torch.get_num_threads()
        configure_threads(self.threads)


@dataclass(frozen=True)
class Parts:
    """What a compiled module is made of; ``scalars`` are weights of one element that were folded into the code."""

    code: Code
    weights: Weights
    state: Mapping[str, torch.Tensor]
    scalars: Mapping[str, torch.Tensor]


class CompiledModule:
    """A compiled program: call it as the program, with CPU tensors (or CUDA tensors for a CUDA target).

    Tensors go in and out without a copy; one that is not contiguous is copied first. Calls from several
    threads at once are safe unless the program changes state. A result never shares memory with an argument,
    a weight or another result, also where eager's would.

    ``methods`` are the other methods of a scripted module by name; they are attributes too.

    Raises :class:`InvalidInput`, naming the argument, for a call that does not fit.
    """

    def __init__(
        self,
        code: Code,
        weights: Weights,
        state: Mapping[str, torch.Tensor] | None = None,
        *,
        scalars: Mapping[str, torch.Tensor] | None = None,
        report: Any = None,
        origin: Origin | None = None,
    ) -> None:
        self.report = report
        self.origin = origin
        self.methods: Any = {}
        self._code = code
        self._weights = weights
        self._scalars = dict(scalars or {})
        self._state = {name: _owned_copy(tensor) for name, tensor in (state or {}).items()}
        self._check = ArgumentCheck(code.convention, code.device)
        self._call = self._bind()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    @property
    def relax_module(self) -> Any:
        """The optimised ``tvm.IRModule``; ``None`` where the code was loaded."""
        return self.origin.relax_module if self.origin else None

    @property
    def tir_module(self) -> Any:
        """The scheduled ``tvm.IRModule``; ``None`` where the code was loaded."""
        return self.origin.tir_module if self.origin else None

    def __repr__(self) -> str:
        arguments = ", ".join(f"{a.name}: {a}" for a in self._code.convention.arguments)
        return f"<CompiledModule({arguments})>"

    def __getattr__(self, name: str) -> Any:
        methods = self.__dict__.get("methods", ())
        if name in methods:
            return methods[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    # -- weights -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Copies of the weights and of the current state by name, of its methods too.

        Raises :class:`InvalidInput` for a module whose file has the weights only as kernels read them.
        """
        others = self.methods.state_dict() if self.methods else {}
        found = {**others, **self.own_state_dict()}
        absent = next((name for name, tensor in found.items() if tensor.is_meta), None)
        if absent is not None:
            raise InvalidInput(
                f"the file that the module was loaded from has no '{absent}' as it was before it was packed",
                subject="state_dict",
                advice="save the module with originals=True",
            )
        return {name: tensor.clone() for name, tensor in found.items()}

    def parts(self) -> Parts:
        """What the module is made of, not copied."""
        return Parts(self._code, self._weights, self._state, self._scalars)

    def accepts(self, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
        """Whether a call with these arguments fits the code."""
        try:
            self._checked(args, kwargs)
        except InvalidInput:
            return False
        return True

    def own_state_dict(self) -> dict[str, torch.Tensor]:
        """The weights and the current state that this code itself reads, not copied."""
        return {**self._weights.tensors, **self._state}

    def share_weights(self, known: dict[str, torch.Tensor]) -> None:
        """Do not hold a weight that is the same as one of ``known`` twice."""
        self._weights.share(known)

    def share_state(self, shared: dict[str, torch.Tensor]) -> None:
        """Use the tensors of ``shared`` as state, where it has them; what it lacks is added to it."""
        for name, tensor in self._state.items():
            self._state[name] = shared.setdefault(name, tensor)
        self._call = self._bind()

    def take_over(self, other: CompiledModule) -> None:
        """Run the code of ``other``, which replaces this one, on its weights and state."""
        for name in ("_code", "_weights", "_scalars", "_state", "report", "origin"):
            setattr(self, name, getattr(other, name))
        self._check = ArgumentCheck(self._code.convention, self._code.device)
        self._call = self._bind()

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor], strict: bool = True) -> None:
        """Exchange weights and state, of its methods too, and pack them again.

        Entries that the compiled program does not use are ignored. ``strict`` asks for all that it does use.
        Raises :class:`InvalidInput` for a missing entry, a wrong shape or dtype, or a one-element
        weight whose value was folded into the code and differs; then nothing has changed.
        """
        if not isinstance(state_dict, Mapping):
            raise InvalidInput(f"expected a dict of tensors, got {type(state_dict).__name__}", subject="state_dict")
        known = self.own_state_dict()
        missing = [name for name in known if name not in state_dict and name in self._loadable()]
        if strict and missing:
            raise InvalidInput(f"the state dict lacks {', '.join(missing[:5])}", advice="pass strict=False")
        codes = [self, *(self.methods.codes(self) if self.methods else ())]
        for code in codes:
            code.check_values(state_dict)
        values = {
            name: snapshot(value)
            for name, value in state_dict.items()
            if self.methods or any(code.reads(name) for code in codes)
        }
        for load in [code.loading(values) for code in codes]:
            load()
        if self.methods:
            self.methods.loaded(values)

    def reads(self, name: str) -> bool:
        """Whether this code has a weight or state of that name."""
        return name in self._weights.tensors or name in self._state

    def check_values(self, values: Mapping[str, torch.Tensor]) -> None:
        """Raise :class:`InvalidInput` for one that cannot take the place of a weight or of state."""
        for name, wanted in {**self._scalars, **self.own_state_dict()}.items():
            value = values.get(name, wanted)
            if value is not wanted and not is_like(value, wanted):
                problem = why_unreadable(value) if isinstance(value, torch.Tensor) else ""
                raise InvalidInput(
                    f"weight '{name}': expected {describe_value(wanted)}, got {problem or describe_value(value)}"
                )
        for name, value in self._scalars.items():
            if name in values and not torch.equal(values[name].detach().cpu(), value):
                raise InvalidInput(
                    f"weight '{name}': its value was folded into the code", advice="compile the program again"
                )

    def loading(self, values: Mapping[str, torch.Tensor]) -> Callable[[], None]:
        """Pack weights; the function that this returns puts them and the state into use, and does not fail."""
        weights = {name: value for name, value in values.items() if name in self._weights.tensors}
        fresh = self._weights.replaced(weights) if weights else self._weights
        state = [(tensor, values[name]) for name, tensor in self._state.items() if name in values]

        def load() -> None:
            self._weights.__dict__.update(fresh.__dict__)
            for tensor, value in state:
                tensor.copy_(value)

        return load

    def weight_names(self) -> list[str]:
        """Names of the weights that the code reads."""
        return list(self._weights.tensors)

    def with_weights(self, values: Mapping[str, torch.Tensor]) -> CompiledModule:
        """Another module with the same code that packs the caller's tensors, of the same types, as all the weights.

        Both have one state.
        """
        weights = copy.copy(self._weights)
        weights.borrow(values)
        parts = {"scalars": self._scalars, "report": self.report, "origin": self.origin}
        fresh = type(self)(self._code, weights, self._state, **parts)
        if self._state:
            fresh.share_state(dict(self._state))
        return fresh

    def borrow_weights(self, values: Mapping[str, torch.Tensor], changed: Collection[str] | None = None) -> None:
        """Pack other tensors of the caller, or only those that have ``changed`` since the last time."""
        self._weights.borrow(values, changed)

    def _loadable(self) -> set[str]:
        return {name for name in self.own_state_dict() if not name.startswith(("tensor_constant", "scalar", "lifted"))}

    # -- calling ---------------------------------------------------------------------------------------

    def _bind(self) -> Callable[..., Any]:
        """The function behind ``__call__``."""
        code, convention = self._code, self._code.convention
        if code.obstacle:
            return self._refuse
        self._profiled = ProfiledCalls(self._kernel_by_kernel)
        has_tensors = bool(convention.arguments or convention.state)
        source = call_source(
            convention,
            copies=code.copies,
            single=code.single,
            weights=("weights.packed" if code.lifted else "*weights.packed") if self._weights.tensors else "",
            has_loops=bool(code.loops),
            converts=not has_tensors,
            device=code.device,
        )
        self._local = _Thread(code)
        names = self._names_in_calls()
        exec(compile(source, "<call of a compiled module>", "exec"), names)
        return names["call"]

    def _names_in_calls(self) -> dict[str, Any]:
        """What the source of ``call_source`` finds by name."""
        code, convention = self._code, self._code.convention
        outputs = enumerate(convention.outputs or [])
        return {
            **{f"{dtype_name(a.dtype)}_dtype": a.dtype for a in convention.arguments},
            **traced_names(),
            "as_torch": as_torch,
            "bool_dtype": torch.bool,
            "fixed": {i: output[0] for i, output in outputs if output is not None},
            "float_dtype": torch.float64,
            "grad_enabled": torch.is_grad_enabled,
            "inference_mode": torch.is_inference_mode_enabled,
            "int_dtype": torch.int64,
            "item": code.item,
            "keeps_iteration": code.keeps_iteration,
            "local": self._local,
            "number": torch.tensor,
            "out_spec": convention.out_spec,
            "overlaps": overlaps,
            "profiler": profiler,
            "plain": _PLAIN,
            "recover": self._recover,
            "running": loop.running,
            "slow": self._slow,
            "state": [dense(tensor) for tensor in self._state.values()],
            "torch_threads": torch.get_num_threads,
            "unflatten": pytree.tree_unflatten,
            "view_as_complex": torch.view_as_complex,
            "view_as_real": torch.view_as_real,
            "weights": self._weights,
            "write": _write,
        }

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise InvalidInput(
            f"this machine cannot run the module: {self._code.obstacle}",
            subject="target",
            advice='compile for this machine with target="auto"',
        )

    def _slow(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """A call with an unusual argument: checked in full, then brought into the form that kernels take."""
        refuse_recording()
        flat = self._checked(args, kwargs)
        refuse_overlaps(self._code.convention, flat)
        return self._profiled.run(lambda vm: self._run(flat, vm)) if is_profiled() else self._run(flat)

    def _kernel_by_kernel(self) -> tuple[Machine | None, Mapping[str, str]]:
        """A virtual machine that calls kernels one by one, if there is one, and what a trace calls them."""
        has_none = isinstance(self._code.library, DeviceProgram)
        machine = None if has_none else self._code.new_vm(by_kernel=True)
        kernels = self.report.kernels if self.report else ()
        labels = {each.name: " ".join([f"torch_tvm::{each.name}", *self.report.places(each)]) for each in kernels}
        return machine, {**labels, **dict.fromkeys(self._code.loops, "")}

    def _recover(self, args: Sequence[Any], kwargs: dict[str, Any], error: Exception) -> Any:
        """What the VM refused: a wrong argument, one it cannot read as it is, or the program's own
        exception.
        """
        flat = self._checked(args, kwargs)
        if all(is_kernel_ready(value, ALIGNMENT[self._code.device]) for value in flat):
            raise self._explained(error)
        return self._run(flat)

    def _explained(self, error: Exception) -> Exception:
        explained = failures.explained(error, self._code.has_unknown_sizes)
        explained.__cause__ = None if explained is error else error
        return explained

    def _checked(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
        flat = flatten(self._code.convention, args, kwargs)
        self._check(flat)
        return flat

    def _run(self, flat: Sequence[Any], vm: Machine | None = None) -> Any:
        convention, local = self._code.convention, self._local
        main = vm["main"] if vm else local.main
        alignment = ALIGNMENT[self._code.device]
        operands = [as_kernel_argument(a, v, alignment) for a, v in zip(convention.arguments, flat, strict=True)]
        targets = [*flat, *self._state.values()]
        operands += [dense(tensor) for tensor in self._state.values()]
        if local.threads != torch.get_num_threads():
            local.configure()
        before = loop.running.vm, loop.running.keeps_iteration
        loop.running.vm, loop.running.keeps_iteration = vm or local.vm, self._code.keeps_iteration
        try:
            packed = [self._weights.packed] if self._code.lifted else self._weights.packed
            packed = packed if self._weights.tensors else []
            result = main(*operands, *packed)
        except Exception as error:
            raise self._explained(error) from error.__cause__
        finally:
            loop.running.vm, loop.running.keeps_iteration = before
        values = self._values(result)
        for target, value in zip(convention.writes, values[len(convention.results) :], strict=True):
            _write(targets[target], value)
        return self._nest(values[: len(convention.results)])

    def _values(self, result: Any) -> list[Any]:
        convention = self._code.convention
        count = len(convention.results) + len(convention.writes)
        tensors = (
            [as_torch(result)] if self._code.single else [as_torch(self._code.item(result, i)) for i in range(count)]
        )
        values: list[Any] = []
        for index, tensor in enumerate(tensors):
            kind = convention.results[index] if index < len(convention.results) else None
            if isinstance(kind, str):
                values.append({"int": int, "float": float, "bool": bool}[kind](tensor.item()))
                continue
            if kind is not None and kind.is_complex:
                tensor = torch.view_as_complex(tensor)
            values.append(tensor.clone() if index in self._code.copies else tensor)
        return values

    def _nest(self, values: Sequence[Any]) -> Any:
        convention = self._code.convention
        if convention.outputs is not None:
            remaining = iter(values)
            values = [next(remaining) if output is None else output[0] for output in convention.outputs]
        if convention.out_spec is None:
            return values[0] if len(values) == 1 else tuple(values)
        return pytree.tree_unflatten(list(values), convention.out_spec)

    # -- measuring ---------------------------------------------------------------------------------------

    def save(
        self,
        path: str | PathLike[str],
        *,
        targets: Sequence[Any] | None = None,
        originals: bool = False,
        sample_args: Sequence[Any] | None = None,
        linker: str | None = None,
    ) -> None:
        """Write the module into one file that :func:`torch_tvm.load` reads, where there is no compiler.

        ``targets`` are those to write code for, by default that of this module: it is compiled anew for each, and
        the file is loaded where one of them fits (``["x86-64-v3", "x86-64-v4"]``). ``originals=True`` keeps the weights
        also as the program has them, for ``state_dict`` and for ``load_state_dict(..., strict=False)``. ``sample_args``
        are arguments that are kept with their results, for ``torch-tvm run --check``. ``linker`` is the C compiler
        that links. The file is native code: take one only from someone whom you trust.

        Raises :class:`InvalidInput` for a program that takes or returns what a file cannot hold, for a path that cannot
        be written and where there is no C compiler.
        """
        self._compiled_here("save").save(
            self, path, targets=targets, originals=originals, sample_args=sample_args, linker=linker
        )

    def export_library(self, path: str | PathLike[str], *, target: Any = None, linker: str | None = None) -> None:
        """Write the module as a library that plain TVM loads, from Python or C++, without PyTorch and this package.

        ``path`` ends in ``.so``; beside it come ``.params``, the weights in TVM's format, and ``.h``, a C header. The
        function ``main`` of the library takes the flat arguments and the list of the weights. ``target`` is another
        CPU than the one of this module, for which ``linker`` has to link.

        Raises :class:`InvalidInput` for a program that needs PyTorch or Python when it runs (ops without a kernel,
        loops until a value, state), and where there is no C compiler.
        """
        self._compiled_here("export_library").export_library(self, path, target=target, linker=linker)

    def benchmark(self, *args: Any, runs: int = 10) -> Any:
        """Time of each kernel in a call with these arguments, beside what the machine could do.

        Medians of ``runs`` calls; the machine's limits are measured in the same run. The kernels are compiled once
        more, in a form in which they are called one by one. Raises :class:`InvalidInput` for arguments that do not
        fit, for a program with state, for a GPU target and for a module that was loaded.
        """
        if self._code.device != "cpu" or self._code.convention.writes:
            raise InvalidInput("only CPU programs without state are benchmarked", subject="benchmark")
        self(*args)
        return self._compiled_here("benchmark").benchmark(self, args, runs)

    def runner(self, args: Sequence[Any]) -> tuple[Machine, Callable[[], Any]]:
        """A virtual machine that calls kernels one by one, and a function that runs it with these arguments."""
        vm, flat = self._code.new_vm(by_kernel=True), flatten(self._code.convention, args, {})
        return vm, lambda: self._run(flat, vm)

    def _compiled_here(self, what: str) -> Origin:
        others = self.methods.codes(self) if self.methods else ()
        origin = next((code.origin for code in (self, *others) if code.origin), None)
        if origin is None:
            raise InvalidInput(
                "this module was loaded: there is code and no program",
                subject=what,
                advice="do it where the program is compiled, before it is saved",
            )
        return origin

    # -- copying -----------------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledModule:
        """Code and packed weights are shared, until other weights are loaded; the state is copied."""
        fresh = memo[id(self)] = type(self)(
            self._code,
            copy.copy(self._weights),
            self._state,
            scalars=self._scalars,
            report=copy.deepcopy(self.report, memo),
            origin=self.origin,
        )
        fresh.methods = copy.deepcopy(self.methods, memo)
        return fresh

    def __copy__(self) -> CompiledModule:
        return copy.deepcopy(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        refuse_pickling("a compiled module")


hide_from_dynamo(CompiledModule.__call__)


class _WithoutForward(CompiledModule):
    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise InvalidInput(
            f"the module has no method 'forward'; it has: {', '.join(self.methods)}",
            advice="call one of its methods",
        )


def without_forward(methods: Any) -> CompiledModule:
    """A module of methods that refuses to be called itself."""
    code = Code(None, Convention([], []), obstacle="there is no forward")
    compiled = _WithoutForward(code, Weights(code, {}))
    compiled.methods = methods
    return compiled


def refuse_pickling(what: str) -> NoReturn:
    """Raise :class:`InvalidInput`: machine code belongs to the process."""
    raise InvalidInput(
        f"{what} holds machine code and cannot be pickled",
        advice="save it with .save(path) and read it with torch_tvm.load(path)",
    )


def _owned_copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy whose memory, contiguous, holds the numbers themselves, so that kernels can read it in place.

    It may be written in every mode.
    """
    with torch.inference_mode(False), torch.no_grad():
        if tensor.is_complex():
            return torch.view_as_complex(as_reals(tensor.detach()).clone(memory_format=torch.contiguous_format))
        return tensor.detach().resolve_neg().clone(memory_format=torch.contiguous_format)


def _write(target: torch.Tensor, value: torch.Tensor) -> None:
    """Give a mutated argument or state tensor its new value."""
    with torch.no_grad():
        if target.is_complex() and not target.is_conj():
            target, value = torch.view_as_real(target), as_reals(value) if value.is_complex() else value
        elif target.is_complex() and not value.is_complex():
            value = torch.view_as_complex(value)
        target.copy_(value)


__all__ = ["CompiledModule", "Origin", "Parts", "refuse_pickling", "without_forward"]
