"""One runtime in a process of its own, which answers requests over a pipe."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from torch_tvm.tools.bench.options import Options
from torch_tvm.tools.bench.runtimes import environment, flat_results, prepare
from torch_tvm.tools.zoo import build


@dataclass(frozen=True)
class Request:
    """A model of the zoo in a runtime; ``reference`` is the file of its float64 results."""

    runtime: str
    model: str
    batch: int
    options: Options
    reference: str


@dataclass(frozen=True)
class Ready:
    """A runtime that has compiled its model.

    ``compile_seconds``: from the module in memory to the first result. ``first_seconds``: a second call.
    ``rmse``: over all floating results, against float64.
    """

    compile_seconds: float
    first_seconds: float
    rmse: float


class RuntimeFailed(Exception):
    """A runtime could not take the model, or its process ended; the message is one line."""


class Worker:
    """The process of a runtime. ``start`` prepares the model, ``time`` runs it; both raise :class:`RuntimeFailed`."""

    def __init__(self, request: Request, folder: str, timeout: float) -> None:
        self._log = Path(tempfile.mkstemp(dir=folder, suffix=".log")[1])
        self._timeout = timeout
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, request, str(self._log)))
        with _variables(environment(request.options.threads, folder)):
            self._process.start()
        theirs.close()

    def start(self) -> Ready:
        """Wait until the model is compiled and has run."""
        return self._receive()

    def time(self, runs: int) -> list[float]:
        """Seconds of each of ``runs`` calls, after some that are not counted."""
        try:
            self._pipe.send(runs)
        except OSError:
            raise RuntimeFailed(self._why_ended()) from None
        return self._receive()

    def stop(self) -> None:
        """End the process, kindly at first."""
        try:
            self._pipe.send(None)
            self._process.join(5)
        except (OSError, ValueError):
            pass
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()

    def _receive(self) -> Any:
        ready = wait([self._pipe, self._process.sentinel], self._timeout)
        if not ready:
            self._process.kill()
            raise RuntimeFailed(f"no answer in {self._timeout:.0f} s")
        try:
            if not self._pipe.poll():
                raise EOFError
            answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise RuntimeFailed(self._why_ended()) from None
        if isinstance(answer, str):
            self.stop()
            raise RuntimeFailed(answer)
        return answer

    def _why_ended(self) -> str:
        self._process.join()
        code = self._process.exitcode or 0
        name = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"its process ended ({name})" + (f": {lines[-1]}" if lines else "")


@contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection, request: Request, log: str) -> None:
    """The other side: an answer is a :class:`Ready`, a list of seconds, or a string that says what went wrong."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    try:
        torch.set_num_threads(request.options.threads)
        with torch.set_grad_enabled(request.options.training):
            call, ready = _prepare(request)
            pipe.send(ready)
            while runs := pipe.recv():
                pipe.send(_time(call, runs))
    except EOFError:
        return
    except Exception as error:
        pipe.send(_one_line(error))


def _prepare(request: Request) -> tuple[Any, Ready]:
    if request.runtime == "ours":
        import torch_tvm.driver.compiler  # noqa: F401
    module, args = build(request.model, request.batch)
    started = time.perf_counter()
    call = prepare(request.runtime, module, args, request.options)
    results = flat_results(call())
    compiled = time.perf_counter() - started
    rmse = error_of(results, torch.load(request.reference))
    started = time.perf_counter()
    call()
    return call, Ready(compiled, time.perf_counter() - started, rmse)


def _time(call: Any, runs: int) -> list[float]:
    for _ in range(min(3, runs // 3)):
        call()
    clock, seconds = time.perf_counter, []
    for _ in range(runs):
        started = clock()
        call()
        seconds.append(clock() - started)
    return seconds


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def error_of(results: list[torch.Tensor], reference: list[torch.Tensor]) -> float:
    """Root mean square error over all elements of all results; ``ValueError`` where shapes differ."""
    if len(results) != len(reference):
        raise ValueError(f"{len(results)} results, eager gives {len(reference)}")
    squares, count = 0.0, 0
    for index, (mine, exact) in enumerate(zip(results, reference, strict=True)):
        if mine.shape != exact.shape:
            raise ValueError(f"result {index} has shape {tuple(mine.shape)}, eager's has {tuple(exact.shape)}")
        squares += float((mine.double() - exact).square().sum())
        count += exact.numel()
    return (squares / max(1, count)) ** 0.5


__all__ = ["Ready", "Request", "RuntimeFailed", "Worker", "error_of"]
