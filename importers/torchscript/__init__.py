"""TorchScript to Torch dialect, by evaluating the program at import and recording what only run time knows."""

from torch_tvm.importers.torchscript.program import import_graph, import_torchscript

__all__ = ["import_graph", "import_torchscript"]
