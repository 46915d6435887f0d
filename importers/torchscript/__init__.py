"""TorchScript to Torch dialect: the program is evaluated, and what only run time knows is recorded."""

from torch_tvm.importers.torchscript.program import (
    as_script,
    example_arguments,
    import_graph,
    import_torchscript,
)

__all__ = ["as_script", "example_arguments", "import_graph", "import_torchscript"]
