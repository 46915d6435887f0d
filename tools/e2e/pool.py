"""Processes that run cases: one that crashes or hangs costs its own case and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from torch_tvm.tools.e2e.case import Case
from torch_tvm.tools.e2e.running import Result, run

_MOST_RUNS = 100
"""Runs of one process, whose memory grows with what it compiles."""


@dataclass(frozen=True)
class Run:
    """A case by one frontend in one configuration."""

    case: Case
    frontend: str
    config: str


@dataclass(frozen=True)
class Settings:
    """``seconds`` for a run at most, ``threads`` of each process, and what :func:`run` takes."""

    seconds: float = 180.0
    threads: int = 1
    fallback: bool = True
    shows_ir: bool = False


def run_all(runs: Sequence[Run], jobs: int, settings: Settings) -> Iterator[tuple[Run, Result]]:
    """The results, as they come. Processes end with the iterator."""
    waiting = list(reversed(range(len(runs))))
    workers: list[_Worker] = []
    try:
        while waiting or any(worker.index is not None for worker in workers):
            for worker in [w for w in workers if w.index is None and (w.runs >= _MOST_RUNS or not waiting)]:
                worker.end()
                workers.remove(worker)
            while waiting and len(workers) < jobs:
                workers.append(_Worker(runs, settings))
            for worker in workers:
                if worker.index is None and waiting:
                    worker.give(waiting.pop())
            busy = [worker for worker in workers if worker.index is not None]
            soonest = min(worker.deadline for worker in busy) - time.monotonic()
            wait([w.pipe for w in busy] + [w.process.sentinel for w in busy], max(0.0, soonest))
            for worker in busy:
                result = worker.result()
                if result is not None:
                    assert worker.index is not None
                    yield runs[worker.index], result
                    worker.index = None
                    if not worker.process.is_alive():
                        worker.end()
                        workers.remove(worker)
    finally:
        for worker in workers:
            worker.end()


@dataclass
class _Worker:
    """A forked process; ``index`` is the run that it is at, until ``deadline``."""

    all_runs: Sequence[Run]
    settings: Settings
    index: int | None = None
    deadline: float = 0.0
    runs: int = 0
    pipe: Connection = field(init=False)
    process: Any = field(init=False)
    log: Any = field(init=False)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.log = tempfile.TemporaryFile()
        self.process = context.Process(
            target=_serve, args=(theirs, self.log.fileno(), self.all_runs, self.settings), daemon=True
        )
        self.process.start()
        theirs.close()

    def give(self, index: int) -> None:
        self.index, self.runs = index, self.runs + 1
        self.deadline = time.monotonic() + self.settings.seconds
        self.pipe.send(index)

    def result(self) -> Result | None:
        """What came of the run, or ``None`` while it goes on."""
        try:
            if self.pipe.poll():
                found: Result = self.pipe.recv()
                return found
        except (EOFError, ConnectionError):
            self.process.join()
        if not self.process.is_alive():
            return Result("crash", self._why_ended())
        if time.monotonic() >= self.deadline:
            self.process.kill()
            self.process.join()
            return Result("hang", f"not done after {self.settings.seconds:.0f} s", self.settings.seconds)
        return None

    def _why_ended(self) -> str:
        code = self.process.exitcode or 0
        name = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return f"the process ended with {name}" + (f": {lines[-1][:300]}" if lines else "")

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.log.close()


def _serve(pipe: Connection, log: int, runs: Sequence[Run], settings: Settings) -> None:
    """The other side: an index comes in, its result goes out. What is printed goes to the log."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
    torch.set_num_threads(settings.threads)
    while True:
        try:
            each = runs[pipe.recv()]
        except EOFError:
            return
        os.ftruncate(log, 0)
        pipe.send(
            run(
                each.case,
                each.frontend,
                each.config,
                fallback=settings.fallback,
                shows_ir=settings.shows_ir,
            )
        )


__all__ = ["Run", "Settings", "run_all"]
