"""PyTorch's operator database, compiled and compared with eager: ``python -m torch_tvm.tools.opinfo``."""

from torch_tvm.tools.opinfo.command import main

__all__ = ["main"]
