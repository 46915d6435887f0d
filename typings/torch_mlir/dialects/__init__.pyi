from torch_mlir.dialects import _func_ops_gen as _func_ops_gen
from torch_mlir.dialects import func as func
from torch_mlir.dialects import torch as torch
