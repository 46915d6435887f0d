"""A failing program made small: a few ops, and a file that shows the failure with one command."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torch_tvm.debug.compare import both_results, error_of, limit_of
from torch_tvm.debug.lockstep import imported
from torch_tvm.debug.slices import (
    Value,
    needed,
    operations,
    part,
    tensor_values,
    used_arguments,
    without_unused_arguments,
)
from torch_tvm.dialect import view
from torch_tvm.dialect.module import TorchModule
from torch_tvm.support.errors import InvalidInput, TorchTvmError, bug_of, first_line
from torch_tvm.support.files import check_writable, write_whole
from torch_tvm.support.sandbox import failure_of

_SECONDS = 120.0


@dataclass(frozen=True)
class Minimized:
    """What is left: the module, its flat arguments, how it fails, and the file; ``command`` runs that."""

    module: TorchModule
    arguments: tuple[Any, ...]
    failure: str
    path: str

    @property
    def command(self) -> str:
        return f"python {self.path}"

    @property
    def ops(self) -> list[str]:
        """The ops that are left, constants aside."""
        return [view.op_name(operations(self.module)[index]) for index, _ in tensor_values(self.module)]

    def __str__(self) -> str:
        return f"{len(self.ops)} ops fail as the program does: {self.failure}\n  {self.command} shows it"


def minimize(
    program: Any,
    args: Sequence[Any] | None = None,
    *,
    output: str | os.PathLike[str] = "minimized.py",
    frontend: str = "auto",
    tolerance: float | None = None,
    target: Any = "auto",
    options: Any = None,
) -> Minimized:
    """Shrink a program whose compiled code is wrong, or that does not compile, to a few ops, and write a Python file.

    The failure may be other numbers than the reference interpreter's (``tolerance`` as in :func:`lockstep`), a bug of
    the compiler, or the end of the process: each attempt runs in a child process. Raises :class:`InvalidInput` for a
    program that does not fail, and before the search where ``output`` cannot be written.

    >>> import torch, torch_tvm
    >>> torch_tvm.debug.minimize(torch.nn.ReLU(), (torch.ones(3),))
    Traceback (most recent call last):
        ...
    torch_tvm.support.errors.InvalidInput: the program does not fail: compiled and interpreted it gives the same
    """
    check_writable(output)
    module, flat = imported(program, args, frontend)
    search = _Search(tolerance, target, options)
    values = tensor_values(module)
    failure = search.failure(part(module, values), flat) if values else ""
    wrong = search.shortest_end(module, flat)
    if wrong is None and not failure:
        raise InvalidInput("the program does not fail: compiled and interpreted it gives the same")
    results = values if wrong is None else [wrong]
    small, arguments = search.shrunk(module, flat, results)
    for value in tensor_values(small)[:-1]:  # halving passes over it where what lies between does not depend on it
        if search.failure(part(small, [value]), arguments):
            small, arguments = search.shrunk(small, arguments, [value])
            break
    failure = search.failure(small, arguments)
    path = os.fspath(output)
    write_whole(path, _file(path, small, arguments, failure, tolerance).encode())
    return Minimized(small, tuple(arguments), failure, path)


class _Search:
    """Attempts of one search, each in a child process."""

    def __init__(self, tolerance: float | None, target: Any, options: Any) -> None:
        self._tolerance, self._target, self._options = tolerance, target, options

    def failure(self, module: TorchModule, args: Sequence[Any]) -> str:
        """How a module fails, ``""`` if it does not."""

        def attempt() -> None:
            try:
                found, expected = both_results(module, args, self._target, self._options)
            except TorchTvmError as error:
                raise RuntimeError(first_line(error)) from error
            except Exception as error:
                raise RuntimeError(bug_of(error)) from error
            for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
                error = error_of(ours, theirs)
                if error > limit_of(theirs, self._tolerance):
                    raise RuntimeError(f"result {index} has an error of {error:.3g}")

        return failure_of(attempt, _SECONDS) or ""

    def shortest_end(self, module: TorchModule, flat: Sequence[Any]) -> Value | None:
        """The earliest tensor at which a program that ends there fails, by halving; it fails itself."""
        values = tensor_values(module)
        low, high, best = 0, len(values) - 1, None
        while low <= high:
            middle = (low + high) // 2
            if self.failure(part(module, [values[middle]]), flat):
                best, high = values[middle], middle - 1
            else:
                low = middle + 1
        return best

    def shrunk(
        self, module: TorchModule, flat: Sequence[Any], results: Sequence[Value]
    ) -> tuple[TorchModule, list[Any]]:
        """The last 1, 2, 4, … ops before the results, the rest as arguments, then one op less while that fails."""
        before = [value for value in needed(module, results[-1]) if value not in results]
        known = dict(zip(before, part(module, before).run(list(flat)), strict=True)) if before else {}
        best: list[Value] = []
        for count in _doubling(len(before)):
            cut = before[: len(before) - count]
            if self.failure(*self._cut(module, flat, results, cut, known)):
                best = cut
                break
        for value in reversed([each for each in before if each not in best]):
            if self.failure(*self._cut(module, flat, results, [*best, value], known)):
                best = [*best, value]
        return self._cut(module, flat, results, best, known)

    def _cut(
        self,
        module: TorchModule,
        flat: Sequence[Any],
        results: Sequence[Value],
        cut: Sequence[Value],
        known: dict[Value, Any],
    ) -> tuple[TorchModule, list[Any]]:
        small = part(module, results, cut)
        arguments = [*flat, *(known[value] for value in sorted(cut))]
        kept = [arguments[index] for index in used_arguments(small)]
        return without_unused_arguments(small), kept


def _doubling(most: int) -> list[int]:
    """0, 1, 2, 4, … below ``most``."""
    counts = [0]
    while max(1, 2 * counts[-1]) < most:
        counts.append(max(1, 2 * counts[-1]))
    return counts


_FILE = '''"""{failure}

