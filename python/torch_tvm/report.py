"""What was compiled, by which rule, what was left to PyTorch and why, and where the time went."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_tvm.profiling.autotune import Measured


@dataclass(frozen=True)
class Kernel:
    """A kernel, the schedule rule that took it, and why each rule before it refused."""

    name: str
    rule: str
    refusals: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FallbackOp:
    """An op that runs in PyTorch: its name, the user's line, where in the model, and why."""

    op: str
    location: str
    scope: str
    reason: str


@dataclass(frozen=True)
class LibraryCall:
    """An op that compiled code calls in a library: its name, the user's line, where in the model, and which library."""

    op: str
    location: str
    scope: str
    library: str


@dataclass
class Report:
    """``str`` prints it, :meth:`to_dict` gives plain Python values; ``seconds`` is the time of each phase.

    ``is_cached`` says that an earlier compile made the code.
    """

    target: str = ""
    frontend: str = ""
    kernels: list[Kernel] = field(default_factory=list)
    library_calls: list[LibraryCall] = field(default_factory=list)
    fallbacks: list[FallbackOp] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    is_cached: bool = False

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time until the context ends to a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def to_dict(self) -> dict[str, Any]:
        """Target, kernels, library calls, fallbacks and seconds as dicts and lists."""
        return {
            "target": self.target,
            "frontend": self.frontend,
            "kernels": [vars(kernel) for kernel in self.kernels],
            "library_calls": [vars(item) for item in self.library_calls],
            "fallbacks": [vars(item) for item in self.fallbacks],
            "measured": [asdict(item) for item in self.measured],
            "seconds": dict(self.seconds),
            "is_cached": self.is_cached,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """The report that :meth:`to_dict` was called on, without what was measured."""
        return cls(
            target=str(values["target"]),
            frontend=str(values["frontend"]),
            kernels=[Kernel(**kernel) for kernel in values["kernels"]],
            library_calls=[LibraryCall(**item) for item in values.get("library_calls", ())],
            fallbacks=[FallbackOp(**item) for item in values["fallbacks"]],
            seconds=dict(values["seconds"]),
        )

    def __str__(self) -> str:
        lines = [f"target: {self.target}", f"frontend: {self.frontend}", f"kernels: {len(self.kernels)}"]
        for kernel in self.kernels:
            lines.append(f"  {kernel.name}: {kernel.rule}")
            lines += [f"    not {rule}: {reason}" for rule, reason in kernel.refusals.items()]
        lines += [_measured_line(item) for item in self.measured]
        if self.library_calls:
            lines.append(f"library calls: {len(self.library_calls)}")
            lines += [f"  {line}" for line in _library_lines(self.library_calls)]
        lines.append(f"ops in PyTorch: {len(self.fallbacks)}")
        lines += [f"  {_fallback_line(item)}" for item in self.fallbacks]
        total = sum(self.seconds.values())
        lines.append(f"compile time: {total:.2f} s{', code from the cache' if self.is_cached else ''}")
        lines += [f"  {name}: {seconds:.2f} s" for name, seconds in self.seconds.items()]
        return "\n".join(lines)


def _measured_line(item: Measured) -> str:
    times = ", ".join(f"{label}: {seconds * 1e6:.0f} us" for label, seconds in item.seconds.items())
    source = "stored" if item.is_stored else "measured"
    return f"  {item.kernel}: {source}, chose {item.choice} ({times})"


def _library_lines(calls: list[LibraryCall]) -> list[str]:
    counted = Counter((item.location, item.op, item.library, item.scope) for item in calls)
    return [
        f"{location}: {op}: {library}"
        + (f" in {scope}" if scope else "")
        + (f" ({times} times)" if times > 1 else "")
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


__all__ = ["FallbackOp", "Kernel", "LibraryCall", "Report", "fallback_message"]
