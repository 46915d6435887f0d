"""Whether tensors still hold what they held: decided by their memory, never by who may have written it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from torch_tvm.runtime.page_watch import watch_pages

Hashing = Callable[[Sequence[tuple[int, int]]], Callable[[], torch.Tensor]]


class ContentWatch:
    """Watches the contents of tensors from the moment it is made.

    Version counters do not tell: ``.data`` has one of its own, inference tensors have none, NumPy knows none. The
    operating system tells of whole pages where it can (``page_watch.py``); what is left is hashed, and memory
    of other devices compared with a copy. ``hashing`` ranges of memory, each ``(address, bytes)``, gives a function
    that hashes what they hold now.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], hashing: Hashing) -> None:
        self._addresses = [tensor.data_ptr() for tensor in tensors]
        self._elsewhere = [(i, t.detach().clone()) for i, t in enumerate(tensors) if not t.is_cpu]
        here = [tensor for tensor in tensors if tensor.is_cpu and tensor.numel()]
        # a device writes pinned memory past the processor's page tables
        pinned = [tensor for tensor in here if torch.cuda.is_available() and tensor.is_pinned()]
        others = [_extent(tensor) for tensor in here if all(tensor is not p for p in pinned)]
        watched, left = watch_pages(list(dict.fromkeys(others)))
        self._pages = [(pages, pages.writes) for pages in watched]
        self._hash = hashing([*left, *map(_extent, pinned)])
        self._hashes = self._hash()

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


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The first address that a tensor with elements reaches, and the number of bytes up to the last."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), (reach + 1) * tensor.element_size()


__all__ = ["ContentWatch"]
