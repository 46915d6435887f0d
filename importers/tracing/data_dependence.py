"""Why a frontend that runs a program once on tensors without numbers has to give it up."""

from __future__ import annotations

from torch_tvm.support.errors import ImportFailed


class DependsOnData(ImportFailed):
    """The import needs a size, a number or a branch that the program computes of data."""


__all__ = ["DependsOnData"]
