"""Sizes before what has them: fusion orders kernels by the values that they read, and a symbol is none."""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relax

from torch_tvm.transforms.base import Transform


class OrderSizes(Transform):
    """A ``match_cast`` stands before what has its symbol; it comes right after FuseOps::

    gv1 = call_tir(select, (x,), Tensor((n,)))        gv0 = match_cast(lv, Shape([n]))
    gv0 = match_cast(lv, Shape([n]))             →    gv1 = call_tir(select, (x,), Tensor((n,)))

    Where FuseOps has joined what makes a size with what needs it, they are kernels of their own again.
    """

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        updated = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
        for name, function in mod.functions_items():
            if isinstance(function, relax.Function) and isinstance(function.body, relax.SeqExpr):
                new = _in_order(function, mod)
                if new is not function:
                    updated.update_func(name, new)
        unused = relax.transform.DeadCodeElimination()
        return (
            unused(updated) if any(updated[name] is not mod[name] for name in mod.get_global_vars()) else mod
        )


class _Cycle(Exception):
    """Bindings that need each other; ``fused`` are the kernels among them."""

    def __init__(self, fused: Sequence[tvm.ir.GlobalVar]) -> None:
        super().__init__()
        self.fused = fused


def _in_order(function: relax.Function, mod: tvm.IRModule) -> relax.Function:
    while True:
        try:
            blocks = [_ordered(block) for block in function.body.blocks]
        except _Cycle as cycle:
            if not cycle.fused:
                return function
            function = _taken_apart(function, cycle.fused, mod)
            continue
        if all(new is old for new, old in zip(blocks, function.body.blocks, strict=True)):
            return function
        body = relax.SeqExpr(blocks, function.body.body)
        return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


def _taken_apart(
    function: relax.Function, fused: Sequence[tvm.ir.GlobalVar], mod: tvm.IRModule
) -> relax.Function:
    """The function with the bindings of fused kernels in the place of their calls."""
    plain = {name: mod[name].without_attr("Primitive") for name in fused}
    inlined = tvm.IRModule({"main": function.inline_functions(plain)})
    passes = [relax.transform.Normalize(), relax.transform.ConvertToDataflow(1)]
    return tvm.transform.Sequential(passes)(inlined)["main"]


def _ordered(block: relax.BindingBlock) -> relax.BindingBlock:
    """The block with each binding after those that it needs, otherwise in its order. Raises :class:`_Cycle`."""
    bindings = list(block.bindings)
    makers: dict[int, int] = {}
    for index, binding in enumerate(bindings):
        if isinstance(binding, relax.MatchCast):
            for symbol in relax.analysis.definable_tir_vars_in_type(binding.ty):
                makers.setdefault(symbol.__chandle__(), index)
    if not makers:
        return block
    owners = {binding.var.__chandle__(): index for index, binding in enumerate(bindings)}
    order: list[int] = []
    placed: set[int] = set()
    open_: list[int] = []

    def place(index: int) -> None:
        if index in open_:
            values = [bindings[each].value for each in open_[open_.index(index) :]]
            called = [value.op for value in values if isinstance(value, relax.Call)]
            raise _Cycle([op for op in called if isinstance(op, tvm.ir.GlobalVar)])
        if index in placed:
            return
        placed.add(index)
        open_.append(index)
        binding = bindings[index]
        needed = [owners.get(var.__chandle__()) for var in relax.analysis.free_vars(binding.value)]
        needed += [makers.get(symbol.__chandle__()) for symbol in _symbols(binding)]
        for each in needed:
            if each not in (None, index):  # a match_cast has the symbol that it makes
                place(each)
        open_.pop()
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
