"""TVM's runtime without TVM's compiler: its shared library and compiled modules, through ``tvm_ffi`` alone.

``import tvm`` takes a second and loads LLVM. What runs compiled code needs neither; whoever compiles imports ``tvm``,
before or after.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import tvm_ffi
from tvm_ffi.libinfo import load_lib_ctypes

from torch_tvm.support.errors import InvalidInput

_DEVICE_TYPES = {"cpu": 1, "cuda": 2}
"""As DLPack numbers them."""

_POOLED = 2
"""TVM's allocator that keeps memory for the next tensor of that size."""

BY_KERNEL = "_by_kernel"
"""How the name of a function ends that does what the function without that ending does, kernel by kernel."""

_lock = threading.Lock()


def load_runtime() -> None:
    """Load TVM's runtime into the process; once.

    Raises :class:`InvalidInput` where TVM is not installed, or not whole.
    """
    with _lock:
        _load_runtime()


@functools.cache
def _load_runtime() -> None:
    spec = importlib.util.find_spec("tvm")
    if spec is None or spec.origin is None:
        raise InvalidInput("TVM is not installed", stage="runtime", advice="pip install apache-tvm")
    folders = [Path(spec.origin).parent / "lib"]
    try:
        load_lib_ctypes("tvm", "tvm_runtime", "RTLD_GLOBAL", extra_lib_paths=folders)
    except (OSError, RuntimeError) as error:
        raise InvalidInput(
            f"TVM's runtime library cannot be loaded: {error}",
            stage="runtime",
            advice="pip install --force-reinstall apache-tvm",
        ) from error
    try:
        load_lib_ctypes("tvm", "tvm_runtime_extra", "RTLD_LOCAL", extra_lib_paths=folders)
    except (OSError, RuntimeError):
        pass  # this build has none: sorting is in the library itself


class Machine(Protocol):
    """Runs the functions of a compiled module for one thread."""

    def __getitem__(self, name: str) -> Callable[..., Any]: ...


@runtime_checkable
class DeviceProgram(Protocol):
    """Code that a machine of its own runs, with tensors that stay on a device beside PyTorch's."""

    def machine(self) -> Machine: ...

    def resident(self, tensors: Sequence[torch.Tensor]) -> Any:
        """Tensors on the device, as functions take them."""

    def fetched(self, arrays: Any) -> list[torch.Tensor]:
        """Copies of tensors on the device."""


class VirtualMachine:
    """Runs the functions of a compiled module; one belongs to one thread. ``vm["main"]`` is one of them.

    With ``by_kernel``, functions that have such a form call every kernel themselves, so that an instrument sees them.
    """

    def __init__(self, library: tvm_ffi.Module, device: str, *, by_kernel: bool = False) -> None:
        self._by_kernel = by_kernel
        self._module = library["vm_load_executable"]()
        devices = [device] if device == "cpu" else [device, "cpu"]
        options = [option for name in devices for option in (_DEVICE_TYPES[name], 0, _POOLED)]
        self._module["vm_initialization"](*options)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        if self._by_kernel:
            try:
                return self._module[name + BY_KERNEL]
            except AttributeError:  # it calls them as it is
                pass
        return self._module[name]

    def set_instrument(self, instrument: Callable[..., int]) -> None:
        """Have ``instrument(function, name, is_before, result, *args)`` called before and after each call."""
        called = lambda function, name, *rest: instrument(function, name.removesuffix(BY_KERNEL), *rest)
        self._module["set_instrument"](called)


__all__ = ["BY_KERNEL", "DeviceProgram", "Machine", "VirtualMachine", "load_runtime"]
