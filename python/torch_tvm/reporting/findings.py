"""What a report holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch_tvm.profiling.autotune import Measured
    from torch_tvm.profiling.benchmark import Benchmark


@dataclass(frozen=True)
class Op:
    """An operation of the canonical module: its name, the user's line, where in the model, its results and weights."""

    name: str
    file: str
    line: int
    scope: str
    result: str
    weights: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.file else ""


@dataclass(frozen=True)
class Origin:
    """What a kernel computes: positions among the ops, how often it is called, what it makes, and the weights that were
    packed for it, as name, before and after. Unless ``is_exact`` the ops are those that it is between.
    """

    ops: list[int] = field(default_factory=list)
    is_exact: bool = True
    calls: int = 0
    result: str = ""
    packed: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Memory:
    """Bytes: of the weights as the program has them and as kernels read them, of all tensors that one call makes, and
    of those that live at the same time at most. ``None`` where sizes are unknown.
    """

    weights: int = 0
    packed: int | None = None
    made: int | None = None
    peak: int | None = None


@dataclass(frozen=True)
class Kernel:
    """A kernel, the schedule rule that took it, why each rule before it refused, and what it comes from."""

    name: str
    rule: str
    refusals: dict[str, str] = field(default_factory=dict)
    origin: Origin = field(default_factory=Origin)


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
class Findings:
    """The fields of a :class:`torch_tvm.reporting.report.Report`."""

    target: str = ""
    frontend: str = ""
    kernels: list[Kernel] = field(default_factory=list)
    library_calls: list[LibraryCall] = field(default_factory=list)
    fallbacks: list[FallbackOp] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    is_cached: bool = False
    ops: list[Op] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    benchmark: Benchmark | None = None
    unexplained: str = ""

    def places(self, kernel: Kernel) -> list[str]:
        """The user's lines that a kernel comes from, each once: ``model.py:41 (layers.0.conv)``."""
        ops = [self.ops[index] for index in kernel.origin.ops if index < len(self.ops)]
        scopes: dict[str, dict[str, None]] = {}
        for op in ops:
            if op.place:
                scopes.setdefault(op.place, {})[op.scope] = None
        return [
            place + (f" ({', '.join(filter(None, inside))})" if any(inside) else "") for place, inside in scopes.items()
        ]


def in_bytes(count: int) -> str:
    """``1.5 MB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


__all__ = ["FallbackOp", "Findings", "Kernel", "LibraryCall", "Memory", "Op", "Origin", "in_bytes"]
