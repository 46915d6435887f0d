"""``recompose-products``: products in one spelling, without the reshapes that ATen puts around them.

Before::

    %1 = torch.aten.view %x, [34, 64] : [2,17,64] -> [34,64]
    %2 = torch.aten.linear %1, %w, %b : [34,192]
    %3 = torch.aten.view %2, [2, 17, 192]

After::

    %3 = torch.aten.linear %x, %w, %b : [2,17,192]

So for ``mm`` of a folded batch and for ``bmm`` of folded and expanded batches, which are ``matmul``. A ``matmul`` of two
matrices is ``mm``, of two batches of matrices ``bmm``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.passes.base import Pass
from torch_tvm.passes.rewriting import Rewriter

VIEW, EXPAND = "torch.aten.view", "torch.aten.expand"
Shape = tuple[int, ...]


class RecomposeProducts(Pass):
    """Linear layers and matrix products over leading dimensions, from products of reshaped operands."""

    def run(self, root: ir.Module) -> None:
        rewriter = Rewriter(root.context)
        for operation in view.walk(root):
            name = view.op_name(operation)
            if name == VIEW:
                product = view.defining_op(operation.operands[0])
                rule = _RULES.get(view.op_name(product)) if product is not None else None
                if product is None or rule is None or not _has_one_use(product.results[0]):
                    continue
                rewriter.anchor = operation
                replacement = rule(rewriter, operation, product)
            elif name == "torch.aten.matmul":
                rewriter.anchor = operation
                replacement = _plain_product(rewriter, operation)
            else:
                continue
            if replacement is not None:
                operation.results[0].replace_all_uses_with(replacement)
                operation.erase()


def _linear(r: Rewriter, op: ir.Operation, product: ir.Operation) -> ir.Value | None:
    x = _unfolded(product.operands[0], op)
    if x is None:
        return None
    return r.op("torch.aten.linear", [x, *list(product.operands)[1:]], op.results[0].type)


def _mm(r: Rewriter, op: ir.Operation, product: ir.Operation) -> ir.Value | None:
    x = _unfolded(product.operands[0], op)
    return None if x is None else r.op("torch.aten.matmul", [x, product.operands[1]], op.results[0].type)


def _unfolded(folded: ir.Value, op: ir.Operation) -> ir.Value | None:
    """``x`` where ``folded`` is ``x`` with its leading dimensions folded and ``op`` unfolds them again."""
    owner = view.defining_op(folded)
    if owner is None or owner.name != VIEW:
        return None
    source, flat, result = _shape(owner.operands[0]), _shape(folded), _shape(op.results[0])
    if source is None or flat is None or result is None or len(flat) != 2 or len(source) < 3:
        return None
    fits = source[-1] == flat[-1] and source[:-1] == result[:-1]
    return owner.operands[0] if fits else None


def _bmm(r: Rewriter, op: ir.Operation, product: ir.Operation) -> ir.Value | None:
    result, folded = _shape(op.results[0]), _shape(product.results[0])
    if result is None or folded is None or len(result) < 3 or result[-2:] != folded[-2:]:
        return None
    batch = result[:-2]
    if prod(batch) != folded[0]:
        return None
    operands = [_batched(value, batch) for value in product.operands]
    if any(value is None for value in operands):
        return None
    left, right = (value for value in operands if value is not None)
    shapes = _shape(left), _shape(right)
    ranks = [len(shape) for shape in shapes if shape is not None]
    if len(ranks) != 2 or max(ranks) != len(result):
        return None
    return r.op("torch.aten.matmul", [left, right], op.results[0].type)


def _batched(value: ir.Value, batch: Shape) -> ir.Value | None:
    """The operand of a matrix product over ``batch`` behind a folded one; broadcasts are left out."""
    owner = view.defining_op(value)
    if owner is None or owner.name != VIEW:
        return None
    source, folded = _shape(owner.operands[0]), _shape(value)
    if source is None or folded is None or source[-2:] != folded[-2:] or source[:-2] != batch:
        return None
    inner = owner.operands[0]
    expand = view.defining_op(inner)
    if expand is None or expand.name != EXPAND:
        return inner
    before = _shape(expand.operands[0])
    is_broadcast = before is not None and len(before) >= 2 and before[-2:] == source[-2:]
    return expand.operands[0] if is_broadcast else inner


def _plain_product(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    left, right = _shape(op.operands[0]), _shape(op.operands[1])
    if left is None or right is None or len(left) != len(right):
        return None
    name = {2: "torch.aten.mm", 3: "torch.aten.bmm"}.get(len(left))
    if name is None or (len(left) == 3 and left[0] != right[0]):
        return None
    return r.op(name, list(op.operands), op.results[0].type)


_RULES: dict[str, Callable[[Rewriter, ir.Operation, ir.Operation], ir.Value | None]] = {
    "torch.aten.linear": _linear,
    "torch.aten.mm": _mm,
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
