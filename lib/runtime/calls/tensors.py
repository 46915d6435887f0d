"""TVM tensors as torch tensors and back, without a copy."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack
from tvm_ffi import _ffi_api

array_item = _ffi_api.ArrayGetItem
array_size = _ffi_api.ArraySize


def as_torch(value: Any) -> torch.Tensor:
    """A tensor that TVM handed to Python, as a torch tensor over the same memory."""
    return value if isinstance(value, torch.Tensor) else from_dlpack(value)


def compact(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor with TVM's strides: torch counts a size of 0 as 1 in them, TVM does not."""
    return tensor if tensor.numel() else tensor.as_strided(tensor.shape, compact_strides(tensor.shape))


def compact_strides(shape: Sequence[int]) -> list[int]:
    """TVM's strides of a contiguous tensor."""
    strides = [1] * len(shape)
    for axis in reversed(range(len(shape) - 1)):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return strides


def read_bool(value: Any) -> bool:
    """The value of a 0-d boolean CPU tensor, without a conversion to torch."""
    if isinstance(value, torch.Tensor):
        return bool(value)
    return ctypes.c_bool.from_address(value.data_ptr()).value


def read_int(value: Any) -> int:
    """The value of a 0-d int64 CPU tensor, without a conversion to torch."""
    if isinstance(value, torch.Tensor):
        return int(value)
    return ctypes.c_int64.from_address(value.data_ptr()).value


def memory_ranges(tensors: Sequence[Any]) -> list[tuple[int, int]]:
    """First and one-past-last address of each tensor that has elements."""
    found = []
    for tensor in tensors:
        converted = as_torch(tensor)
        if converted.numel():
            start = converted.data_ptr()
            found.append((start, start + converted.numel() * converted.element_size()))
    return found


def shares_memory(tensor: torch.Tensor, ranges: Sequence[tuple[int, int]]) -> bool:
    """Whether a tensor starts inside one of the ranges."""
    pointer = tensor.data_ptr()
    return any(start <= pointer < end for start, end in ranges)


def snapshot(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that may be written in every mode."""
    with torch.inference_mode(False), torch.no_grad():
        return tensor.detach().clone()


__all__ = [
    "array_item",
    "array_size",
    "as_torch",
    "compact",
    "compact_strides",
    "memory_ranges",
    "read_bool",
    "read_int",
    "shares_memory",
    "snapshot",
]
