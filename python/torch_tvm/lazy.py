"""Steps written for PyTorch's lazy device, run by compiled code.

``torch_tvm.lazy.compile(step)`` gives a function that runs ``step`` on lazy tensors as before, which only records a
graph, and then computes that graph with code compiled here, instead of at ``torch._lazy.mark_step()``. Graphs are
compiled once: the lazy device's own hash of a graph finds the code again.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.support.errors import InvalidInput
from torch_tvm.support.interrupts import deferred_interrupts

with deferred_interrupts():
    from torch_tvm.entry import compile as compile_program
    from torch_tvm.importers.lazy import device
    from torch_tvm.importers.lazy.assembly import data_of_step
    from torch_tvm.importers.lazy.program import import_step
    from torch_tvm.runtime.module import CompiledModule


@dataclass
class LazyReport:
    """What the calls of a step cost: ``hits`` of the cache, seconds of recording, of compiling and of running.

    ``eager`` counts ops that have no lazy kernel: the lazy device ran them itself, in the middle of a step.
    """

    calls: int = 0
    hits: int = 0
    graphs: int = 0
    trace_seconds: float = 0.0
    compile_seconds: float = 0.0
    run_seconds: float = 0.0
    eager: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain Python values."""
        return {**vars(self), "eager": dict(self.eager)}

    def __str__(self) -> str:
        each = self.trace_seconds / self.calls * 1e3 if self.calls else 0.0
        lines = [
            f"calls: {self.calls}, {self.hits} of them with a graph that was compiled before",
            f"graphs: {self.graphs}, compiled in {self.compile_seconds:.2f} s",
            f"tracing: {self.trace_seconds:.3f} s, {each:.2f} ms a call",
            f"running: {self.run_seconds:.3f} s",
        ]
        lines += [f"run eagerly: {name}, {count} times" for name, count in sorted(self.eager.items())]
        return "\n".join(lines)


def compile(
    step: Callable[..., Any],
    *,
    state: Sequence[Any] | None = None,
    target: Any = "auto",
    fallback: bool = True,
    options: Mapping[str, Any] | None = None,
) -> LazyFunction:
    """A function that calls ``step`` and computes what it left pending on the lazy device.

    ``step`` takes and returns lazy tensors (and plain values). ``state`` are the modules, optimizers and tensors that
    it updates; without it, those in the closure of ``step``, among the globals that it names, and the module
    that it belongs to. ``target``, ``fallback`` and ``options`` are those of ``torch_tvm.compile``. Shapes and dtypes
    are those of the call; others are another graph. Raises :class:`InvalidInput` for what is no function and no state.

    >>> import torch, torch_tvm.lazy
    >>> double = torch_tvm.lazy.compile(lambda x: x * 2)
    >>> double(torch.ones(2).to("lazy")).cpu()
    tensor([2., 2.])
    """
    if not callable(step):
        raise InvalidInput(f"expected a function, got {type(step).__name__}", subject="torch_tvm.lazy.compile")
    device.start()
    owners = list(state) if state is not None else list(_found_state(step))
    for owner in owners:
        if not isinstance(owner, (torch.nn.Module, torch.optim.Optimizer, torch.Tensor)):
            raise InvalidInput(
                f"expected a module, an optimizer or a tensor, got {type(owner).__name__}", subject="state"
            )
    return LazyFunction(step, owners, {"target": target, "fallback": fallback, "options": options})


@dataclass
class _Compiled:
    """Code for one graph; ``varying`` are positions of numbers that changed from call to call."""

    code: CompiledModule
    positions: list[int]
    numbers: dict[int, Any]
    varying: frozenset[int]


