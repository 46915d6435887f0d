"""``recompose-products``: products in one spelling, without the reshapes that ATen puts around them.

Before::

    %1 = torch.aten.view %x, [34, 64] : [2,17,64] -> [34,64]
    %2 = torch.aten.linear %1, %w, %b : [34,192]
    %3 = torch.aten.view %2, [2, 17, 192]

After::

    %3 = torch.aten.linear %x, %w, %b : [2,17,192]

So for ``mm`` and ``mv`` of a folded batch, for ``bmm`` of folded and expanded batches and for ``mm`` of a vector as a
row, which are ``matmul``. A ``matmul`` of two matrices is ``mm``, of two batches of matrices ``bmm``, of a matrix and a
vector ``mv``, of two vectors ``dot``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.passes.base import Pass
from torch_tvm.passes.patterns.rewriting import Rewriter

VIEW, EXPAND, SQUEEZE = "torch.aten.view", "torch.aten.expand", "torch.aten.squeeze.dim"
Shape = tuple[int, ...]


class RecomposeProducts(Pass):
    """Linear layers and matrix products over leading dimensions, from products of reshaped operands."""

    def run(self, module: TorchModule) -> None:
        rewriter = Rewriter(module.mlir.context)
        for operation in view.walk(module.mlir):
            rule = _rule_of(operation)
            if rule is None:
                continue
            rewriter.anchor = operation
            replacement = rule(rewriter, operation)
            if replacement is not None:
                operation.results[0].replace_all_uses_with(replacement)
                operation.erase()


def _rule_of(op: ir.Operation) -> Callable[[Rewriter, ir.Operation], ir.Value | None] | None:
    name = view.op_name(op)
    if name not in (VIEW, SQUEEZE):
        return {"torch.aten.matmul": _plain_product, "torch.aten.bmm": _broadcast_product}.get(name)
    product = view.defining_op(op.operands[0])
    if product is None or not _has_one_use(product.results[0]):
        return None
    if name == VIEW and (rule := _RULES.get(view.op_name(product))) is not None:
        return lambda r, op: rule(r, op, product)
    return (lambda r, op: _row(r, op, product)) if product.name == "torch.aten.mm" else None


def _linear(r: Rewriter, op: ir.Operation, product: ir.Operation) -> ir.Value | None:
    x = _unfolded(product.operands[0], op)
    if x is None:
        return None
    return r.op("torch.aten.linear", [x, *list(product.operands)[1:]], op.results[0].type)


def _mm(r: Rewriter, op: ir.Operation, product: ir.Operation) -> ir.Value | None:
    x = _unfolded(product.operands[0], op)
    return None if x is None else r.op("torch.aten.matmul", [x, product.operands[1]], op.results[0].type)


def _mv(r: Rewriter, op: ir.Operation, product: ir.Operation) -> ir.Value | None:
    matrices, vector = product.operands
    owner = view.defining_op(matrices)
    if owner is None or owner.name != VIEW:
        return None
    source, flat, result = _shape(owner.operands[0]), _shape(matrices), _shape(op.results[0])
    if source is None or flat is None or len(source) < 3 or source[-1] != flat[-1] or source[:-1] != result:
        return None
    return _times_vector(r, owner.operands[0], vector, op.results[0].type)


def _times_vector(r: Rewriter, matrices: ir.Value, vector: ir.Value, kind: ir.Type) -> ir.Value:
    """``matrices @ vector``; of transposed matrices it is ``vector @ matrices``."""
    inner = _transposed(matrices)
    operands = [matrices, vector] if inner is None else [vector, inner]
    return r.op("torch.aten.matmul", operands, kind)


def _transposed(value: ir.Value) -> ir.Value | None:
    """What ``value`` is the transpose of, in its last two dimensions of three or more."""
    owner = view.defining_op(value)
    if owner is None or owner.name != "torch.aten.permute":
        return None
    order = view.constant(owner.operands[1])
    if order is None or len(order) < 3:
        return None
    rank = len(order)
    return owner.operands[0] if order == [*range(rank - 2), rank - 1, rank - 2] else None


def _row(r: Rewriter, op: ir.Operation, product: ir.Operation) -> ir.Value | None:
    """``vector @ matrix`` where ``op`` drops the first dimension of a product of one row."""
    owner, dim = view.defining_op(product.operands[0]), view.constant(op.operands[1])
    if owner is None or owner.name != "torch.aten.unsqueeze" or view.constant(owner.operands[1]) not in (0, -2):
        return None
    vector, result = _shape(owner.operands[0]), _shape(op.results[0])
    if vector is None or len(vector) != 1 or result is None or len(result) != 1 or dim not in (0, -2):
        return None
    return r.op("torch.aten.matmul", [owner.operands[0], product.operands[1]], op.results[0].type)


def _unfolded(folded: ir.Value, op: ir.Operation) -> ir.Value | None:
    """``x`` where ``folded`` is ``x`` with its leading dimensions folded and ``op`` unfolds them again."""
    owner = view.defining_op(folded)
    if owner is None or owner.name != VIEW:
        return None
    source, flat, result = _shape(owner.operands[0]), _shape(folded), _shape(op.results[0])
    if source is None or flat is None or result is None or len(flat) != 2 or len(source) == 2:
        return None
    fits = len(source) == len(result) and source[-1:] == flat[-1:] and source[:-1] == result[:-1]
    return owner.operands[0] if fits else None


def _bmm(r: Rewriter, op: ir.Operation, product: ir.Operation) -> ir.Value | None:
    result, folded = _shape(op.results[0]), _shape(product.results[0])
    if result is None or folded is None or len(result) < 3 or result[-2:] != folded[-2:]:
        return None
    batch = result[:-2]
    if prod(batch) != folded[0]:
        return None
    operands = [_unfolded_batches(value, batch) for value in product.operands]
    found = [value for value in operands if value is not None]
    return r.op("torch.aten.matmul", _stripped(found, batch), op.results[0].type) if len(found) == 2 else None


def _unfolded_batches(value: ir.Value, batch: Shape) -> ir.Value | None:
    """The operand of a matrix product over ``batch`` behind a folded one."""
    owner = view.defining_op(value)
    if owner is None or owner.name != VIEW:
        return None
    source, folded = _shape(owner.operands[0]), _shape(value)
    if source is None or folded is None or source[-2:] != folded[-2:] or source[:-2] != batch:
        return None
    return owner.operands[0]


def _stripped(operands: list[ir.Value], batch: Shape) -> list[ir.Value]:
    """Operands of a ``matmul`` over ``batch`` without broadcasts and squeezes that it does by itself."""
    for index in (0, 1):
        candidate = list(operands)
        candidate[index] = _before_squeeze(_before_expand(operands[index]))
        shapes = [_shape(value) for value in candidate]
        if all(shape is not None and len(shape) >= 2 for shape in shapes):
            batches = [shape[:-2] for shape in shapes if shape is not None]
            if tuple(torch.broadcast_shapes(*batches)) == batch:
                operands = candidate
    return operands


def _before_expand(batches: ir.Value) -> ir.Value:
    expand = view.defining_op(batches)
    if expand is None or expand.name != EXPAND:
        return batches
    before, after = _shape(expand.operands[0]), _shape(batches)
    is_broadcast = before is not None and after is not None and len(before) >= 2 and before[-2:] == after[-2:]
    return expand.operands[0] if is_broadcast else batches


def _before_squeeze(batches: ir.Value) -> ir.Value:
    squeeze = view.defining_op(batches)
    if squeeze is None or squeeze.name != SQUEEZE:
        return batches
    before, after = _shape(squeeze.operands[0]), _shape(batches)
    is_first = before is not None and after is not None and len(after) >= 2 and before == (1, *after)
    return squeeze.operands[0] if is_first else batches


def _broadcast_product(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A product of operands that were broadcast by hand is ``matmul`` of what was broadcast."""
    result, given = _shape(op.results[0]), list(op.operands)
    if result is None or len(result) < 3:
        return None
    operands = _stripped(given, result[:-2])
    return None if operands == given else r.op("torch.aten.matmul", operands, op.results[0].type)


