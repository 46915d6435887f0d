"""``torch_tvm.dryrun``: what a compile would cover, without making any code."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch_tvm.dialect import view
from torch_tvm.dialect.module import TorchModule
from torch_tvm.driver.compiler import Imported, import_program
from torch_tvm.driver.conventions import convention_of
from torch_tvm.driver.methods import check_names
from torch_tvm.driver.pipeline import decomposed, lower_decomposed
from torch_tvm.exclusive import exclusive
from torch_tvm.importers.torchscript import import_torchscript
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.reporting.reproducer import unforeseen
from torch_tvm.support.errors import InvalidInput

_FREE = ("torch.constant.", "torch.vtensor.literal", "torch.prim.ListConstruct", "torch.prim.TupleConstruct")
"""Ops that are no work: what others take."""


@dataclass(frozen=True)
class PlannedOp:
    """An op, the user's line, where in the model, and why PyTorch runs it (``""`` where it is compiled).

    ``library`` says which library compiled code calls for it.
    """

    op: str
    location: str
    scope: str
    reason: str = ""
    library: str = ""

    @property
    def is_compiled(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class DryRun:
    """What a compile would cover; ``str`` prints it, :meth:`to_dict` and :meth:`to_json` give it as plain values.

    ``regions`` are how many ops follow each other in compiled code without one of PyTorch between them.
    """

    frontend: str
    ops: tuple[PlannedOp, ...]

    @property
    def coverage(self) -> float:
        """Compiled ops, in per cent of all."""
        return 100.0 * sum(op.is_compiled for op in self.ops) / len(self.ops) if self.ops else 100.0

    @property
    def left(self) -> list[PlannedOp]:
        """The ops that PyTorch runs."""
        return [op for op in self.ops if not op.is_compiled]

    @property
    def regions(self) -> list[int]:
        groups = itertools.groupby(self.ops, lambda op: op.is_compiled)
        return [len(list(group)) for is_compiled, group in groups if is_compiled]

    def to_dict(self) -> dict[str, Any]:
        """Frontend, coverage in per cent, regions and every op as dicts and lists."""
        return {
            "frontend": self.frontend,
            "coverage": self.coverage,
            "regions": self.regions,
            "ops": [asdict(op) for op in self.ops],
        }

    def to_json(self) -> str:
        """:meth:`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=1)

    def __str__(self) -> str:
        regions = self.regions
        lines = [
            f"{self.coverage:.1f} % of {len(self.ops)} ops compile, in {len(regions)} "
            f"region{'' if len(regions) == 1 else 's'} of {', '.join(map(str, regions)) or 'no'} ops (via "
            f"{self.frontend})"
        ]
        counted = Counter((op.location, op.op, _told(op), op.scope) for op in self.ops if _told(op))
        for (location, name, told, scope), times in counted.items():
            where = f" in {scope}" if scope else ""
            many = f" ({times} times)" if times > 1 else ""
            lines.append(f"  {location}: {name} {told}{where}{many}")
        return "\n".join(lines)


def _told(op: PlannedOp) -> str:
    """What there is to say of an op that has no kernel."""
    if op.library:
        return f"is a library call: {op.library}"
    return "" if op.is_compiled else f"runs in PyTorch: {op.reason}"


@exclusive(exports=True)
def dryrun(
    program: Any,
    example_args: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
    *,
    frontend: str = "auto",
    dynamic_shapes: Any = None,
) -> DryRun:
    """Import a program and see which ops would compile, which PyTorch would run, and why.

    The arguments are those of :func:`torch_tvm.compile`; of a scripted module ``forward`` and the methods that they
    name are looked at, one after the other. No code is made.
    Raises :class:`ImportFailed` and :class:`InvalidInput`.

    >>> import torch, torch_tvm
    >>> print(torch_tvm.dryrun(torch.nn.ReLU(), (torch.ones(2),)))
    100.0 % of 1 ops compile, in 1 region of 1 ops (via fx)
    """
    with unforeseen("dryrun"):
        imported = import_program(program, example_args, frontend, dynamic_shapes)
        ops = [op for module in _modules(imported) for op in _planned(module)]
    return DryRun(imported.frontend, tuple(ops))


def _modules(imported: Imported) -> list[TorchModule]:
    """``forward`` and the other methods that arguments are given for."""
    if imported.script is None:
        return [imported.module] if imported.module is not None else []
    check_names(imported.script, imported.arguments)
    others = [name for name in imported.arguments if name != "forward" or imported.module is None]
    if imported.module is None and not others:
        raise InvalidInput(
            "the module has no forward",
            subject="program",
            advice='name a method: example_args={"encode": (x,)}',
        )
    methods = [import_torchscript(imported.script, imported.arguments[name], method=name) for name in others]
    return [*([imported.module] if imported.module is not None else []), *methods]


def _planned(imported: TorchModule) -> list[PlannedOp]:
    """The ops of a program, in order, and why PyTorch runs some."""
    module = decomposed(canonicalize(imported))
    convention_of(module)  # refuses arguments that no compile takes
    lowered = lower_decomposed(module)
    reasons = {(item.op, item.location): item.reason for item in lowered.fallbacks}
    libraries = {(item.op, item.location): item.library for item in lowered.library_calls}
    ops = []
    for operation in view.walk(module.main):
        name, location = view.op_name(operation), view.location(operation)
        if name.startswith("torch.") and not name.startswith(_FREE) and operation.results:
            reason, library = (found.get((name, location), "") for found in (reasons, libraries))
            ops.append(PlannedOp(name, str(location), location.scope, reason, library))
    return ops


__all__ = ["DryRun", "PlannedOp", "dryrun"]
