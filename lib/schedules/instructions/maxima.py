"""Maxima and minima of floats as PyTorch has them: NaN if either operand is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.ir import Expr

from torch_tvm.schedules.instructions.instruction import Instruction


@dataclass(frozen=True)
class Extremum(Instruction):
    """``extremum(a, b)`` of float32 or float64, vectors of them or single ones; the portable form reads both twice."""

    is_largest: bool = True

    def __call__(self, a: Expr, b: Expr) -> Expr:
        dtype = str(a.ty.dtype)
        if not self.is_portable:
            name = "llvm.maximum" if self.is_largest else "llvm.minimum"
            return tirx.call_llvm_pure_intrin(dtype, name, a, b)
        # One instruction of x86 takes the second operand where either is NaN; only a NaN is not at most infinity. Of
        # equals (zeros) the first is taken, as ATen does.
        infinity = tirx.const(math.inf, dtype.partition("x")[0])
        lanes = tvm.DataType(dtype).lanes
        bound = tirx.Broadcast(infinity, lanes) if lanes > 1 else infinity
        beyond = b > a if self.is_largest else b < a
        return tirx.Select(b <= bound, tirx.Select(beyond, b, a), b)