def _plain_product(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    left, right = _shape(op.operands[0]), _shape(op.operands[1])
    if left is None or right is None:
        return None
    if len(left) > 1 and len(right) > 1 and (product := _broadcast_product(r, op)) is not None:
        return product
    if len(left) > 2 and len(right) == 1 and _transposed(op.operands[0]) is not None:
        return _times_vector(r, op.operands[0], op.operands[1], op.results[0].type)
    name = _PLAIN.get((len(left), len(right)))
    if name is None or (len(left) == 3 and left[0] != right[0]):
        return None
    return r.op(name, list(op.operands), op.results[0].type)


_PLAIN = {
    (1, 1): "torch.aten.dot",
    (2, 1): "torch.aten.mv",
    (2, 2): "torch.aten.mm",
    (3, 3): "torch.aten.bmm",
}
_RULES: dict[str, Callable[[Rewriter, ir.Operation, ir.Operation], ir.Value | None]] = {
    "torch.aten.linear": _linear,
    "torch.aten.mm": _mm,
    "torch.aten.mv": _mv,
    "torch.aten.bmm": _bmm,
}


def _shape(value: ir.Value) -> Shape | None:
    """The shape of a tensor whose sizes are all known."""
    kind = view.tensor_type(value)
    if kind is None or kind.shape is None or None in kind.shape:
        return None
    return tuple(size or 0 for size in kind.shape)


def _has_one_use(value: ir.Value) -> bool:
    uses = iter(value.uses)
    return next(uses, None) is not None and next(uses, None) is None
