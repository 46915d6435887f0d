"""Sizes before what has them: fusion orders kernels by the values that they read, and a symbol is none."""

from __future__ import annotations

import tvm
from tvm import relax

from torch_tvm.transforms.base import Transform


class OrderSizes(Transform):
    """A ``match_cast`` stands before what has its symbol; it comes right after FuseOps::

    gv1 = call_tir(select, (x,), Tensor((n,)))        gv0 = match_cast(lv, Shape([n]))
    gv0 = match_cast(lv, Shape([n]))             →    gv1 = call_tir(select, (x,), Tensor((n,)))
    """

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        updated = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
        for name, function in mod.functions_items():
            if isinstance(function, relax.Function) and isinstance(function.body, relax.SeqExpr):
                blocks = [_ordered(block) for block in function.body.blocks]
                if any(new is not old for new, old in zip(blocks, function.body.blocks, strict=True)):
                    body = relax.SeqExpr(blocks, function.body.body)
                    updated.update_func(
                        name,
                        relax.Function(
                            function.params, body, function.ret_ty, function.is_pure, function.attrs
                        ),
                    )
        return updated


def _ordered(block: relax.BindingBlock) -> relax.BindingBlock:
    """The block with each binding after those that it needs, otherwise in its order."""
    bindings = list(block.bindings)
    makers: dict[int, int] = {}
    for index, binding in enumerate(bindings):
        if isinstance(binding, relax.MatchCast):
            for symbol in relax.analysis.tir_vars_in_type(binding.ty):
                makers.setdefault(symbol.__chandle__(), index)
    if not makers:
        return block
    owners = {binding.var.__chandle__(): index for index, binding in enumerate(bindings)}
    order: list[int] = []
    placed: set[int] = set()

    def place(index: int) -> None:
        if index in placed:
            return
        placed.add(index)
        binding = bindings[index]
        needed = [owners.get(var.__chandle__()) for var in relax.analysis.free_vars(binding.value)]
        needed += [makers.get(symbol.__chandle__()) for symbol in _symbols(binding)]
        for each in needed:
            if each is not None:
                place(each)
        order.append(index)

    for index in range(len(bindings)):
        place(index)
    if order == sorted(order):
        return block
    kind = relax.DataflowBlock if isinstance(block, relax.DataflowBlock) else relax.BindingBlock
    return kind([bindings[index] for index in order])


def _symbols(binding: relax.VarBinding | relax.MatchCast) -> list[tvm.ir.Expr]:
    """The symbols of what a binding has, and of the shapes that it is given."""
    found = list(relax.analysis.tir_vars_in_type(binding.var.ty))

    def visit(part: relax.Expr) -> None:
        if isinstance(part, relax.ShapeExpr):
            found.extend(relax.analysis.tir_vars_in_type(part.ty))

    relax.analysis.post_order_visit(binding.value, visit)
    return found


__all__ = ["OrderSizes"]
