"""The OpenCL devices of this machine, and why there are none.

``import pyopencl`` comes with the first use: a machine without it compiles for OpenCL all the same.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from torch_tvm.support.errors import InvalidInput

ADVICE = (
    "pip install 'torch-tvm[opencl]'; the driver is that of your device, or PoCL for the CPU"
    " (pip install pocl-binary-distribution, or apt install pocl-opencl-icd)"
)

_lock = threading.Lock()


def opencl() -> ModuleType:
    """``pyopencl``. Raises :class:`InvalidInput` where it is not installed."""
    if importlib.util.find_spec("pyopencl") is None:
        raise InvalidInput("pyopencl is not installed", subject="target", advice=ADVICE)
    import pyopencl

    return pyopencl


@dataclass(frozen=True, eq=False)
class Device:
    """One device with the context that all programs on it share.

    ``is_host`` says that it computes in the memory of the host, so that tensors go in and out without a copy.
    """

    name: str
    handle: Any
    context: Any
    is_host: bool
    extensions: frozenset[str] = field(repr=False)

    def lacks(self, dtype: str) -> bool:
        """Whether the device cannot compute in a dtype."""
        needed = {"float64": "cl_khr_fp64", "float16": "cl_khr_fp16"}.get(dtype)
        return needed is not None and needed not in self.extensions


def device_named(wanted: str = "") -> Device:
    """The device with a name that contains ``wanted``, or with that index; the first one if nothing is wanted.

    A GPU comes before other devices. Raises :class:`InvalidInput` where there is none.
    """
    with _lock:
        found = _devices()
    if not found:
        raise InvalidInput("there is no OpenCL device", subject="target", advice=ADVICE)
    if not wanted:
        return found[0]
    if wanted.isdigit() and int(wanted) < len(found):
        return found[int(wanted)]
    for device in found:
        if wanted.lower() in device.name.lower():
            return device
    names = ", ".join(f"{index}: {device.name}" for index, device in enumerate(found))
    raise InvalidInput(f"there is no OpenCL device '{wanted}'", subject="target['device']", advice=f"known: {names}")


def why_no_device(wanted: str = "") -> str:
    """Why code cannot run here, ``""`` when it can."""
    try:
        device_named(wanted)
    except InvalidInput as error:
        return f"{error.problem} ({error.advice})"
    return ""


@functools.cache
def _devices() -> tuple[Device, ...]:
    cl = opencl()
    try:
        platforms = cl.get_platforms()
    except cl.Error:  # the loader finds no driver
        return ()
    handles = [handle for platform in platforms for handle in _of_platform(cl, platform)]
    handles.sort(key=lambda handle: not handle.type & cl.device_type.GPU)
    return tuple(
        Device(
            str(handle.name).strip(),
            handle,
            cl.Context([handle]),
            bool(handle.type & cl.device_type.CPU),
            frozenset(str(handle.extensions).split()),
        )
        for handle in handles
    )


def _of_platform(cl: ModuleType, platform: Any) -> list[Any]:
    try:
        return list(platform.get_devices())
    except cl.Error:  # a driver without a device
        return []


__all__ = ["ADVICE", "Device", "device_named", "opencl", "why_no_device"]
