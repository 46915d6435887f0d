"""Measurements on other machines: the servers of a TVM RPC tracker, each of which runs one measurement at a time."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import tvm
from tvm import rpc

from torch_tvm.profiling.interleaved import time_interleaved
from torch_tvm.support.errors import InvalidInput
from torch_tvm.tuning.candidates import KERNEL
from torch_tvm.tuning.timing import Operand, Outcome, Timer, arguments, difference, surviving

SECONDS = 120
"""The longest that a measurement may take on a server, which ends it then."""


@contextmanager
def servers(tracker: str) -> Iterator[list[Timer]]:
    """A timer for each server that a tracker ``host:port/key`` has of the key.

    Raises :class:`InvalidInput` where there is no such tracker, or no such server.
    """
    found = re.fullmatch(r"(.+):(\d{1,5})/(.+)", tracker) if isinstance(tracker, str) else None
    if found is None or int(found[2]) > 65535:
        raise InvalidInput(
            f"expected host:port/key, got {tracker!r}",
            subject="tracker",
            advice="name a running `python -m tvm.exec.rpc_tracker`: '127.0.0.1:9190/arm'",
        )
    host, port, key = found[1], int(found[2]), found[3]
    try:
        connection = rpc.connect_tracker(host, port)
        known = [str(each["key"]) for each in connection.summary()["server_info"]]
    except (OSError, RuntimeError) as error:
        raise InvalidInput(f"there is no tracker at {host}:{port}: {error}", subject="tracker") from error
    count = known.count(f"server:{key}")
    if not count:
        raise InvalidInput(
            f"the tracker at {host}:{port} has no server of '{key}'",
            subject="tracker",
            advice=f"known: {', '.join(sorted({each.removeprefix('server:') for each in known})) or 'none'}",
        )
    # Threads that ask over one connection read each other's answers.
    yield [RemoteTimer(rpc.connect_tracker(host, port), key) for _ in range(count)]


class RemoteTimer:
    """A server of a tracker, asked for anew for each measurement, over a connection of its own."""

    def __init__(self, connection: rpc.TrackerSession, key: str) -> None:
        self._connection, self._key = connection, key

    def measure(self, libraries: Mapping[str, bytes], operands: Sequence[Operand], rounds: int) -> dict[str, Outcome]:
        """What :class:`Timer` says; a kernel that ends the session has an error."""

        def attempt(left: Mapping[str, bytes]) -> dict[str, Outcome] | tuple[str, str]:
            tried = [next(iter(left))]
            try:
                return self._measured(left, operands, rounds, tried.append)
            except Exception as error:  # whatever a connection that breaks raises
                return tried[-1], f"{type(error).__name__}: {str(error).strip()[:200]}"

        return surviving(libraries, attempt)

    def close(self) -> None: ...

    def _measured(
        self,
        libraries: Mapping[str, bytes],
        operands: Sequence[Operand],
        rounds: int,
        note: Callable[[str], None],
    ) -> dict[str, Outcome]:
        session = self._connection.request(self._key, session_timeout=SECONDS)
        device = session.cpu(0)
        calls: dict[str, Callable[[int], float]] = {}
        errors: dict[str, Outcome] = {}
        expected: list[torch.Tensor] | None = None
        for index, (label, library) in enumerate(libraries.items()):
            note(label)
            module = _loaded(session, f"{index}.so", library)
            given = [_sent(tensor, device) for tensor in arguments(operands)]
            module[KERNEL](*given)
            results = [_fetched(tensor) for tensor in given]
            expected = results if expected is None else expected
            wrong = difference(results, expected)
            if wrong:
                errors[label] = Outcome(error=wrong)
            else:
                calls[label] = _timed(module, device, given)
        times = time_interleaved(calls, rounds)
        return {**errors, **{label: Outcome(seconds) for label, seconds in times.items()}}


def _loaded(session: Any, name: str, library: bytes) -> Any:
    with tempfile.TemporaryDirectory(prefix="torch_tvm_tune_") as folder:
        path = Path(folder) / name
        path.write_bytes(library)
        session.upload(str(path), target=name)
    return session.load_module(name)


def _sent(tensor: torch.Tensor, device: Any) -> Any:
    local = tvm.runtime.from_dlpack(tensor.contiguous())
    return local.copyto(tvm.runtime.empty(tuple(tensor.shape), str(local.dtype), device))


def _fetched(tensor: Any) -> torch.Tensor:
    local = tvm.runtime.empty(tuple(map(int, tensor.shape)), str(tensor.dtype), tvm.cpu(0))
    tensor.copyto(local)
    return torch.from_dlpack(local).clone()


def _timed(module: Any, device: Any, given: Sequence[Any]) -> Callable[[int], float]:
    def run(count: int) -> float:
        return float(module.time_evaluator(KERNEL, device, number=count, repeat=1)(*given).mean) * count

    return run


__all__ = ["RemoteTimer", "servers"]