class LazyFunction:
    """A step with its cache of compiled graphs; ``report`` says what its calls cost."""

    def __init__(self, step: Callable[..., Any], owners: list[Any], settings: dict[str, Any]) -> None:
        self.step = step
        self.report = LazyReport()
        self._owners = owners
        self._settings = settings
        self._graphs: dict[Any, _Compiled] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the step; raises what the step raises, and :class:`ImportFailed` for random ops."""
        started, before = time.perf_counter(), device.fallbacks()
        result = self.step(*args, **kwargs)
        leaves, spec = pytree.tree_flatten(result)
        held = [*self._state(), *(leaf for leaf in pytree.tree_leaves((args, kwargs)) if _is_lazy(leaf))]
        outputs = [leaf for leaf in leaves if _is_lazy(leaf)]
        written = _pending(held)
        self._count(before, started)
        if not outputs and not written:
            return result
        values = self._compute([*outputs, *written], len(outputs))
        with torch.no_grad():
            for target, value in zip(written, values[len(outputs) :], strict=True):
                target.copy_(value.to("lazy"))
        replaced = iter(value.to("lazy") for value in values[: len(outputs)])
        return pytree.tree_unflatten([next(replaced) if _is_lazy(leaf) else leaf for leaf in leaves], spec)

    def _count(self, before: dict[str, int], started: float) -> None:
        self.report.calls += 1
        self.report.trace_seconds += time.perf_counter() - started
        for name, count in device.fallbacks().items():
            if count > before.get(name, 0):
                self.report.eager[name] = self.report.eager.get(name, 0) + count - before.get(name, 0)

    def _compute(self, roots: list[torch.Tensor], outputs: int) -> list[torch.Tensor]:
        for root in roots:
            device.sync(root)
        data = data_of_step(roots)
        key = (device.graph_hash(roots), outputs, tuple((tuple(item.shape), item.dtype) for item in data))
        compiled = self._compiled(key, roots, data)
        started = time.perf_counter()
        results = compiled.code(*(data[position] for position in compiled.positions))
        self.report.run_seconds += time.perf_counter() - started
        return [results] if isinstance(results, torch.Tensor) else list(results)

    def _compiled(self, key: Any, roots: list[torch.Tensor], data: list[torch.Tensor]) -> _Compiled:
        """Code for a graph; numbers that differ from those it was compiled with become inputs from then on."""
        numbers = {index: item.item() for index, item in enumerate(data) if item.dim() == 0}
        found = self._graphs.get(key)
        changed: set[int] = set()
        if found is not None:
            changed = {
                i for i, value in numbers.items() if i not in found.varying and not _same(value, found.numbers[i])
            }
            if not changed:
                self.report.hits += 1
                return found
        started = time.perf_counter()
        varying = frozenset(changed) | (found.varying if found is not None else frozenset())
        module, positions = import_step(roots, varying)
        code = compile_program(module, **self._settings)
        self.report.graphs += 1
        self.report.compile_seconds += time.perf_counter() - started
        made = self._graphs[key] = _Compiled(code, positions, numbers, varying)
        return made

    def _state(self) -> Iterator[torch.Tensor]:
        """Every lazy tensor of the state, gradients included, once."""
        seen: set[int] = set()
        for owner in self._owners:
            for tensor in _tensors_of(owner):
                if _is_lazy(tensor) and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield tensor


def _tensors_of(owner: Any) -> Iterator[torch.Tensor]:
    if isinstance(owner, torch.Tensor):
        yield owner
        return
    if isinstance(owner, torch.nn.Module):
        tensors = [*owner.parameters(), *owner.buffers()]
    else:
        tensors = [item for group in owner.param_groups for item in group["params"]]
        tensors += [leaf for leaf in pytree.tree_leaves(list(owner.state.values())) if isinstance(leaf, torch.Tensor)]
    yield from tensors
    yield from (tensor.grad for tensor in tensors if tensor.grad is not None)


def _is_lazy(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and item.device.type == "lazy"


def _pending(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Those with something left to compute, each once."""
    found = []
    seen: set[int] = set()
    for tensor in tensors:
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        device.sync(tensor)
        if len(device.data_of([tensor])) != 1 or "aten::" in device.graph_text([tensor]):
            found.append(tensor)
    return found


def _same(left: Any, right: Any) -> bool:
    return bool(left == right) or (left != left and right != right)


def _found_state(step: Callable[..., Any]) -> Iterator[Any]:
    """Modules, optimizers and tensors that a function can reach by its closure, its globals and its object."""
    kinds = (torch.nn.Module, torch.optim.Optimizer, torch.Tensor)
    candidates = [step, getattr(step, "__self__", None)]
    function = inspect.unwrap(getattr(step, "__func__", step))
    if inspect.isfunction(function):
        variables = inspect.getclosurevars(function)
        candidates += [*variables.nonlocals.values(), *variables.globals.values()]
    yield from (item for item in candidates if isinstance(item, kinds))


__all__ = ["LazyFunction", "LazyReport", "compile"]
