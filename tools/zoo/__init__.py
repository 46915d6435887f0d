"""Models in plain torch, randomly initialised, for tests and benchmarks.

``MODELS`` maps a name to a :class:`Model`, whose ``build(batch)`` gives the module in eval mode and the
example arguments. Every parameter comes from ``seed``, batch-norm statistics included.
"""

from torch_tvm.tools.zoo.registry import MODELS, Model, build

__all__ = ["MODELS", "Model", "build"]
