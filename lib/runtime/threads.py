"""How many threads kernels get: torch's own (``openmp.py``), or TVM's pool where torch has no OpenMP.

TVM keeps one pool per calling thread and starts half as many workers as there are logical cores. Its workers
wait by yielding for ``TVM_THREAD_POOL_SPIN_COUNT`` rounds (300,000 by default, that is more than 100 ms of a
core after every kernel) before they sleep. Both are set here, before the first pool exists.
"""

from __future__ import annotations

import os
import threading
from functools import lru_cache

import torch
import tvm_ffi

from torch_tvm.runtime.openmp import current_openmp

SPIN_COUNT = 2000
"""Rounds that an idle worker yields before it sleeps: well below a millisecond, longer than the gap between
two kernels of one model."""

_SHARE_ALL_CORES = -3


class _Pool(threading.local):
    """What the pool of the current thread is set to: 0 when it does not exist yet."""

    threads = 0


_pool = _Pool()


@lru_cache(maxsize=1)
def usable_cores() -> tuple[int, ...]:
    """The logical cores that the process may run on."""
    return tuple(sorted(os.sched_getaffinity(0)))


@lru_cache(maxsize=1)
def _physical_cores() -> int:
    """How many of the usable cores are not hyper-threads of each other; torch starts one thread for each."""
    seen = set()
    for core in usable_cores():
        try:
            with open(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list") as file:
                seen.add(file.read().strip())
        except OSError:
            seen.add(str(core))
    return len(seen)


def wanted_threads(torch_threads: int) -> int:
    """Threads for a kernel when torch is set to ``torch_threads``.

    All usable cores, unless ``torch.set_num_threads`` or ``OMP_NUM_THREADS`` asked for another number than
    torch's own default (one thread per physical core).
    """
    cores = len(usable_cores())
    chosen = "OMP_NUM_THREADS" in os.environ or torch_threads not in (cores, _physical_cores())
    return min(torch_threads, cores) if chosen else cores


def configure_threads(torch_threads: int | None = None) -> int:
    """Bring kernels that the calling thread runs to the number of threads that torch uses, and return it."""
    torch_threads = torch.get_num_threads() if torch_threads is None else torch_threads
    wanted = wanted_threads(torch_threads)
    openmp = current_openmp()
    if openmp is not None:
        openmp.want(0 if wanted == torch_threads else wanted)
        return wanted
    if _pool.threads == wanted:
        return wanted
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", str(SPIN_COUNT))
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    configure = tvm_ffi.get_global_func("runtime.config_threadpool")
    names = [str(core) for core in usable_cores()]
    if _pool.threads == 0:  # a pool never grows: create it with a worker for every core
        configure(_SHARE_ALL_CORES, len(names), names)
    configure(_SHARE_ALL_CORES, wanted, names[:wanted])
    _pool.threads = wanted
    return wanted


__all__ = ["SPIN_COUNT", "configure_threads", "usable_cores", "wanted_threads"]
