"""A typed view of the Torch dialect over the MLIR bindings of the torch-mlir wheel."""
