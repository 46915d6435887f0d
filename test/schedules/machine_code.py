"""What the tests read in generated code: which functions a kernel calls for one element at a time."""

from __future__ import annotations

import re

INSTRUCTIONS = ("llvm.fabs.", "llvm.sqrt.", "llvm.maximum.", "llvm.minimum.")
"""Intrinsics that become instructions: on the one result of a row, too."""

CALL = re.compile(r"call (?:[a-z_]+ )*(float|double|half|bfloat) @([\w.]+)\(")


def scalar_calls(text: str) -> set[str]:
    """The functions of LLVM IR ``text`` that give one float: libm's, or intrinsics on scalars."""
    return {name for _, name in CALL.findall(text) if not name.startswith(INSTRUCTIONS)}
