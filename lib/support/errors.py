"""The errors that a user of torch_tvm can meet, and the one form that all their messages have.

A message has up to three parts: where and what (the user's own file and line, the op, what was expected
and what came), in which part of the model and at which stage, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class SourceLocation:
    """A place in the user's own program.

    ``file`` and ``line`` name the statement, ``scope`` the module path that it belongs to
    (``Encoder.layers.0``) and ``importer`` the frontend by which it came in. Any of them may be empty.
    """

    file: str = ""
    line: int = 0
    scope: str = ""
    importer: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else "<unknown location>"


def format_message(
    problem: str,
    *,
    subject: str = "",
    location: SourceLocation | None = None,
    stage: str = "",
    advice: str = "",
) -> str:
    """Put a message into the one form: ``file:line: subject: problem``, then ``in scope (stage)``, then advice."""
    head = [str(location)] if location is not None and location.file else []
    if subject:
        head.append(subject)
    lines = [": ".join([*head, problem])]
    scope = location.scope if location is not None else ""
    origin = stage or (f"importer: {location.importer}" if location is not None and location.importer else "")
    if scope or origin:
        where = f"in {scope}" if scope else "in"
        lines.append(f"  {where} ({origin})" if origin and scope else f"  in {scope or origin}")
    if advice:
        lines.append(f"  {advice}")
    return "\n".join(lines)


class TorchTvmError(Exception):
    """Base of every error that torch_tvm raises on purpose."""

    def __init__(
        self,
        problem: str,
        *,
        subject: str = "",
        location: SourceLocation | None = None,
        stage: str = "",
        advice: str = "",
    ) -> None:
        super().__init__(format_message(problem, subject=subject, location=location, stage=stage, advice=advice))
        self.problem = problem
        self.subject = subject
        self.location = location
        self.stage = stage
        self.advice = advice


class UnsupportedOp(TorchTvmError):
    """Ops that cannot be compiled (all of a program's are listed in one error)."""


class ImportFailed(TorchTvmError):
    """A PyTorch program or a text that cannot become a Torch dialect module."""


class InvalidInput(TorchTvmError, ValueError):
    """An argument of ours that does not fit: wrong type, dtype, shape, device, count or option."""


class InvalidIndex(InvalidInput, IndexError):
    """A position that a tensor or a number gives and that the dimension does not have."""


class InvalidOperand(InvalidInput, RuntimeError):
    """Values of an argument that PyTorch refuses with a ``RuntimeError``."""


class InternalError(TorchTvmError):
    """A bug of ours: names the stage, the dump and the command that reproduces it."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception says; the name of its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).strip()


def bug_of(error: BaseException) -> str:
    """An exception that nobody planned, in one line: ``a bug of torch_tvm: KeyError: 'x'``."""
    start = "a bug of torch_tvm: "
    if isinstance(error, InternalError):
        return start + error.problem.removeprefix(start)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return start + ": ".join([type(error).__name__, *lines[:1]])


@contextmanager
def damaged(source: str, stage: str = "") -> Iterator[None]:
    """Whatever reading a file raises that is none of our errors means that the file is no such file."""
    try:
        yield
    except TorchTvmError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        problem = lines[0] if lines else type(error).__name__
        raise ImportFailed(f"{source}: the file is damaged: {problem}", stage=stage) from error


class Refusal(Exception):
    """Raised by a lowering or a schedule rule that does not take an op; it carries the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
