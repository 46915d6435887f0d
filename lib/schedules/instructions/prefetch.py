"""Asking for a line of memory before it is read: an instruction that every processor has, or ignores."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from torch_tvm.schedules.instructions.instruction import Instruction


@dataclass(frozen=True)
class Prefetch(Instruction):
    """``prefetch(place, level)`` asks for the line of an element: ``level`` 3 is into the first cache, 2 the second."""

    def __call__(self, place: Expr, level: int) -> tirx.Stmt:
        if self.is_portable:
            return tirx.Evaluate(tirx.IntImm("int64", 0))
        return tirx.Evaluate(tirx.call_intrin("void", "tirx.prefetch", tirx.address_of(place), 0, level, 1))


PREFETCH = Prefetch("prefetch", "nothing")
