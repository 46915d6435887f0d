"""What was compiled, by which rule, what was left to PyTorch and why, and where the time went."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from torch_tvm.reporting.findings import (
    FallbackOp,
    Findings,
    Kernel,
    LibraryCall,
    Memory,
    Op,
    Origin,
    in_bytes,
)
from torch_tvm.reporting.report_page import page

if TYPE_CHECKING:
    from torch_tvm.profiling.autotune import Measured


@dataclass
class Report(Findings):
    """``str`` prints it, :meth:`to_dict` gives plain Python values, :meth:`html` a page that needs nothing else.

    ``ops`` is the canonical module, op by op; ``seconds`` is the time of each phase; ``benchmark`` is what
    ``compiled.benchmark()`` found last. ``unexplained`` says why kernels have no lines, where they have none.
    ``is_cached`` says that an earlier compile made the code.
    """

    def take_over(self, earlier: Report) -> None:
        """Say of kept code what the compile that made it found; frontend, target and times stay this one's."""
        self.adopt(earlier)
        self.is_cached = True

    def adopt(self, other: Report) -> None:
        """Say what another compile of the program found; frontend, target and times stay this one's."""
        for each in fields(self):
            if each.name not in ("target", "frontend", "seconds", "benchmark"):
                setattr(self, each.name, getattr(other, each.name))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time until the context ends to a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def to_dict(self) -> dict[str, Any]:
        """All of it as dicts and lists, which JSON can hold."""
        return {
            "target": self.target,
            "frontend": self.frontend,
            "kernels": [asdict(kernel) for kernel in self.kernels],
            "ops": [asdict(op) for op in self.ops],
            "memory": asdict(self.memory),
            "benchmark": asdict(self.benchmark) if self.benchmark else None,
            "library_calls": [vars(item) for item in self.library_calls],
            "fallbacks": [vars(item) for item in self.fallbacks],
            "measured": [asdict(item) for item in self.measured],
            "seconds": dict(self.seconds),
            "is_cached": self.is_cached,
            "unexplained": self.unexplained,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """The report that :meth:`to_dict` was called on, without what was measured."""
        return cls(
            target=str(values["target"]),
            frontend=str(values["frontend"]),
            kernels=[_kernel(kernel) for kernel in values["kernels"]],
            library_calls=[LibraryCall(**item) for item in values.get("library_calls", ())],
            ops=[Op(**{**op, "weights": tuple(op["weights"])}) for op in values.get("ops", ())],
            memory=Memory(**values.get("memory", {})),
            unexplained=str(values.get("unexplained", "")),
            fallbacks=[FallbackOp(**item) for item in values["fallbacks"]],
            seconds=dict(values["seconds"]),
        )

    def html(self, *, title: str = "") -> str:
        """The report as one page that loads nothing: modules, ops, kernels with your lines, memory, ops in PyTorch.

        >>> import torch, torch_tvm
        >>> compiled = torch_tvm.compile(torch.nn.ReLU(), (torch.ones(2),))
        >>> compiled.report.html(title="relu").startswith("<!doctype html>")
        True
        """
        return page(self, title)

    def summary(self) -> str:
        """One line."""
        seconds = sum(self.seconds.values())
        return f"{len(self.kernels)} kernels, {len(self.fallbacks)} ops in PyTorch, compiled in {seconds:.2f} s"

    def __str__(self) -> str:
        lines = [f"target: {self.target}", f"frontend: {self.frontend}", f"kernels: {len(self.kernels)}"]
        for kernel in self.kernels:
            lines.append(f"  {kernel.name}: {kernel.rule}")
            about = "" if kernel.origin.is_exact else "near "
            lines += [f"    {about}{place}" for place in self.places(kernel)]
            lines += [f"    packed {name}: {old} -> {new}" for name, old, new in kernel.origin.packed]
            lines += [f"    not {rule}: {reason}" for rule, reason in kernel.refusals.items()]
        lines += [_measured_line(item) for item in self.measured]
        if self.library_calls:
            lines.append(f"library calls: {len(self.library_calls)}")
            lines += [f"  {line}" for line in _library_lines(self.library_calls)]
        lines.append(f"ops in PyTorch: {len(self.fallbacks)}")
        lines += [f"  {_fallback_line(item)}" for item in self.fallbacks]
        lines += [f"not explained: {self.unexplained}"] if self.unexplained else []
        lines += _memory_lines(self.memory)
        total = sum(self.seconds.values())
        lines.append(f"compile time: {total:.2f} s{', code from the cache' if self.is_cached else ''}")
        lines += [f"  {name}: {seconds:.2f} s" for name, seconds in self.seconds.items()]
        return "\n".join(lines)


def _kernel(values: Mapping[str, Any]) -> Kernel:
    origin = dict(values.get("origin", {}))
    origin["packed"] = [tuple(item) for item in origin.get("packed", ())]
    return Kernel(values["name"], values["rule"], dict(values["refusals"]), Origin(**origin))


def _memory_lines(memory: Memory) -> list[str]:
    parts = [f"weights {in_bytes(memory.weights)}"]
    if memory.packed is not None:
        parts.append(f"packed {in_bytes(memory.packed)}")
    if memory.made is not None and memory.peak is not None:
        parts.append(f"tensors of a call {in_bytes(memory.made)}, at once at most {in_bytes(memory.peak)}")
    return [f"memory: {', '.join(parts)}"]


def _measured_line(item: Measured) -> str:
    times = ", ".join(f"{label}: {seconds * 1e6:.0f} us" for label, seconds in item.seconds.items())
    source = "stored" if item.is_stored else "measured"
    return f"  {item.kernel}: {source}, chose {item.choice} ({times})"


def _library_lines(calls: list[LibraryCall]) -> list[str]:
    counted = Counter((item.location, item.op, item.library, item.scope) for item in calls)
    return [
        f"{location}: {op}: {library}" + (f" in {scope}" if scope else "") + (f" ({times} times)" if times > 1 else "")
        for (location, op, library, scope), times in counted.items()
    ]


def _fallback_line(item: FallbackOp) -> str:
    scope = f" in {item.scope}" if item.scope else ""
    return f"{item.location}: {item.op}: {item.reason}{scope}"


def fallback_message(fallbacks: list[FallbackOp]) -> str:
    """The text of the one warning about ops that run in PyTorch; repeated ones are counted."""
    counted: dict[str, int] = {}
    for item in fallbacks:
        line = _fallback_line(item)
        counted[line] = counted.get(line, 0) + 1
    count = len(fallbacks)
    lines = [f"{count} op{' runs' if count == 1 else 's run'} in PyTorch, not in compiled code"]
    lines += [f"  {line}" + (f" ({times} times)" if times > 1 else "") for line, times in counted.items()]
    return "\n".join(lines)


__all__ = [
    "FallbackOp",
    "Kernel",
    "LibraryCall",
    "Memory",
    "Op",
    "Origin",
    "Report",
    "fallback_message",
]
