"""Batch norms that average over all batches (``momentum=None``), without the question how many there were."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def cumulative_norms_unasked() -> Iterator[None]:
    """Inside, such a norm in training computes its momentum, the inverse of a count, as a tensor: PyTorch's module
    reads a number, which no recording can follow.
    """
    original = _BatchNorm.forward

    @functools.wraps(original)
    def forward(self: Any, input: Tensor) -> Tensor:
        if not (self.training and self.track_running_stats and self.momentum is None):
            return original(self, input)
        self._check_input_dim(input)
        self.num_batches_tracked.add_(1)
        share = self.num_batches_tracked.double().reciprocal()
        running = self.running_mean, self.running_var
        mean, variance = (each.clone() for each in running)  # what a batch of nothing leaves
        result = torch.nn.functional.batch_norm(
            input, mean, variance, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps
        )
        for old, new in zip(running, (mean, variance), strict=True):
            old.copy_(old * (1 - share) + new * share)
        return result

    _BatchNorm.forward = forward
    try:
        yield
    finally:
        _BatchNorm.forward = original


__all__ = ["cumulative_norms_unasked"]
