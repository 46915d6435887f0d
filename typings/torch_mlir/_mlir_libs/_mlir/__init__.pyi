from torch_mlir._mlir_libs._mlir import ir as ir
