"""What the commands share: an argument parser whose errors are ours, and numbers of options."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from torch_tvm.support.errors import InvalidInput, TorchTvmError

_SEEDS = range(-(1 << 63), 1 << 64)
"""Those that PyTorch's generators take."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises :class:`InvalidInput` for what it does not take."""

    def error(self, message: str) -> NoReturn:
        raise InvalidInput(message, advice=f"{self.prog} --help says what it takes")


def seed(text: str) -> int:
    """The number of ``--seed``."""
    return _number(text, int, lambda value: value in _SEEDS, "a whole number of 64 bits")


def count(text: str) -> int:
    """A number of things, at least one."""
    return _number(text, int, lambda value: 0 < value < 1 << 31, "a number from 1 on")


def amount(text: str) -> float:
    """A time or a size, which may be zero."""
    return _number(text, float, lambda value: 0 <= value < math.inf, "a number from 0 on")


def _number(text: str, kind: type, is_right: Callable[[Any], bool], expected: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not is_right(value):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text[:40]!r}")
    return value


def fail(program: str, error: Exception, *, is_json: bool) -> None:
    """Say on stderr what is wrong, and as one object on stdout where that is what was asked for."""
    text = str(error) if isinstance(error, (TorchTvmError, OSError)) else _unforeseen(error)
    print(f"{program}: error: {text}", file=sys.stderr)
    if is_json:
        parts = {name: getattr(error, name, "") for name in ("problem", "subject", "stage", "advice")}
        location = getattr(error, "location", None)
        place = {"file": location.file, "line": location.line, "scope": location.scope} if location else None
        found = {"type": type(error).__name__, "message": text, **parts, "location": place}
        print(json.dumps({"error": found}, indent=1))


def _unforeseen(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "no message")
    return f"{type(error).__name__}: {first}\n  set TORCH_TVM_TRACEBACK=1 to see where"


__all__ = ["Parser", "amount", "count", "fail", "seed"]
