"""Relax-to-Relax: simplification, layout, weight packing and fusion.

``optimize(mod, target)`` is the one pipeline; ``pipeline.py`` lists its passes in order.
"""

from torch_tvm.transforms.pipeline import optimize

__all__ = ["optimize"]
