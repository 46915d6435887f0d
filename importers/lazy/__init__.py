"""Programs of the lazy device: captured graphs and their dumps become Torch dialect modules."""

from torch_tvm.importers.lazy.program import import_lazy

__all__ = ["import_lazy"]
