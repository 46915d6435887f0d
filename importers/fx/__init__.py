"""``torch.fx`` and ``torch.export`` programs become Torch dialect modules."""

from torch_tvm.importers.fx.program import import_fx

__all__ = ["import_fx"]
