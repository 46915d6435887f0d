"""Errors that arise inside compiled code: how they cross TVM, which knows them by name, and what they say.

Where PyTorch raises, so does compiled code: with an :class:`InvalidInput` that can be caught as PyTorch's own type.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import tvm_ffi

from torch_tvm.support.errors import (
    ImportFailed,
    InternalError,
    InvalidIndex,
    InvalidInput,
    InvalidOperand,
    SourceLocation,
    TorchTvmError,
    UnsupportedOp,
    bug_of,
)
from torch_tvm.support.packed_functions import BAD_INDEX

_ERRORS = (ImportFailed, InternalError, InvalidIndex, InvalidInput, InvalidOperand, UnsupportedOp)


def invalid(error: Exception) -> type[InvalidInput]:
    """The class of ours for an error that PyTorch raised because of its arguments."""
    if isinstance(error, IndexError):
        return InvalidIndex
    return InvalidOperand if isinstance(error, RuntimeError) else InvalidInput


def location_of(description: Mapping[str, Any]) -> SourceLocation:
    """The user's line in the description of an op that compiled code carries."""
    return SourceLocation(*(description[name] for name in ("file", "line", "scope", "importer")))


def out_of_range(description: Mapping[str, Any], index: int, size: int) -> InvalidIndex:
    """The error for a position that a dimension of ``size`` does not have."""
    return InvalidIndex(
        f"index {index} is out of range for a dimension of size {size}",
        subject=description["op"],
        location=location_of(description),
        advice='compile with options={"check_indices": False} to take the nearest position instead',
    )


def bad_index(text: str, index: int, size: int) -> NoReturn:
    """Raise for a position out of range; called by the kernel that found it."""
    raise out_of_range(json.loads(str(text)), int(index), int(size))


_OF_TVM = (RuntimeError, ValueError, TypeError, IndexError, AttributeError)
_OF_SIZES = ("Mismatch", "mismatch", "unsatisfied constraint")
_EAGER = "call the program in eager mode with these arguments: it names the op, or answers, and then report it"


def explained(error: Exception, has_unknown_sizes: bool) -> Exception:
    """What an error that left compiled code is to the user, whose arguments all fit by themselves.

    Our own errors and those of a custom op stay as they are. TVM's say that sizes do not fit each other: at a
    ``match_cast``, where a size is first known, and with ``has_unknown_sizes`` at a kernel; or that there is no memory.
    Anything else is a bug of ours.
    """
    if isinstance(error, TorchTvmError) or not isinstance(error, _OF_TVM):
        return error
    text = str(error)
    if "bad_alloc" in text:
        return InvalidOperand("there is not enough memory for a tensor of the program", stage="runtime")
    if "match_cast" in text or (has_unknown_sizes and any(word in text for word in _OF_SIZES)):
        line = next(line.strip() for line in text.splitlines() if line.strip())
        return InvalidOperand(f"sizes do not fit each other: {line}", stage="runtime", advice=_EAGER)
    return InternalError(bug_of(error), stage="runtime", advice="report it with the program and the arguments")


def register() -> None:
    """Make errors and functions known to TVM; once a process."""
    tvm_ffi.register_global_func(BAD_INDEX, bad_index, override=True)
    for error in _ERRORS:
        tvm_ffi.register_error(f"torch_tvm.{error.__name__}", error)


__all__ = ["bad_index", "explained", "invalid", "location_of", "out_of_range", "register"]
