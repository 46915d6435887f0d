"""What PyTorch writes about a program that it refuses, besides raising: our error says it, at the user's line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch.export._trace
import torch.fx.graph_module

_LOGS = ("torch._subclasses.fake_tensor", "torch.export._trace")
_PRINTS = (torch.export._trace, torch.fx.graph_module)


@contextmanager
def quiet_refusals() -> Iterator[None]:
    """Inside, PyTorch logs no op that fake tensors reject, and prints neither a graph that is cut
    short nor its line.
    """
    loggers = [logging.getLogger(name) for name in _LOGS]
    before = [logger.level for logger in loggers]
    with ExitStack() as held:
        for logger, level in zip(loggers, before, strict=True):
            held.callback(logger.setLevel, level)
            logger.setLevel(logging.CRITICAL)
        for module in _PRINTS:
            held.callback(module.__dict__.pop, "print", None)
            module.__dict__["print"] = _print_nothing
        yield


def _print_nothing(*_: Any, **__: Any) -> None:
    """In place of ``print``."""


__all__ = ["quiet_refusals"]
