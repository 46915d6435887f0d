"""Tensors on a device: memory that is used again as soon as nobody reads it, and the way from and to PyTorch.

Launches of one queue run in their order. So memory may be used again as soon as the host drops the last value in it,
although the device is still reading: what comes next waits. That is the plan of a program's buffers, for all sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from torch_tvm.aten.dtypes import dtype_name
from torch_tvm.runtime.opencl.devices import Device, opencl

ALIGNMENT = 128
"""Bytes: where memory of the host begins that a device works in."""

_DTYPES = {
    dtype_name(dtype): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool, torch.uint8),
        *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64),
    )
}


class Storage:
    """A piece of memory of a device; ``host`` is the same memory as the host sees it, on a device that shares it.

    When nobody holds it any more, it goes back to the pool that it came from.
    """

    __slots__ = ("buffer", "host", "pool")

    def __init__(self, buffer: Any, host: Any, pool: list[tuple[Any, Any]] | None) -> None:
        self.buffer, self.host, self.pool = buffer, host, pool

    def __del__(self) -> None:
        if self.pool is not None:
            self.pool.append((self.buffer, self.host))


class Array:
    """A dense tensor on a device."""

    __slots__ = ("dtype", "shape", "storage")

    def __init__(self, storage: Storage, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.storage, self.shape, self.dtype = storage, shape, dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def viewed(self, shape: Sequence[int]) -> Array:
        """The same memory in another shape."""
        return Array(self.storage, tuple(shape), self.dtype)


class Memory:
    """The memory of one queue."""

    def __init__(self, device: Device, queue: Any) -> None:
        self.device, self.queue = device, queue
        self._cl = opencl()
        self._free: dict[int, list[tuple[Any, Any]]] = {}
        self._borrowed: list[tuple[Any, Any]] = []  # memory of callers that a launch may still read

    def allocate(self, shape: tuple[int, ...], dtype: str | torch.dtype) -> Array:
        """A tensor of unknown content."""
        kind = _DTYPES[dtype] if isinstance(dtype, str) else dtype
        size = _rounded(math.prod(shape) * kind.itemsize)
        pool = self._free.setdefault(size, [])
        buffer, host = pool.pop() if pool else self._new(size)
        return Array(Storage(buffer, host, pool), shape, kind)

    def _new(self, size: int) -> tuple[Any, Any]:
        flags = self._cl.mem_flags
        if not self.device.is_host:
            return self._cl.Buffer(self.device.context, flags.READ_WRITE, size), None
        memory = _aligned(size)
        buffer = self._cl.Buffer(self.device.context, flags.READ_WRITE | flags.USE_HOST_PTR, hostbuf=memory)
        return buffer, memory

    def borrowed(self, tensor: torch.Tensor) -> Array:
        """A tensor of the caller, in its own memory where the device can read it there; kernels only read it."""
        shape, values = tuple(tensor.shape), _as_numpy(tensor)
        if self.device.is_host and values.nbytes and not tensor.data_ptr() % ALIGNMENT:
            flags = self._cl.mem_flags
            buffer = self._cl.Buffer(self.device.context, flags.READ_WRITE | flags.USE_HOST_PTR, hostbuf=values)
            # When it is dropped it goes to those that are kept until all launches are done: one may still read it.
            return Array(Storage(buffer, values, self._borrowed), shape, tensor.dtype)
        array = self.allocate(shape, tensor.dtype)
        if values.nbytes:
            self._cl.enqueue_copy(self.queue, array.storage.buffer, values, is_blocking=True)
        return array

    def owned(self, tensor: torch.Tensor) -> Array:
        """A copy of a tensor on the device."""
        array = self.allocate(tuple(tensor.shape), tensor.dtype)
        array.storage.pool = None
        values = _as_numpy(tensor)
        if values.nbytes:
            self._cl.enqueue_copy(self.queue, array.storage.buffer, values, is_blocking=True)
        return array

    def as_torch(self, array: Array, *, lent: bool = False) -> torch.Tensor:
        """What is in a tensor once all launches are done: in place on a device that shares memory, else a copy.

        The memory belongs to the result from then on, unless it is ``lent`` for as long as the array lives.
        """
        if not array.nbytes:
            return torch.empty(array.shape, dtype=array.dtype)
        storage = array.storage
        if storage.host is None:
            found: Any = np.empty(array.nbytes, np.uint8)
            self._cl.enqueue_copy(self.queue, found, storage.buffer, is_blocking=True)
        else:
            found = storage.host.reshape(-1).view(np.uint8)[: array.nbytes]
            mapped, _ = self._cl.enqueue_map_buffer(
                self.queue, storage.buffer, self._cl.map_flags.READ, 0, (array.nbytes,), np.uint8
            )
            mapped.base.release(self.queue)
            self.finish()
            if not lent:
                storage.pool = None
        return torch.from_numpy(found).view(array.dtype).view(array.shape)

    def finish(self) -> None:
        """Wait until all launches are done; memory of callers is not read any more."""
        self.queue.finish()
        self._borrowed.clear()

    def item(self, array: Array) -> Any:
        """The number in a tensor of one element."""
        size = array.dtype.itemsize
        found = np.empty(size, np.uint8)
        self._cl.enqueue_copy(self.queue, found, array.storage.buffer, is_blocking=True)
        return torch.from_numpy(found).view(array.dtype).item()


def _rounded(size: int) -> int:
    """The size of the memory for so many bytes: a quarter of a power of two, so that few sizes occur."""
    if size <= 256:
        return 256
    step = 1 << max((size - 1).bit_length() - 3, 0)
    return -(-size // step) * step


def _aligned(size: int) -> Any:
    memory: Any = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


def _as_numpy(tensor: torch.Tensor) -> Any:
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.int16)
    return tensor.contiguous().numpy()


__all__ = ["ALIGNMENT", "Array", "Memory", "Storage"]
