"""Time of each kernel of a compiled module, measured inside whole runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax

from torch_tvm.profiling.machine import Limits
from torch_tvm.profiling.operations import count_operations


@dataclass(frozen=True)
class KernelTime:
    """One kernel in one run of the model.

    ``seconds`` and ``calls`` are for a whole run, ``operations`` and ``bytes`` as well: floating-point operations that
    the kernel executes (0 when its TIR is not known) and bytes of its arguments, each counted once. ``rule`` is the
    schedule rule that took it.
    """

    name: str
    rule: str
    calls: int
    seconds: float
    operations: float
    bytes: int

    @property
    def gflops(self) -> float:
        return self.operations / self.seconds / 1e9

    @property
    def gigabytes(self) -> float:
        """1e9 bytes a second; above the memory's rate when arguments lie in a cache."""
        return self.bytes / self.seconds / 1e9

    def of_limit(self, limits: Limits) -> float:
        """The least time that arithmetic and memory allow, as a part of the measured time."""
        return max(self.gflops / limits.gflops, self.gigabytes / limits.gigabytes)


@dataclass(frozen=True)
class Benchmark:
    """Kernels by falling time; ``seconds`` is the median of whole runs without instruments. ``str`` is a table."""

    kernels: tuple[KernelTime, ...]
    seconds: float
    limits: Limits

    def __str__(self) -> str:
        total = sum(kernel.seconds for kernel in self.kernels)
        lines = [
            f"{self.seconds * 1e3:.3f} ms a call, {total * 1e3:.3f} ms of it in {len(self.kernels)} kernels; "
            f"the machine: {self.limits.gflops:.0f} GFLOP/s, {self.limits.gigabytes:.1f} GB/s",
            "",
            "| kernel | rule | calls | µs | share | GFLOP/s | GB/s | of the limit |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for kernel in self.kernels:
            lines.append(
                f"| {kernel.name} | {kernel.rule} | {kernel.calls} | {kernel.seconds * 1e6:.1f} | "
                f"{kernel.seconds / total:.1%} | {kernel.gflops:.1f} | {kernel.gigabytes:.1f} | "
                f"{kernel.of_limit(self.limits):.0%} |"
            )
        return "\n".join(lines)


@dataclass
class _Call:
    name: str
    seconds: float
    shapes: tuple[tuple[int, ...], ...]
    bytes: int


class Recorder:
    """A VM instrument that notes each kernel call; its own work lies outside the measured time."""

    def __init__(self, skipped: frozenset[str]) -> None:
        self.calls: list[_Call] = []
        self._skipped = skipped
        self._started = 0.0

    def __call__(self, function: Any, name: str, is_before: bool, result: Any, *args: Any) -> int:
        if name.startswith("vm.builtin") or name in self._skipped:
            return 0
        if is_before:
            self._started = time.perf_counter()
            return 0
        seconds = time.perf_counter() - self._started
        tensors = {arg.data_ptr(): arg for arg in args if isinstance(arg, tvm.runtime.Tensor)}
        sizes = sum(_bytes(tensor) for tensor in tensors.values())
        shapes = tuple(tuple(arg.shape) for arg in args if isinstance(arg, tvm.runtime.Tensor))
        self.calls.append(_Call(name, seconds, shapes, sizes))
        return 0


def _bytes(tensor: Any) -> int:
    count = 1
    for size in tensor.shape:
        count *= int(size)
    return (count * tvm.DataType(str(tensor.dtype)).bits + 7) // 8


def benchmark(
    run: Callable[[], Any],
    instrumented: Callable[[Recorder], Callable[[], Any]],
    mod: tvm.IRModule | None,
    rules: Mapping[str, str],
    limits: Limits,
    runs: int,
) -> Benchmark:
    """``run`` runs the model; ``instrumented(recorder)`` gives a function that does so under a recorder.

    Medians of ``runs`` runs each. A kernel's time includes about two microseconds of the instrument.
    """
    run()
    seconds = statistics.median(_seconds(run) for _ in range(runs))
    recorder = Recorder(_relax_functions(mod))
    recorded = instrumented(recorder)
    recorded()
    runs_of_calls: list[list[_Call]] = []
    for _ in range(runs):
        recorder.calls = []
        recorded()
        runs_of_calls.append(recorder.calls)
    return Benchmark(tuple(_kernels(runs_of_calls, mod, rules)), seconds, limits)


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _relax_functions(mod: tvm.IRModule | None) -> frozenset[str]:
    """Functions whose calls are the sum of others."""
    items = mod.functions_items() if mod is not None else []
    return frozenset(g.name_hint for g, f in items if isinstance(f, relax.Function)) | {"main"}


def _kernels(
    runs_of_calls: Sequence[Sequence[_Call]], mod: tvm.IRModule | None, rules: Mapping[str, str]
) -> list[KernelTime]:
    functions = dict((g.name_hint, f) for g, f in mod.functions_items()) if mod is not None else {}
    last: dict[str, list[_Call]] = {}
    for call in runs_of_calls[-1]:
        last.setdefault(call.name, []).append(call)
    found = []
    for name, calls in last.items():
        sums = [sum(call.seconds for call in run if call.name == name) for run in runs_of_calls]
        function = functions.get(name)
        counts: dict[Any, float] = {}
        if isinstance(function, tvm.tirx.PrimFunc):
            counts = {shapes: count_operations(function, shapes) for shapes in {call.shapes for call in calls}}
        operations = sum(counts.get(call.shapes, 0.0) for call in calls)
        sizes = sum(call.bytes for call in calls)
        found.append(KernelTime(name, rules.get(name, "–"), len(calls), statistics.median(sums), operations, sizes))
    return sorted(found, key=lambda kernel: -kernel.seconds)


__all__ = ["Benchmark", "KernelTime", "Recorder", "benchmark"]
