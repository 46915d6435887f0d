"""The options of a compile, and what each may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from torch_tvm.support.errors import InvalidInput

if TYPE_CHECKING:
    import tvm

Hook = Callable[["tvm.IRModule"], "tvm.IRModule"]
_ACCURACIES = ("strict", "default", "fast")
_STAGES = ("after-lowering", "after-optimizing", "after-scheduling")


@dataclass(frozen=True)
class Options:
    """``accuracy`` is ``"strict"``, ``"default"`` or ``"fast"``; ``passes`` are functions by stage.

    ``measure`` times a few schedules of each heavy kernel and keeps the fastest, also on disk. Without
    ``check_indices`` a position out of range is no error: the nearest one is read, and nothing is written.
    Without ``cache`` no code is read from the disk or kept there; ``cache_key`` names the whole module there.
    ``torch_executed_ops`` names ops that run in PyTorch, such as ``"aten.addmm"`` or ``"aten::addmm.default"``.
    """

    accuracy: str = "default"
    measure: bool = False
    check_indices: bool = True
    cache: bool = True
    cache_key: str = ""
    torch_executed_ops: Sequence[str] = ()
    passes: Mapping[str, Sequence[Hook]] = field(default_factory=dict)

    def of_code(self) -> dict[str, Any]:
        """What kept code depends on, as plain values: all but what says whether and under which name it is kept.

        Code that passes or measurements took part in is never kept.
        """
        others = ("measure", "cache", "cache_key", "passes")
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in others}
        return {**values, "torch_executed_ops": sorted(self.torch_executed_ops)}

    @classmethod
    def parse(cls, options: Mapping[str, Any] | None) -> Options:
        """Raises :class:`InvalidInput` for an unknown option, accuracy or stage."""
        if options is not None and not isinstance(options, Mapping):
            raise InvalidInput(
                f"expected a dict, got {type(options).__name__}",
                subject="options",
                advice='pass options={"accuracy": "strict"}, for one',
            )
        given = dict(options or {})
        refuse_unknown(given, [each.name for each in fields(cls)])
        parsed = cls(**given)
        if parsed.accuracy not in _ACCURACIES:
            raise InvalidInput(
                f"unknown accuracy {parsed.accuracy!r}",
                subject="options",
                advice=f"known: {', '.join(_ACCURACIES)}",
            )
        for name in ("measure", "check_indices", "cache"):
            if not isinstance(getattr(parsed, name), bool):
                raise InvalidInput(
                    f"expected a bool, got {getattr(parsed, name)!r}",
                    subject=f"options['{name}']",
                    advice="pass True or False",
                )
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
        if not isinstance(parsed.passes, Mapping):
            raise InvalidInput(
                f"expected a dict of lists of passes, got {type(parsed.passes).__name__}",
                subject="options['passes']",
                advice=f"known stages: {', '.join(_STAGES)}",
            )
        for stage in parsed.passes:
            if stage not in _STAGES:
                raise InvalidInput(
                    f"unknown stage '{stage}'",
                    subject="options['passes']",
                    advice=f"known: {', '.join(_STAGES)}",
                )
        return parsed


@dataclass(frozen=True)
class GraphOptions:
    """What ``torch.compile(options={…})`` takes beside :class:`Options`, but for ``measure`` and ``cache_key``.

    ``fallback=False`` makes anything that runs in PyTorch an error. ``target`` is as in ``torch_tvm.compile``. A graph of
    fewer ops than ``min_block_size`` runs in PyTorch, and nothing is said about it. ``debug=True`` prints the report of
    each graph.
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
        refuse_unknown(given, [*own, *others])
        parsed = cls(**{name: value for name, value in given.items() if name in own})
        for name, kind in (("fallback", bool), ("debug", bool), ("min_block_size", int)):
            value = getattr(parsed, name)
            if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or value < 1)):
                expected = "a bool" if kind is bool else "a number from 1 on"
                raise InvalidInput(
                    f"expected {expected}, got {value!r}",
                    subject=f"options['{name}']",
                    advice="pass True or False" if kind is bool else "pass 1 to compile every graph",
                )
        return parsed, Options.parse({name: value for name, value in given.items() if name in others})


_FORMER = {
    "scheduler": "kernels are scheduled by rules; auto_scheduler has left TVM, and MetaSchedule is not used",
    "trials": "kernels are scheduled by rules, which try nothing",
    "opt_level": "there is one level: everything that makes a program faster and keeps its results",
}
"""Options of PyTorch's own backend ``tvm``, and why there is no such thing here."""


def refuse_unknown(given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise :class:`InvalidInput` for an option that is not ``known``."""
    for name in given:
        if name in known:
            continue
        if name in _FORMER:
            raise InvalidInput(
                f"no option '{name}': {_FORMER[name]}",
                subject="options",
                advice='leave it out; torch_tvm.compile(options={"measure": True}) times candidates of heavy kernels',
            )
        raise InvalidInput(
            f"unknown option '{name}'", subject="options", advice=f"known: {', '.join(sorted(known))}"
        )


def dialect_spelling(name: str) -> str:
    """``aten::addmm.default``, ``aten.addmm`` and ``torch.aten.addmm`` as the last of them."""
    plain = name.removeprefix("torch.ops.").removeprefix("torch.").replace("::", ".")
    return "torch." + plain.removesuffix(".default")


__all__ = ["GraphOptions", "Options", "dialect_spelling", "refuse_unknown"]
