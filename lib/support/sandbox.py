"""Trying foreign code on untrusted data in a child process first, so that a crash there is no crash here."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

_LONGEST_ERROR = 4096
"""Bytes of an exception's text that a child reports: less than a pipe holds."""


_TOO_LARGE = 77
"""The exit code of a child that ran into its limit of memory."""


def crash_of(work: Callable[[], Any], seconds: float = 60.0, memory: int | None = None) -> str | None:
    """Run ``work`` in a forked child and say how the child died, or ``None`` when it ended by itself.

    An exception in ``work`` is no crash. A child that is not done after ``seconds``, or that wants more than
    ``memory`` bytes besides those of this process, is ended and counts as one. Where processes cannot be forked
    nothing is tried and the answer is ``None``.
    """
    return _tried(work, seconds, memory)[0]


def failure_of(work: Callable[[], Any], seconds: float = 60.0) -> str | None:
    """As :func:`crash_of`, with an exception in ``work`` for a failure too: its text.

    For code whose way out of an error is no safer than the rest of it.
    """
    crash, error = _tried(work, seconds)
    return crash or error


def _tried(work: Callable[[], Any], seconds: float, memory: int | None = None) -> tuple[str | None, str | None]:
    if not hasattr(os, "fork"):
        return None, None
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads: the child touches none of theirs
        child = os.fork()
    if child == 0:
        _run_and_exit(work, writing, memory)
    os.close(writing)
    with open(reading, "rb") as pipe:
        crash = _verdict(child, time.monotonic() + seconds)
        return crash, pipe.read().decode(errors="replace") or None


def _run_and_exit(work: Callable[[], Any], writing: int, memory: int | None) -> None:
    code = 0
    try:
        if memory is not None:
            _limit_memory(memory)
        faulthandler.disable()
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        if "torch" in sys.modules:
            # OpenMP's threads stayed in the parent, and a parallel loop would wait for them
            sys.modules["torch"].set_num_threads(1)
        work()
    except Exception as error:
        text = str(error) or type(error).__name__
        if isinstance(error, MemoryError) or "bad_alloc" in text or "allocate memory" in text:
            code = _TOO_LARGE
        os.write(writing, text.encode()[:_LONGEST_ERROR])
    finally:
        os._exit(code)


def _limit_memory(extra: int) -> None:
    """End allocations once this process has ``extra`` bytes of addresses more than now; on Linux."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + extra, resource.RLIM_INFINITY))
    except (ImportError, OSError, ValueError):
        return


def _verdict(child: int, deadline: float) -> str | None:
    pause = 0.0005
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            if code == _TOO_LARGE:
                return "it takes too much memory"
            if code > 0:  # the code ends the process by itself, as LLVM does for what it does not take
                return f"exit {code}"
            return signal.Signals(-code).name if code < 0 else None
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "it does not end"
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
