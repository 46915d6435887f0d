"""Work in a process of its own, for what may crash or hang there."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

Note = Callable[[str], None]


def isolated(work: Callable[[Note], dict[str, Any]], seconds: int) -> tuple[dict[str, Any] | None, str]:
    """What ``work`` gives in a forked child; ``None``, and how that ended, if it did not end well.

    ``work`` is given a function to note what it does next.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _in_child(work, writing)
    os.close(writing)
    is_late: list[bool] = []

    def kill(*_: object) -> None:
        is_late.append(True)
        os.kill(child, signal.SIGKILL)

    previous = signal.signal(signal.SIGALRM, kill)
    signal.alarm(seconds)
    with os.fdopen(reading) as pipe:
        lines = [json.loads(line) for line in pipe if line.startswith("{") and line.endswith("}\n")]
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
    _, status = os.waitpid(child, 0)
    last = lines[-1] if lines else {}
    if "result" in last:
        return last["result"], ""
    how = "hang" if is_late else "dead"
    return None, f"{how}: exit {os.waitstatus_to_exitcode(status)} at {last.get('at', '')[:300]}"


def _in_child(work: Callable[[Note], dict[str, Any]], writing: int) -> None:
    """Write what the work notes and gives, a JSON line each, and end the process."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    with os.fdopen(writing, "w") as sys.stdout:
        try:
            result = work(lambda text: print(json.dumps({"at": text}), flush=True))
            print(json.dumps({"result": result}), flush=True)
        finally:
            os._exit(0)


__all__ = ["isolated"]
