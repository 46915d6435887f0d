from torch_mlir import _mlir_libs as _mlir_libs
from torch_mlir import dialects as dialects
from torch_mlir import ir as ir
from torch_mlir import passmanager as passmanager
