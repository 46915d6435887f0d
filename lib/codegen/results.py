"""The results of ``main``: unwrapped when there is one, and whether they depend on the inputs at all."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax


def unwrap_single_result(mod: tvm.IRModule) -> tvm.IRModule:
    """``main(…) -> (y,)`` becomes ``main(…) -> y``: the VM hands over one tensor without making an array.

    Any other module is returned as it is.
    """
    main = mod["main"]
    if not isinstance(main.ret_ty, relax.TupleType) or len(main.ret_ty.fields) != 1:
        return mod
    if not isinstance(main.ret_ty.fields[0], relax.TensorType):
        return mod
    builder = relax.BlockBuilder(mod)
    body = main.body
    result = relax.Var("result", main.ret_ty.fields[0])
    last = relax.BindingBlock([relax.VarBinding(result, relax.TupleGetItem(body.body, 0))])
    body = relax.SeqExpr([*body.blocks, last], result)
    unwrapped = relax.Function(main.params, body, result.ty, main.is_pure, main.attrs)
    mod = builder.get()
    mod.update_func(mod.get_global_var("main"), unwrapped)
    for step in (
        relax.transform.Normalize(),
        relax.transform.CanonicalizeBindings(),
        relax.transform.ConvertToDataflow(),
    ):
        mod = step(mod)
    return mod


def keep_weights_in_main(mod: tvm.IRModule) -> tvm.IRModule:
    """Drop ``num_input`` from a ``main`` none of whose results depends on an input, or with sizes from weights.

    ``LiftTransformParams`` would move all of the former, the returned tuple included, and leave an undefined
    variable. Of the latter it would move tensors whose shape nobody knows, which ``VMShapeLower`` cannot take.
    """
    main = mod["main"]
    if not main.attrs or "num_input" not in main.attrs:
        return mod
    dependent = _dependent(main)
    results = any(variable in dependent for variable in relax.analysis.free_vars(main.body.body))
    if results and not _has_sizes_of_weights(main, dependent):
        return mod
    mod = relax.BlockBuilder(mod).get()
    mod.update_func(mod.get_global_var("main"), main.without_attr("num_input"))
    return mod


def _dependent(main: relax.Function) -> set[Any]:
    """The variables whose value follows from an input."""
    dependent = set(main.params[: int(main.attrs["num_input"])])
    for block in main.body.blocks:
        for binding in block.bindings:
            if any(variable in dependent for variable in relax.analysis.free_vars(binding.value)):
                dependent.add(binding.var)
    return dependent


def _has_sizes_of_weights(main: relax.Function, dependent: set[Any]) -> bool:
    """Whether the shape of a value that follows from weights alone is known only when it is computed."""
    return any(
        isinstance(binding, relax.MatchCast) and binding.var not in dependent
        for block in main.body.blocks
        for binding in block.bindings
    )


__all__ = ["keep_weights_in_main", "unwrap_single_result"]
