"""``recognize-causal-mask``: attention under a constant lower-triangular mask is causal attention.

Before::

    %1 = torch.aten.scaled_dot_product_attention %q, %k, %v, %mask, %dropout, %false, %scale, %gqa

After, when ``%mask`` is a literal that lets each query see itself and what precedes it::

    %1 = torch.aten.scaled_dot_product_attention %q, %k, %v, %none, %dropout, %true, %scale, %gqa
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.passes.base import Pass
from torch_tvm.passes.patterns.rewriting import Rewriter

ATTENTION = "torch.aten.scaled_dot_product_attention"


class RecognizeCausalMask(Pass):
    """Drop a constant attention mask that is causal, or lets everything through."""

    def run(self, module: TorchModule) -> None:
        rewriter = Rewriter(module.mlir.context)
        for operation in view.walk(module.mlir):
            if view.op_name(operation) != ATTENTION or view.constant(operation.operands[5]) is not False:
                continue
            mask = _known_mask(operation.operands[3], module.weights)
            kind = None if mask is None else _kind(mask)
            if kind is None:
                continue
            rewriter.anchor = operation
            operation.operands[3] = rewriter.none()
            if kind == "causal":
                operation.operands[5] = rewriter.boolean(True)


def _known_mask(value: ir.Value, weights: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    literal = view.defining_op(value)
    if literal is None or literal.name != "torch.vtensor.literal":
        return None
    name = view.resource_name(literal)
    return None if name is not None and name not in weights else view.literal(literal, weights)


def _kind(mask: torch.Tensor) -> str | None:
    """``causal``, ``all``, or ``None`` for a mask that says more."""
    if mask.dim() < 2 or mask.dtype != torch.bool or 0 in mask.shape:
        return None
    rows, columns = mask.shape[-2:]
    if bool(mask.all()):
        return "all"
    if rows == columns and bool((mask == torch.ones(rows, columns, dtype=torch.bool).tril()).all()):
        return "causal"
    return None
