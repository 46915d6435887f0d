"""Arguments that a program writes must share memory with no other argument: kernels read all of them first.

In eager PyTorch a write to one shows in the other from that statement on; such a call is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import torch

from torch_tvm.runtime.calls.convention import Convention
from torch_tvm.support.errors import InvalidInput

Span = tuple[int, int, bool]
"""The address of a dense tensor, its bytes, and whether it is written."""

_WORK = 10_000
"""How far to search for an element that two interleaved tensors share; beyond that they count as overlapping."""


def written_arguments(convention: Convention) -> list[int]:
    """Indices of the user's arguments that a call writes."""
    return sorted({target for target in convention.writes if target < len(convention.arguments)})


def overlaps(*spans: Span) -> bool:
    """Whether a written tensor shares an address with another."""
    read_end = written_end = 0
    for start, size, is_written in sorted(spans):
        if size and (start < written_end or (is_written and start < read_end)):
            return True
        if is_written:
            written_end = max(written_end, start + size)
        read_end = max(read_end, start + size)
    return False


def refuse_overlaps(convention: Convention, flat: Sequence[Any]) -> None:
    """Raise :class:`InvalidInput` where the program writes memory that another argument, or the same one, shares."""
    names = [argument.name for argument in convention.arguments]
    for target in written_arguments(convention):
        written = flat[target]
        if written.is_inference() and not torch.is_inference_mode_enabled():
            raise InvalidInput(
                f"argument '{names[target]}': the program writes it, and it was made in inference mode",
                advice="call under torch.inference_mode(), or pass a clone",
            )
        if overlaps_itself(written):
            raise InvalidInput(
                f"argument '{names[target]}': the program writes it, and some of its elements share memory",
                advice="pass a clone",
            )
        for index, other in enumerate(flat):
            if index != target and isinstance(other, torch.Tensor) and _share_memory(written, other):
                raise InvalidInput(
                    f"argument '{names[target]}': the program writes it, and it shares memory with "
                    f"argument '{names[index]}'",
                    advice="pass a clone of one of them",
                )


def overlaps_itself(tensor: torch.Tensor) -> bool:
    """Whether two indices may be one element."""
    extent = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= extent:
                return tensor.numel() > 0
            extent += stride * (size - 1)
    return False


def _share_memory(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two strided CPU tensors have an element in common."""
    if not (left.data_ptr() < _end(right) and right.data_ptr() < _end(left)):
        return False
    try:
        return bool(numpy.shares_memory(_bytes(left), _bytes(right), max_work=_WORK))  # type: ignore[arg-type]  # the stub forgets counts
    except numpy.exceptions.TooHardError:
        return True


def _end(tensor: torch.Tensor) -> int:
    if not tensor.numel():
        return 0
    last = sum(stride * (size - 1) for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
    return tensor.data_ptr() + (last + 1) * tensor.element_size()


def _bytes(tensor: torch.Tensor) -> numpy.ndarray[Any, Any]:
    """An array over the same addresses; its numbers mean nothing."""
    size = tensor.element_size()
    address, kind = tensor.data_ptr(), f"V{size}"
    interface = {
        "version": 3,
        "data": (address, True),
        "typestr": f"|{kind}",
        "shape": tuple(tensor.shape),
        "strides": tuple(stride * size for stride in tensor.stride()),
    }
    return numpy.asarray(_Interface(interface))


class _Interface:
    """An object that ``numpy.asarray`` reads by the array interface."""

    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface


__all__ = ["overlaps", "overlaps_itself", "refuse_overlaps", "written_arguments"]
