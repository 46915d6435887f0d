"""Shared by the tests of what people call."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch

from torch_tvm.dynamo import GraphNotCompiled
from torch_tvm.runtime.warnings import FallbackWarning


@pytest.fixture
def everything_is_compiled() -> Iterator[None]:
    """Anything that runs in PyTorch fails a test."""
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error", GraphNotCompiled)
        warnings.simplefilter("error", FallbackWarning)
        yield
