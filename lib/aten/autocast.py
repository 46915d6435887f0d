"""Autocast changes what a program that is traced under it consists of, and nothing that is recorded already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def is_active() -> bool:
    """Whether ops of the CPU convert their operands at the moment."""
    return torch.is_autocast_enabled("cpu")


@contextmanager
def without_autocast() -> Iterator[None]:
    """Ops compute in the dtypes that they are called with."""
    if not is_active():
        yield
        return
    with torch.autocast("cpu", enabled=False):
        yield
