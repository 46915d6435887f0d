"""What dtypes are called, and which one a Python number has as a tensor."""

from __future__ import annotations

import torch

SCALAR_DTYPE = {"int": torch.int64, "float": torch.float64, "bool": torch.bool}
"""The dtype of a run-time number, by its kind."""


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


__all__ = ["SCALAR_DTYPE", "dtype_name"]
