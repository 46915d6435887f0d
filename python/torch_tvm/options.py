"""The options of a compile, and what each may be."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from torch_tvm.support.errors import InvalidInput
from torch_tvm.tuning.database import Database

if TYPE_CHECKING:
    import tvm

Hook = Callable[["tvm.IRModule"], "tvm.IRModule"]
SCHEDULER = "TVM_SCHEDULER"
_ACCURACIES = ("strict", "default", "fast")
_STAGES = ("after-lowering", "after-optimizing", "after-scheduling")
_LEVELS = 4


@dataclass(frozen=True)
class Options:
    """``accuracy`` is ``"strict"``, ``"default"`` or ``"fast"``; ``passes`` are functions by stage.

    ``measure`` times a few schedules of each heavy kernel and keeps the fastest, also on disk. Without
    ``check_indices`` a position out of range is no error: the nearest one is read, and nothing is written.
    Without ``cache`` no code is read from the disk or kept there; ``cache_key`` names the whole module there.
    ``database`` is a folder of :func:`torch_tvm.tune`, whose schedules are used.
    ``torch_executed_ops`` names ops that run in PyTorch, such as ``"aten.addmm"`` or ``"aten::addmm.default"``.

    ``opt_level`` 3 leaves nothing out. 2 leaves out layouts of their own (blocked channels and with them all rules for
    convolutions, attention as one kernel, products of bytes); 1 leaves out as well what is done with weights when the
    program is compiled (packing, folding of batch norms, joining of products that share an operand); 0 fuses nothing:
    each op is a kernel.
    ``scheduler`` is ``"default"``: rules schedule every kernel; with ``"meta_schedule"`` the compile tries ``trials``
    schedules beside those, as :func:`torch_tvm.tune` does, and keeps what it found in ``database``, if one is given.

    ``lowerings`` take the place of built-in ones in this compile, by the name of the op; what they refuse is left to
    those. ``rules`` are offered each kernel before the schedule rules of the target.
    """

    accuracy: str = "default"
    measure: bool = False
    check_indices: bool = True
    cache: bool = True
    cache_key: str = ""
    database: str | os.PathLike[str] = ""
    torch_executed_ops: Sequence[str] = ()
    opt_level: int = _LEVELS - 1
    scheduler: str | None = "default"
    trials: int = 20000
    passes: Mapping[str, Sequence[Hook]] = field(default_factory=dict)
    lowerings: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    rules: Sequence[Any] = ()

    @property
    def is_extended(self) -> bool:
        """Whether code of the user's takes part in the compile: it may raise what it likes, and nobody knows its
        version.
        """
        return bool(self.passes or self.lowerings or self.rules)

    def of_code(self) -> dict[str, Any]:
        """What kept code depends on, as plain values: all but what says whether and under which name it is kept.

        Code that code of the user's or measurements took part in is never kept.
        """
        others = ("measure", "cache", "cache_key", "passes", "lowerings", "rules", "scheduler", "trials")
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in others}
        records = Database(self.database).digest() if self.database else ""
        return {**values, "torch_executed_ops": sorted(self.torch_executed_ops), "database": records}

    @property
    def measures(self) -> bool:
        """Whether code depends on what this compile measures, so that it is not kept."""
        return self.measure or self.searches

    @property
    def searches(self) -> bool:
        """Whether this compile looks for schedules."""
        return self.scheduler == "meta_schedule"

    @classmethod
    def parse(cls, options: Mapping[str, Any] | None) -> Options:
        """Raises :class:`InvalidInput` for an unknown option, and for a value that an option cannot have."""
        if options is not None and not isinstance(options, Mapping):
            raise InvalidInput(
                f"expected a dict, got {type(options).__name__}",
                subject="options",
                advice='pass options={"accuracy": "strict"}, for one',
            )
        given = dict(options or {})
        _refuse_unknown(given, [each.name for each in fields(cls)])
        parsed = cls(**given)
        if parsed.accuracy not in _ACCURACIES:
            raise InvalidInput(
                f"unknown accuracy {parsed.accuracy!r}",
                subject="options",
                advice=f"known: {', '.join(_ACCURACIES)}",
            )
        for name in ("measure", "check_indices", "cache"):
            _require_bool(parsed, name)
        if not isinstance(parsed.cache_key, str):
            raise InvalidInput(
                f"expected a text, got {type(parsed.cache_key).__name__}",
                subject="options['cache_key']",
                advice='pass a name that changes when the program or its weights do: "resnet50-v3"',
            )
        named = parsed.torch_executed_ops
        if isinstance(named, str) or not all(isinstance(name, str) for name in named):
            raise InvalidInput(
                f"expected a list of names of ops, got {named!r}",
                subject="options['torch_executed_ops']",
                advice="pass ['aten.addmm'], for one",
            )
        _require_number(parsed, "opt_level", range(_LEVELS), "3 leaves nothing out")
        _require_number(parsed, "trials", range(1, 1 << 62), "pass how many schedules a search may try")
        _check_scheduler(parsed.scheduler)
        if parsed.database != "":
            Database(parsed.database, is_new=parsed.searches)  # refuses what is no folder
        _check_passes(parsed.passes)
        _check_extensions(parsed)
        return parsed


@dataclass(frozen=True)
class GraphOptions:
    """What ``torch.compile(options={…})`` takes beside :class:`Options`, but for ``measure`` and ``cache_key``.

    ``fallback=False`` makes anything that runs in PyTorch an error. ``target`` is as in ``torch_tvm.compile``. A graph
    of fewer ops than ``min_block_size`` runs in PyTorch, and nothing is said about it. ``debug=True`` prints the report
    of each graph. Where no ``scheduler`` is given, ``$TVM_SCHEDULER`` is it.
    """

    fallback: bool = True
    target: Any = "auto"
    min_block_size: int = 1
    debug: bool = False

    @classmethod
    def parse(cls, options: Mapping[str, Any] | None) -> tuple[GraphOptions, Options]:
        """Both kinds of options. Raises :class:`InvalidInput` for an unknown one, and for a wrong value."""
        given = dict(options or {})
        own = [each.name for each in fields(cls)]
        others = [each.name for each in fields(Options) if each.name not in ("measure", "cache_key")]
        _refuse_unknown(given, [*own, *others])
        parsed = cls(**{name: value for name, value in given.items() if name in own})
        _require_bool(parsed, "fallback")
        _require_bool(parsed, "debug")
        _require_number(parsed, "min_block_size", range(1, 1 << 62), "pass 1 to compile every graph")
        rest = {name: value for name, value in given.items() if name in others}
        if rest.get("scheduler") is None:
            rest["scheduler"] = os.environ.get(SCHEDULER) or None
        return parsed, Options.parse(rest)


def _refuse_unknown(given: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise InvalidInput(
                f"unknown option '{name}'", subject="options", advice=f"known: {', '.join(sorted(known))}"
            )


def _require_bool(options: Any, name: str) -> None:
    value = getattr(options, name)
    if not isinstance(value, bool):
        raise InvalidInput(f"expected a bool, got {value!r}", subject=f"options['{name}']", advice="pass True or False")


def _require_number(options: Any, name: str, admitted: range, advice: str) -> None:
    value = getattr(options, name)
    if isinstance(value, bool) or not isinstance(value, int) or value not in admitted:
        high = f"to {admitted[-1]}" if len(admitted) < 100 else "on"
        raise InvalidInput(
            f"expected a number from {admitted.start} {high}, got {value!r}",
            subject=f"options['{name}']",
            advice=advice,
        )


_SCHEDULERS = ("default", "meta_schedule")


def _check_scheduler(name: Any) -> None:
    if name is None or name in _SCHEDULERS:
        return
    is_old = name == "auto_scheduler"
    raise InvalidInput(
        "no scheduler 'auto_scheduler': it left TVM together with Relay" if is_old else f"unknown scheduler {name!r}",
        subject="options['scheduler']",
        advice=f"known: {', '.join(_SCHEDULERS)}",
    )


def _check_passes(passes: Any) -> None:
    known = ", ".join(_STAGES)
    if not isinstance(passes, Mapping):
        raise InvalidInput(
            f"expected a dict of lists of passes, got {type(passes).__name__}",
            subject="options['passes']",
            advice=f"known stages: {known}",
        )
    for stage in passes:
        if stage not in _STAGES:
            raise InvalidInput(f"unknown stage '{stage}'", subject="options['passes']", advice=f"known: {known}")


def _check_extensions(options: Options) -> None:
    lowerings, rules = options.lowerings, options.rules
    if not isinstance(lowerings, Mapping) or not all(map(callable, lowerings.values())):
        raise InvalidInput(
            "expected a dict of functions by the name of an op",
            subject="options['lowerings']",
            advice='pass {"aten.gelu": function}',
        )
    if isinstance(rules, str) or not all(hasattr(rule, "apply") and hasattr(rule, "name") for rule in rules):
        raise InvalidInput(
            "expected a list of rules, each with a name and apply(func, machine)",
            subject="options['rules']",
            advice="docs/adding_a_schedule_rule.md shows one",
        )


def dialect_spelling(name: str) -> str:
    """``aten::addmm.default``, ``aten.addmm`` and ``torch.aten.addmm`` as the last of them."""
    plain = name.removeprefix("torch.ops.").removeprefix("torch.").replace("::", ".")
    return "torch." + plain.removesuffix(".default")


__all__ = ["GraphOptions", "Options", "dialect_spelling"]
