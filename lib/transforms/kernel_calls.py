"""Calls of kernels that are made once for all layers of a kind."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import tvm
from tvm import relax
from tvm.ir import Expr

from torch_tvm.tir import static


class KernelCalls:
    """The kernels that one builder has made: TVM takes milliseconds for each, and networks repeat themselves."""

    def __init__(self, builder: relax.BlockBuilder) -> None:
        self.builder = builder
        self.made: dict[Hashable, tuple[tvm.ir.GlobalVar, tvm.ir.Type]] = {}

    def call(
        self,
        name: str,
        compute: Callable[..., Any],
        operands: Sequence[relax.Expr],
        what: Hashable,
        spatial: Sequence[Expr] | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> relax.Call:
        """``compute(*operands, what)``, or ``compute(*operands, what, spatial)``, as a call of a kernel ``name``.

        Calls with the same ``name``, ``what``, sizes and dtypes share a kernel, so those must fix ``compute`` and
        ``attrs``.
        """
        count = len(operands)
        sizes = [tuple(map(static, operand.ty.shape)) for operand in operands]
        sizes.append(tuple(map(static, spatial or [])))
        key = (name, what, *sizes, *(str(operand.ty.dtype) for operand in operands))
        if key in self.made:
            gvar, result = self.made[key]
            return relax.call_tir(gvar, relax.Tuple(list(operands)), result)
        call = self.builder.call_te(
            lambda *given: compute(*given[:count], what, *given[count:]),
            *operands,
            *([] if spatial is None else [list(spatial)]),
            primfunc_name_hint=name,
            primfunc_attrs=dict(attrs or {}),
        )
        assert isinstance(call, relax.Call), call
        if not any(None in shape for shape in sizes):
            self.made[key] = call.args[0], call.ty_args[0]
        return call
