"""Our compiled modules against other runtimes, side by side in one run: ``torch-tvm bench``."""

from torch_tvm.tools.bench.command import main

__all__ = ["main"]
