"""What the tests read in generated code: which functions a kernel calls for one element at a time."""

from __future__ import annotations

import re

VECTORISED_BY_LLVM = ("llvm.fabs.", "llvm.umin.", "llvm.umax.", "llvm.smin.", "llvm.smax.")
"""Intrinsics that are one instruction, on indices and single values too."""

CALL = re.compile(r"call (?:[a-z_]+ )*(float|double|half|bfloat) @([\w.]+)\(")


def scalar_calls(text: str) -> set[str]:
    """The functions of LLVM IR ``text`` that give one float: libm's, or intrinsics on scalars."""
    return {name for _, name in CALL.findall(text) if not name.startswith(VECTORISED_BY_LLVM)}
