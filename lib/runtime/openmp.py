"""Kernels on torch's own threads.

TVM has a pool of its own. Where both pools have a thread for each core, the one that has just worked still spins, and
a kernel of the other waits until the scheduler takes the core away: 4 ms on two cores, for every change between
PyTorch and compiled code. So parallel loops go to the OpenMP runtime that PyTorch has loaded, instead. A few functions
of machine code do that (``lib/codegen/openmp.py`` makes them).

Libraries find the function to launch with by name when they are loaded, so :func:`use_openmp` comes before the first.
That goes for every TVM library of the process.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tvm_ffi

_SYMBOLS = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")


@dataclass(frozen=True)
class OpenMP:
    """``want(threads)`` sets how many threads parallel loops get (0: as many as torch), ``count()`` runs one to see."""

    want: Callable[[int], object]
    count: Callable[[], int]


class _Process:
    """Which OpenMP this process uses; decided once, under ``lock``."""

    lock = threading.Lock()
    is_decided = False
    openmp: OpenMP | None = None


def use_openmp(library: Callable[[], tvm_ffi.Module]) -> OpenMP | None:
    """From now on, libraries that are loaded run parallel loops on torch's threads; None where torch has no OpenMP.

    ``library`` gives the functions; it is asked once a process.
    """
    with _Process.lock:
        if not _Process.is_decided:
            _Process.openmp, _Process.is_decided = _registered(library), True
    return _Process.openmp


def current_openmp() -> OpenMP | None:
    """What :func:`use_openmp` gave, ``None`` before it was called."""
    return _Process.openmp


def _registered(make: Callable[[], tvm_ffi.Module]) -> OpenMP | None:
    addresses = _addresses()
    if addresses is None:
        return None
    library = make()
    library["torch_tvm_bind"](*addresses)
    register = ctypes.CDLL(tvm_ffi.libinfo.find_libtvm_ffi()).TVMFFIEnvModRegisterContextSymbol
    register.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    if register(b"__TVMBackendParallelLaunch", library["torch_tvm_address"]()):
        return None
    want = library["torch_tvm_want"]
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: _in_child(want))
    return OpenMP(lambda threads: want(1 if _is_forked() else threads), library["torch_tvm_count"])


_parent = os.getpid()


def _is_forked() -> bool:
    return os.getpid() != _parent


def _in_child(want: Callable[[int], object]) -> None:
    """A forked process has no OpenMP threads but its own: GNU's runtime would wait for the others for ever."""
    want(1)


def _addresses() -> list[int] | None:
    """Of the OpenMP functions that torch itself uses: other packages bring runtimes of their own."""
    if "ATen parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        functions = [getattr(library, name) for name in _SYMBOLS]
    except (OSError, AttributeError):
        return None
    return [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions]


__all__ = ["OpenMP", "current_openmp", "use_openmp"]
