"""What a compile asks of a kind of target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import tvm
from tvm import tirx

from torch_tvm.schedules.rule import Rule
from torch_tvm.schedules.sizes import NamedSizes
from torch_tvm.support.errors import InvalidInput
from torch_tvm.transforms.base import Transform


class Executable(Protocol):
    """What a build gives: ``mod`` is machine code of a CPU, ``jit`` what this machine runs."""

    @property
    def mod(self) -> tvm.runtime.Module: ...

    def jit(self) -> Any: ...


class Backend(ABC):
    """One kind of target: what it is filled up with, its graph passes, its schedule rules, their finish, and its code.

    ``kind`` is TVM's name of it, ``device`` PyTorch's name of where its tensors are. Where ``checks_indices``, a kernel
    can raise for a position out of range; other kernels take the nearest one. With ``many_threads`` one alone is slow.
    """

    kind: str = ""
    device: ClassVar[str] = "cpu"
    checks_indices: ClassVar[bool] = False
    many_threads: ClassVar[bool] = False

    # -- the target ------------------------------------------------------------------------------------

    def complete(self, options: Mapping[str, Any]) -> tvm.target.Target:
        """The target that a dict describes, with what it leaves out. Raises ``InvalidInput`` for what is wrong."""
        return parse_target(options)

    def checked(self, target: tvm.target.Target) -> tvm.target.Target:
        """The target; raises ``InvalidInput`` for one that no code can be made for."""
        return target

    @abstractmethod
    def why_not_runnable(self, target: tvm.target.Target) -> str:
        """Why code for the target cannot run on this machine, ``""`` when it can."""

    def instruction_sets(self, target: tvm.target.Target) -> frozenset[str] | None:
        """What code for the target asks of a processor; ``None`` where code cannot be written to a file."""
        return None

    def why_not_measurable(self, target: tvm.target.Target) -> str:
        """Why candidates of a schedule rule cannot be timed on this machine, ``""`` when they can."""
        return "it is no CPU"

    # -- the stages ------------------------------------------------------------------------------------

    @abstractmethod
    def graph_passes(self, target: tvm.target.Target, accuracy: str) -> Sequence[Transform]:
        """Rewrites of ops on whole tensors, before those that all targets share."""

    @abstractmethod
    def rules(self) -> Sequence[Rule]:
        """The schedule rules, most specific first."""

    def machine(self, target: tvm.target.Target) -> Any:
        """What rules are given to know the target by."""
        return target

    def prepare(self, func: tirx.PrimFunc) -> NamedSizes:
        """The kernel as rules are given it, and the sizes in it that stand for others."""
        return NamedSizes(func, func)

    def finish(self, func: tirx.PrimFunc, machine: Any) -> tirx.PrimFunc:
        """What every kernel needs, whichever rule took it, or none."""
        return func.with_attr("tirx.is_scheduled", True)

    @abstractmethod
    def build(self, mod: tvm.IRModule, target: tvm.target.Target, *, is_native: bool = True) -> Executable:
        """Machine code for a scheduled module, which this machine runs if ``is_native``."""


def parse_target(options: Any) -> tvm.target.Target:
    """A TVM target from a dict or JSON."""
    try:
        return tvm.target.Target(options)
    except Exception as error:
        raise InvalidInput(
            f"TVM does not take it: {error}",
            subject="target",
            advice='give it a kind and what TVM knows of that: {"kind": "llvm", "mcpu": "znver4"}',
        ) from error


def dict_of(target: tvm.target.Target) -> dict[str, Any]:
    """A target as the dict that makes it again."""
    return {"kind": str(target.kind.name), **{str(key): value for key, value in target.attrs.items()}}
