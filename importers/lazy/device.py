"""The lazy device itself: the only file that calls ``torch._C._lazy``."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

_PLACE = re.compile(r"\[source=\"[^\"]*\"\]|, source=\"[^\"]*\"")


def start() -> None:
    """Start the TorchScript lazy backend of this process, if nobody has.

    PyTorch cannot start it twice: after this, ``torch._lazy.ts_backend.init()`` of a program that does so itself
    does nothing.
    """
    import torch._lazy.ts_backend as backend

    if not torch._C._dispatch_has_kernel_for_dispatch_key("aten::add.Tensor", "Lazy"):
        backend.init()
    backend.init = _started


def _started() -> None:
    """Does nothing: takes the place of PyTorch's start of the lazy backend, once that has run."""


def from_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the lazy device whose data nobody else has.

    A rank-0 tensor is a view of a one-element one: rank-0 data is shared between equal numbers.
    """
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.dim() == 0:
        return torch.ops.aten.view_copy.default(plain.clone().reshape(1).to("lazy"), [])
    return plain.to("lazy")


def like(meta: torch.Tensor) -> torch.Tensor:
    """A tensor on the lazy device with the shape and dtype of ``meta`` and data of no meaning."""
    return from_cpu(torch.zeros(tuple(meta.shape), dtype=meta.dtype))


def sync(tensor: torch.Tensor) -> None:
    """Bring updates through views into ``tensor``; nothing for what the functional wrapper does not hold."""
    if torch._is_functional_tensor(tensor):
        torch._sync(tensor)


def data_of(tensors: Sequence[torch.Tensor]) -> list[tuple[int, torch.Tensor]]:
    """Number and CPU tensor of each piece of device data that the pending graph of ``tensors`` reads.

    Numbers of tensors are unique; constants that the backend made itself are numbered -1.
    """
    numbers, values = torch._C._lazy_ts_backend._get_tensors_ts_device_data_node(list(tensors)) or ((), ())
    return list(zip(numbers, values, strict=True))


def graph_text(tensors: Sequence[torch.Tensor]) -> str:
    """The pending graph of ``tensors`` as TorchScript text, without the places that the backend notes."""
    return _PLACE.sub("", torch._C._lazy._get_tensors_backend(list(tensors)))


def fingerprint(tensor: torch.Tensor) -> tuple[tuple[int, ...], str]:
    """What is pending for one tensor: it changes when the tensor is written."""
    return tuple(number for number, _ in data_of([tensor])), graph_text([tensor])


def graph_hash(tensors: Sequence[torch.Tensor]) -> bytes:
    """The hash of a pending graph: equal for equal graphs over other data of the same types."""
    value: bytes = torch._C._lazy._get_graph_hash(list(tensors))
    return value


def fallbacks() -> dict[str, int]:
    """How often each op has left the lazy device for eager execution in this process."""
    import torch._lazy.metrics as metrics

    return {
        name: metrics.counter_value(name)
        for name in metrics.counter_names()
        if "::" in name and not name.startswith("lazy::")
    }
