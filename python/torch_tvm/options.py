"""The options of a compile, and what each may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    """

    accuracy: str = "default"
    measure: bool = False
    check_indices: bool = True
    cache: bool = True
    cache_key: str = ""
    passes: Mapping[str, Sequence[Hook]] = field(default_factory=dict)

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
        known = {"accuracy", "measure", "check_indices", "cache", "cache_key", "passes"}
        for name in given:
            if name not in known:
                raise InvalidInput(
                    f"unknown option '{name}'", subject="options", advice=f"known: {', '.join(sorted(known))}"
                )
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


__all__ = ["Options"]
