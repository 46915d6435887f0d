"""Sizes before what has them: fusion orders kernels by the values that they read, and a symbol is none."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import tvm
import tvm_ffi
from tvm import relax

from torch_tvm.transforms.base import Transform


class OrderSizes(Transform):
    """A ``match_cast`` stands before what has its symbol; it comes right after FuseOps::

    gv1 = call_tir(select, (x,), Tensor((n,)))        gv0 = match_cast(lv, Shape([n]))
    gv0 = match_cast(lv, Shape([n]))             →    gv1 = call_tir(select, (x,), Tensor((n,)))

    Where FuseOps has joined what makes a size with what needs it, they are kernels of their own again.
    """

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        changed = {}
        for name, function in mod.functions_items():
            if isinstance(function, relax.Function) and isinstance(function.body, relax.SeqExpr):
                new = _in_order(function, mod)
                if new is not function:
                    changed[name] = new
        if not changed:
            return mod
        return tvm.IRModule({**dict(mod.functions_items()), **changed}, attrs=mod.attrs)


class _Cycle(Exception):
    """Bindings that need each other; ``fused`` are the calls of kernels among them."""

    def __init__(self, fused: Sequence[relax.Call]) -> None:
        super().__init__()
        self.fused = fused


def _in_order(function: relax.Function, mod: tvm.IRModule) -> relax.Function:
    given = {symbol.__chandle__() for param in function.params for symbol in _defined(param.ty)}
    while True:
        try:
            blocks = [_ordered(block, given) for block in function.body.blocks]
        except _Cycle as cycle:
            if not cycle.fused:
                return function
            function = _taken_apart(function, cycle.fused, mod)
            continue
        if all(new is old for new, old in zip(blocks, function.body.blocks, strict=True)):
            return function
        body = relax.SeqExpr(blocks, function.body.body)
        return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


def _taken_apart(function: relax.Function, calls: Sequence[relax.Call], mod: tvm.IRModule) -> relax.Function:
    """The function with the bindings of fused kernels in the place of their calls."""
    named = tvm.IRModule({"main": function})
    for call in calls:  # each under a name of its own, as it has the sizes of this call
        name = tvm.ir.GlobalVar(f"{call.op.name_hint}_apart")
        again = lambda old, call=call, name=name: relax.Call(name, call.args) if old.same_as(call) else old
        body = tvm_ffi.structural_map(named["main"].body, (relax.Call, again))
        main = named["main"]
        main = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
        kernel = mod[call.op].without_attr("Primitive").bind_symbolic_vars(_sizes(mod[call.op], call))
        named = tvm.IRModule({"main": main.inline_functions({name: kernel})})
    passes = [relax.transform.Normalize(), relax.transform.ConvertToDataflow(1)]
    return tvm.transform.Sequential(passes)(named)["main"]


def _sizes(kernel: relax.Function, call: relax.Call) -> dict[tvm.ir.Var, tvm.ir.Expr]:
    """What the symbols of a kernel are in one of its calls."""
    found: dict[tvm.ir.Var, tvm.ir.Expr] = {}
    for param, value in zip(kernel.params, call.args, strict=True):
        own, given = getattr(param.ty, "shape", None), getattr(value.ty, "shape", None)
        if own is None or given is None:
            own, given = getattr(param.ty, "values", None), getattr(value.ty, "values", None)
        for size, actual in zip(own or (), given or (), strict=True):
            if isinstance(size, tvm.ir.Var) and not size.same_as(actual):
                found.setdefault(size, actual)
    return found


def _defined(kind: tvm.ir.Type) -> list[tvm.ir.Expr]:
    """The symbols that a value of this type says the values of."""
    return list(relax.analysis.definable_tir_vars_in_type(kind))


def _ordered(block: relax.BindingBlock, given: Collection[int]) -> relax.BindingBlock:
    """The block with each binding after those that it needs, otherwise in its order. Raises :class:`_Cycle`.

    Symbols in ``given`` are known before it.
    """
    bindings = list(block.bindings)
    makers: dict[int, int] = {}
    for index, binding in enumerate(bindings):
        if isinstance(binding, relax.MatchCast):
            for symbol in _defined(binding.ty):
                if symbol.__chandle__() not in given:
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
            calls = [value for value in values if isinstance(value, relax.Call)]
            raise _Cycle([call for call in calls if isinstance(call.op, tvm.ir.GlobalVar)])
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
    """The symbols of what a binding has, and of the shapes and numbers that it is given."""
    found = list(relax.analysis.tir_vars_in_type(binding.var.ty))

    def visit(part: relax.Expr) -> None:
        if isinstance(part, relax.ShapeExpr):
            found.extend(relax.analysis.tir_vars_in_type(part.ty))
        elif isinstance(part, tvm.ir.Var) and isinstance(part.ty, tvm.ir.PrimType):
            found.append(part)

    relax.analysis.post_order_visit(binding.value, visit)
    return found


__all__ = ["OrderSizes"]
