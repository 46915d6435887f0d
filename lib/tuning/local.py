"""Measurements in a process of its own, which a kernel may end;
``python -m torch_tvm.tuning.local`` is that process.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from torch_tvm.profiling.interleaved import counted, time_interleaved
from torch_tvm.support.errors import InternalError
from torch_tvm.tuning.candidates import KERNEL
from torch_tvm.tuning.timing import Operand, Outcome, arguments, difference, surviving

SECONDS = 60.0
"""The longest that a kernel may take for its part of a measurement."""

_START = 300.0
"""The longest that the process may take to start: it imports PyTorch and TVM."""


class LocalTimer:
    """This machine, with the threads that PyTorch uses."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def measure(self, libraries: Mapping[str, bytes], operands: Sequence[Operand], rounds: int) -> dict[str, Outcome]:
        """What :class:`Timer` says; a kernel that ends the process, or does not end, has an error."""
        with tempfile.TemporaryDirectory(prefix="torch_tvm_tune_") as folder:
            paths = {}
            for index, (label, library) in enumerate(libraries.items()):
                paths[label] = str(Path(folder) / f"{index}.so")
                Path(paths[label]).write_bytes(library)

            def attempt(left: Mapping[str, bytes]) -> dict[str, Outcome] | tuple[str, str]:
                given = {label: paths[label] for label in left}
                return self._ask({"libraries": given, "operands": operands, "rounds": rounds})

            return surviving(libraries, attempt)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _ask(self, job: Any) -> dict[str, Outcome] | tuple[str, str]:
        """The answer; or the kernel that ended the process, and how."""
        process = self._started()
        assert process.stdin is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
        trying = next(iter(job["libraries"]))
        while True:
            limit = SECONDS * (len(job["libraries"]) + 1)
            message = self._message(process, limit)
            if message is None:
                code = process.poll()
                self.close()
                late = f"it did not end in {limit:.0f} s"
                return trying, late if code is None else f"it ended the process ({_ending(code)})"
            if "trying" in message:
                trying = message["trying"]
            elif "found" in message:
                return {label: Outcome(*values) for label, values in message["found"].items()}

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
            command = [sys.executable, "-m", "torch_tvm.tuning.local"]
            # Unbuffered: _message would wait for what is in a buffer already.
            self._process = subprocess.Popen(
                command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
            if self._message(self._process, _START) != {"ready": True}:
                self.close()
                raise InternalError("the process that times kernels does not start", stage="tuning")
        return self._process

    def _message(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any] | None:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], seconds)
        line = process.stdout.readline() if readable else b""
        if not line:
            process.wait() if readable else None
            return None
        message: dict[str, Any] = json.loads(line)
        return message


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit {code}"


def _serve() -> None:
    """Answer jobs until there are none; what else is printed goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks

    def say(message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    from torch_tvm.codegen.openmp import use_openmp

    use_openmp()
    say({"ready": True})
    for line in sys.stdin:
        say({"found": _measured(json.loads(line), say)})


def _measured(job: Any, say: Any) -> dict[str, tuple[float, str]]:
    import tvm

    calls, errors, expected = {}, {}, None
    for label, path in job["libraries"].items():
        say({"trying": label})
        given = arguments(job["operands"])
        kernel = tvm.runtime.load_module(path)[KERNEL]
        try:
            kernel(*given)
        except Exception as error:
            errors[label] = f"{type(error).__name__}: {error}"
            continue
        if expected is None:
            expected = given
        wrong = difference(given, expected)
        if wrong:
            errors[label] = wrong
            continue
        calls[label] = counted(lambda kernel=kernel, given=given: kernel(*given))
    for label in calls:
        say({"trying": label})
    seconds = time_interleaved(calls, job["rounds"])
    return {
        **{label: (time, "") for label, time in seconds.items()},
        **{label: (0.0, why) for label, why in errors.items()},
    }


if __name__ == "__main__":
    _serve()

__all__ = ["LocalTimer"]
