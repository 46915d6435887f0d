from torch_mlir._mlir_libs import _mlir as _mlir
