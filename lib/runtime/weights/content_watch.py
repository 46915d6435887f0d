"""Whether tensors still hold what they held: decided by their memory, never by who may have written it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from torch_tvm.runtime.weights.page_watch import Range, watch_pages


class Hashes(Protocol):
    """Hashes of ranges of memory as they are now, as rows; ``of`` is the position of the range that each is of."""

    of: list[int]

    def __call__(self) -> torch.Tensor: ...


Hashing = Callable[[Sequence[Range]], Hashes]


class ContentWatch:
    """Watches the contents of tensors from the moment it is made.

    Version counters do not tell: ``.data`` has one of its own, inference tensors have none, NumPy knows none. The
    operating system tells of whole pages where it can (``page_watch.py``); what is left is hashed, and memory
    of other devices compared with a copy.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], hashing: Hashing) -> None:
        self._addresses = [tensor.data_ptr() for tensor in tensors]
        self._elsewhere = [(i, t.detach().clone()) for i, t in enumerate(tensors) if not t.is_cpu]
        here = [tensor for tensor in tensors if tensor.is_cpu and tensor.numel()]
        # a device writes pinned memory past the processor's page tables
        pinned = [tensor for tensor in here if torch.cuda.is_available() and tensor.is_pinned()]
        others = [_extent(tensor) for tensor in here if all(tensor is not p for p in pinned)]
        ranges = list(dict.fromkeys(others))
        watched, left = watch_pages(ranges)
        self._pages = [(pages, pages.writes) for _, pages in watched]
        hashed = [(ranges[position], part) for position, part in left]
        hashed += [(extent, extent) for extent in map(_extent, pinned)]
        self._hash = hashing([part for _, part in hashed])
        self._hashes = self._hash()
        self._of_pages = [ranges[position] for position, _ in watched]
        self._of_hashes = [hashed[position][0] for position in self._hash.of]

    def is_unchanged(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether ``tensors``, in the order of the first ones, lie where those did and hold the same."""
        for tensor, address in zip(tensors, self._addresses, strict=True):
            if tensor.data_ptr() != address:
                return False
        for pages, writes in self._pages:
            if pages.were_written(writes):
                return False
        if not all(torch.equal(tensors[i], before) for i, before in self._elsewhere):
            return False
        return torch.equal(self._hash(), self._hashes)

    def changed(self, tensors: Sequence[torch.Tensor]) -> list[int]:
        """Positions of those that lie elsewhere or hold something else."""
        pages = zip(self._of_pages, self._pages, strict=True)
        written = {extent for extent, (each, writes) in pages if each.were_written(writes)}
        differs = (self._hash() != self._hashes).any(1).tolist()
        written |= {extent for extent, is_other in zip(self._of_hashes, differs, strict=True) if is_other}
        moved = [t.data_ptr() != address for t, address in zip(tensors, self._addresses, strict=True)]
        return [
            index
            for index, tensor in enumerate(tensors)
            if moved[index]
            or (tensor.numel() and _extent(tensor) in written)
            or any(i == index and not torch.equal(tensor, before) for i, before in self._elsewhere)
        ]


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The first address that a tensor with elements reaches, and the number of bytes up to the last."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), (reach + 1) * tensor.element_size()


__all__ = ["ContentWatch"]
