"""``torch_tvm.tune``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch_tvm.driver.compiler import compile_anew
from torch_tvm.options import Options
from torch_tvm.reporting.report import Report
from torch_tvm.support.errors import InvalidInput
from torch_tvm.targets import resolve_target
from torch_tvm.tuning.database import Database
from torch_tvm.tuning.session import Timer, Tuning, tune_module


def tune(
    program: Any,
    example_args: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
    *,
    database: str | os.PathLike[str],
    trials: int | None = None,
    seconds: float | None = None,
    frontend: str = "auto",
    target: Any = "auto",
    dynamic_shapes: Any = None,
    options: Mapping[str, Any] | None = None,
    tracker: str | None = None,
    show: Callable[[Tuning], None] | None = None,
) -> Tuning:
    """Look for faster schedules of a program's kernels by measurement, and keep them in the folder ``database``.

    ``compile(program, args, options={"database": folder})`` uses them. The candidates of a kernel are its rule's own
    schedule, the neighbours of that, and what MetaSchedule proposes. One is taken where it is faster than the rule's
    own, both timed in turns, and computes the same. ``trials`` is how many are tried in all, earlier runs counted, so
    that a run that was stopped (Ctrl-C) goes on where it was; ``seconds`` is how long to go on. With neither, 64 a
    kernel.

    ``tracker`` is ``"host:port/key"`` of a TVM RPC tracker: its servers of that key measure, side by side, for
    ``target``. Only connect to machines that you trust: they run what they are sent, and answer what they like.
    ``show`` is called after each batch; by default a table is drawn where stderr is a terminal. Other arguments are
    those of :func:`torch_tvm.compile`. Raises what that raises, and :class:`InvalidInput` for a bad folder.

    >>> import tempfile, torch, torch_tvm
    >>> model, x = torch.nn.Linear(8, 8).eval(), torch.ones(4, 8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tuning = torch_tvm.tune(model, (x,), database=folder, trials=2)
    ...     compiled = torch_tvm.compile(model, (x,), options={"database": folder})
    >>> tuning.trials
    2
    """
    parsed, resolved = _parsed(options or {}), resolve_target(target)
    found = Database(database, is_new=True)
    found.records()  # refuses a damaged one before anything takes time
    compiled = compile_anew(program, example_args, frontend, resolved, dynamic_shapes, True, parsed)
    if show is None and sys.stderr.isatty():
        show = LiveTable().draw
    lines = _lines(compiled.report)
    how: dict[str, Any] = {"trials": trials, "seconds": seconds, "lines": lines, "show": show}
    with _timers(tracker) as timers:
        return tune_module(compiled.relax_module, resolved, found, timers=timers, **how)


def _timers(tracker: str | None) -> AbstractContextManager[Sequence[Timer]]:
    """What measures: this machine (no timers), or the servers of a tracker."""
    if tracker is None:
        return nullcontext(())
    from torch_tvm.tuning.remote import servers

    return servers(tracker)


def _parsed(options: Mapping[str, Any]) -> Options:
    for name in ("database", "trials", "measure"):
        if name in options:
            raise InvalidInput(f"tune has '{name}' by itself", subject="options", advice="leave it out")
    return Options.parse({**options, "cache": False})


def _lines(report: Report | None) -> dict[str, str]:
    """The first of the user's lines that each kernel computes."""
    places = {} if report is None else {kernel.name: report.places(kernel) for kernel in report.kernels}
    return {name: lines[0].partition(" ")[0] for name, lines in places.items() if lines}


class LiveTable:
    """The table of a tuning on a terminal's stderr, drawn over the former one."""

    def __init__(self) -> None:
        self._lines = 0

    def draw(self, tuning: Tuning) -> None:
        """Draw it."""
        columns = max(20, os.get_terminal_size(2).columns if sys.stderr.isatty() else 120)
        lines = [line[: columns - 1] for line in str(tuning).splitlines()]
        back = f"\033[{self._lines}A\033[J" if self._lines else ""
        print(back + "\n".join(lines), file=sys.stderr, flush=True)
        self._lines = len(lines)


__all__ = ["LiveTable", "tune"]
