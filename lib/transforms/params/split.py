"""Split a model into work on its weights, done once, and work on its inputs, done on each call.

The calling convention of an optimised module:

* ``main`` came with the attribute ``num_input = k`` and parameters ``(input_0 … input_{k-1}, weight_0 …
  weight_{n-1})``, ``n > 0``. It leaves as ``main(input_0 … input_{k-1}, model_params)``, where
  ``model_params`` is one tuple, and a second function ``main_transform_params(weights) -> model_params``
  appears. ``weights`` is the tuple of the ``n`` original weights in their order; weights that ``main``
  does not use are accepted and ignored.
* The runtime calls ``main_transform_params`` once, with a list of the ``n`` original tensors, keeps the
  ``tvm_ffi.Array`` that comes back, and passes that same object as the last argument of every call of
  ``main``. Tensors in it may alias the original weights (a bias that is used as it is).
* Where PyTorch can do every operation of that function, the function is replaced by the module attribute
  ``PROGRAM``, which the runtime runs in PyTorch (:mod:`torch_tvm.transforms.params.weight_prepacking`).
* A module whose ``main`` has no ``num_input``, or no parameter after its inputs, keeps ``main`` as it is
  and gets no ``main_transform_params``.

Everything in ``main`` that depends on weights alone moves: transposed weights, packed weights
(:mod:`torch_tvm.transforms.matmul.pack_weights`), folded batch norms, concatenated QKV weights.

Cost, measured with 160 weights of a chain of 160 tiny kernels: the tuple as one argument does not depend on
its length at the call; each weight that is read costs 0.12 µs (``tuple_getitem``) and as much again for the
``kill_object`` of its register. 160 separate arguments cost 200 µs, a Python list 260 µs, constants of
the executable nothing, but those cannot be replaced (``load_state_dict``) or stored outside the code.
"""

from __future__ import annotations

import tvm
from tvm import relax

from torch_tvm.support.attributes import PROGRAM, TRANSFORM_PARAMS
from torch_tvm.transforms.base import Level, Transform


class LiftParams(Transform):
    """What depends on weights alone moves from ``main`` into ``main_transform_params``.

    ``main(x, w) = x @ pack(w)``  →  ``main(x, p) = x @ p`` and ``main_transform_params(w) = pack(w)``

    Runs after the graph passes and before fusion, so that no fused kernel packs a weight.
    ``main`` keeps its attribute ``num_input`` and takes the transformed weights one by one, until
    :class:`BundleParams`.
    """

    level = Level.WEIGHTS

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        if not _has_weights(mod):
            return mod
        lifted = relax.transform.LiftTransformParams()(_with_named_result(mod))
        gvar = lifted.get_global_var(TRANSFORM_PARAMS)
        # LiftTransformParams leaves num_input = 0 there: BundleModelParams would wrap the tuple again.
        lifted.update_func(gvar, lifted[gvar].without_attr("num_input"))
        return lifted


def _with_named_result(mod: tvm.IRModule) -> tvm.IRModule:
    """``return (weight, y)`` becomes ``result = (weight, y); return result``.

    ``LiftTransformParams`` takes a weight for unused, and leaves it undefined, that only the former reads; blocks
    after a branch end so.
    """
    main = mod["main"]
    if isinstance(main.body.body, relax.Var):
        return mod
    result = relax.Var("result", main.body.body.ty)
    block = relax.BindingBlock([relax.VarBinding(result, main.body.body)])
    body = relax.SeqExpr([*main.body.blocks, block], result)
    named = relax.BlockBuilder(mod).get()
    named.update_func(
        mod.get_global_var("main"), relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
    )
    return named


class BundleParams(Transform):
    """The weights of ``main`` become one tuple parameter, ``model_params``, its last.

    ``main(x, w0, w1)``  →  ``main(x, model_params)``
    """

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        is_lifted = any(gvar.name_hint == TRANSFORM_PARAMS for gvar in mod.get_global_vars())
        is_lifted = is_lifted or bool(mod.attrs and PROGRAM in mod.attrs)
        return relax.transform.BundleModelParams()(mod) if is_lifted else mod


def _has_weights(mod: tvm.IRModule) -> bool:
    if not any(gvar.name_hint == "main" for gvar in mod.get_global_vars()):
        return False
    main = mod["main"]
    if not isinstance(main, relax.Function) or not main.attrs or "num_input" not in main.attrs:
        return False
    return len(main.params) > int(main.attrs["num_input"])
