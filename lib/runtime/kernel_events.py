"""Kernels in the traces of ``torch.profiler``, under their names and with the user's lines.

Code that a profiler watches calls its kernels one by one, and the VM tells an instrument of each call. On a device
beside the CPU, the trace has one event for the whole call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._C._profiler import _RecordFunctionFast as Event
from torch.autograd import profiler

from torch_tvm.runtime.library import Machine, VirtualMachine

PROFILED = "profiler._is_profiler_enabled"
"""Source of the test whether a profiler is on, perhaps in another thread; ``profiler`` is PyTorch's module."""

CALL = "torch_tvm::call"
_PLUMBING = ("vm.", "torch_tvm.", "runtime.")


def is_profiled() -> bool:
    """Whether a profiler records what this thread does."""
    enabled: bool = torch._C._autograd._profiler_enabled()
    return enabled


class KernelEvents:
    """An instrument of a virtual machine: an event for each call of a kernel.

    ``labels`` are names of events by function; one without a name is the sum of others, and has none.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = {"main": "", **labels}
        self._open: list[Any] = []

    def __call__(self, function: Any, name: str, is_before: bool, result: Any, *args: Any) -> int:
        label = self._labels.get(name, f"torch_tvm::{name}")
        if not label or name.startswith(_PLUMBING):
            return 0
        if is_before:
            event = Event(label)
            event.__enter__()
            self._open.append(event)
        elif self._open:
            self._open.pop().__exit__(None, None, None)
        return 0

    def close(self) -> None:
        """End the events of kernels that did not return, as one that raised."""
        while self._open:
            self._open.pop().__exit__(None, None, None)


class ProfiledCalls:
    """The calls of one compiled module while a profiler is on.

    ``make`` gives a thread its virtual machine, or ``None`` where none calls kernels one by one, and their labels.
    """

    def __init__(self, make: Callable[[], tuple[Machine | None, Mapping[str, str]]]) -> None:
        self._make = make
        self._local = threading.local()

    def run(self, call: Callable[[Machine | None], Any]) -> Any:
        """``call`` with that virtual machine, or with ``None``, in an event of its own."""
        machine, events = self._of_thread()
        with Event(CALL):
            try:
                return call(machine)
            finally:
                events.close()

    def _of_thread(self) -> tuple[Machine | None, KernelEvents]:
        found: tuple[Machine | None, KernelEvents] | None = getattr(self._local, "found", None)
        if found is None:
            machine, labels = self._make()
            events = KernelEvents(labels)
            if isinstance(machine, VirtualMachine):
                machine.set_instrument(events)
            found = self._local.found = machine, events
        return found


__all__ = ["PROFILED", "ProfiledCalls", "is_profiled", "profiler"]
