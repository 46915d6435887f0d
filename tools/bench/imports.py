"""How long each frontend from a PyTorch model to the canonical module takes: ``torch-tvm bench --imports``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from torch_tvm.dialect.module import TorchModule
from torch_tvm.importers.fx import import_fx
from torch_tvm.importers.fx.program import export
from torch_tvm.importers.lazy import import_lazy
from torch_tvm.importers.torchscript import as_script, import_torchscript
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.support.errors import ImportFailed, TorchTvmError
from torch_tvm.tools.bench.table import reason, table
from torch_tvm.tools.zoo import build

STEPS = (
    "torch.export", "fx", "torch.jit", "torchscript", "lazy",
    "canonical: fx", "canonical: torchscript", "canonical: lazy",
)  # fmt: skip


@dataclass
class ImportTimes:
    """Median seconds of each step of a model's imports; ``failures`` has the reason of a frontend that failed."""

    model: str
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def time_imports(model: str, batch: int, rounds: int) -> ImportTimes:
    """Import a model of the zoo ``rounds`` times by each frontend, each time from the eager module."""
    times = ImportTimes(model)
    module, args = build(model, batch)
    for frontend in (_by_fx, _by_torchscript, _by_lazy):
        records: dict[str, list[float]] = {}
        try:
            for _ in range(rounds):
                frontend(module, args, _Clock(records))
        except TorchTvmError as error:
            times.failures[frontend.__name__.removeprefix("_by_")] = str(error)
            continue
        times.seconds.update({step: median(values) for step, values in records.items()})
    return times


class _Clock:
    """Adds the time of each step to its list."""

    def __init__(self, records: dict[str, list[float]]) -> None:
        self.records = records

    def __call__(self, step: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        self.records.setdefault(step, []).append(time.perf_counter() - started)
        return result


def _by_fx(module: torch.nn.Module, args: tuple[Any, ...], clock: _Clock) -> None:
    program = clock("torch.export", lambda: export(module, args))
    imported: TorchModule = clock("fx", lambda: import_fx(program))
    clock("canonical: fx", lambda: canonicalize(imported))


def _by_torchscript(module: torch.nn.Module, args: tuple[Any, ...], clock: _Clock) -> None:
    script = clock("torch.jit", lambda: _script(module, args))
    imported: TorchModule = clock("torchscript", lambda: import_torchscript(script, args))
    clock("canonical: torchscript", lambda: canonicalize(imported))


def _script(module: torch.nn.Module, args: tuple[Any, ...]) -> Any:
    try:
        return as_script(module)
    except ImportFailed:
        return torch.jit.trace(module, args, check_trace=False)


def _by_lazy(module: torch.nn.Module, args: tuple[Any, ...], clock: _Clock) -> None:
    imported: TorchModule = clock("lazy", lambda: import_lazy(module, args))
    clock("canonical: lazy", lambda: canonicalize(imported))


def imports_markdown(models: Sequence[ImportTimes], batch: int, rounds: int) -> str:
    """One row a model, milliseconds by step."""
    heading = (
        f"Milliseconds of an import by each frontend, batch {batch}, medians of {rounds} in one process. "
        "torch.export and "
        "torch.jit (script, or trace where that fails) are PyTorch's own time before ours; lazy includes the run on "
        "the lazy device. canonical: what bringing that module to canonical form takes afterwards."
    )
    rows = [["model", *STEPS], *([times.model, *(_cell(times, step) for step in STEPS)] for times in models)]
    return f"{heading}\n\n{table(rows)}\n"


def _cell(times: ImportTimes, step: str) -> str:
    if step in times.seconds:
        return f"{times.seconds[step] * 1e3:.1f}"
    frontend = {"torch.export": "fx", "torch.jit": "torchscript"}.get(step, step.removeprefix("canonical: "))
    return reason(times.failures.get(frontend, "–"))


__all__ = ["ImportTimes", "imports_markdown", "time_imports"]