Run it: python {path}. It ends with 1 while the failure is there, with 0 when it is gone.
"""

import base64
import sys

import torch

import torch_tvm
from torch_tvm.debug.compare import both_results, error_of, limit_of

MODULE = r"""
{text}"""


def tensor(data: str, dtype: torch.dtype, shape: tuple) -> torch.Tensor:
    content = bytearray(base64.b64decode(data))
    return torch.frombuffer(content, dtype=dtype).reshape(shape) if content else torch.empty(shape, dtype=dtype)


ARGUMENTS = [
{arguments}]

found, expected = both_results(torch_tvm.parse(MODULE), ARGUMENTS, "auto", None)
for index, (ours, theirs) in enumerate(zip(found, expected)):
    error = error_of(ours, theirs)
    if error > limit_of(theirs, {tolerance}):
        print(f"result {{index}} has an error of {{error:.3g}}: {{ours}} where the interpreter has {{theirs}}")
        sys.exit(1)
print("compiled code and the interpreter agree")
'''


def _file(path: str, module: TorchModule, arguments: Sequence[Any], failure: str, tolerance: float | None) -> str:
    lines = "".join(f"    {_literal(value)},\n" for value in arguments)
    said = failure.replace("\\", "\\\\").replace('"""', "'''")
    name = os.path.basename(path)
    return _FILE.format(failure=said, path=name, text=str(module), arguments=lines, tolerance=tolerance)


def _literal(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return repr(value)
    dense = value.detach().resolve_conj().resolve_neg().contiguous()
    data = base64.b64encode(dense.reshape(-1).view(torch.uint8).numpy().tobytes() if dense.numel() else b"")
    return f'tensor("{data.decode()}", {dense.dtype}, {tuple(dense.shape)})'


__all__ = ["Minimized", "minimize"]
