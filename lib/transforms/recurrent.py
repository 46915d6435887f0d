"""Pack the recurrent weights of layers for :mod:`torch_tvm.schedules.cpu.recurrent.rule`.

    call_tir(lstm, (x, h, c, w))              # w: [D, G * H, H]
becomes
    p = pack(w)                               # [D, ceil(H / W), H, G * W]: W hidden units with all their gates
    call_tir(lstm_packed, (x, h, c, p))

A last panel that is not full moves back until it fits, as in the kernel.
"""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.ir import Expr, TensorLoad
from tvm.s_tir import SBlock, SBlockRealize

from torch_tvm.schedules.cpu.recurrent.rule import choose_panel
from torch_tvm.schedules.target import CpuModel
from torch_tvm.transforms.base import Level, Transform, current_cpu, rewrite_function
from torch_tvm.workloads.recurrent import GatePanels, RecurrentWorkload


class PackRecurrentWeights(Transform):
    """Recurrent weights of layers are packed for their kernel; those that are no parameters, on each call.

    ``call_tir(lstm, (x, h, c, w))``  →  ``call_tir(lstm_packed, (x, h, c, pack(w)))``
    """

    level = Level.WEIGHTS

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        layers = {g: f for g, f in mod.functions_items() if RecurrentWorkload.from_attr(f.attrs)}
        if not layers:
            return mod
        cpu = current_cpu()
        for gvar, func in mod.functions_items():
            if isinstance(func, relax.Function):
                mod = rewrite_function(_Packer(mod, layers, cpu), gvar, func)
        return relax.transform.DeadCodeElimination()(mod)


@relax.expr_functor.mutator
class _Packer(relax.PyExprMutator):
    def __init__(self, mod: tvm.IRModule, layers: dict[tvm.ir.GlobalVar, tirx.PrimFunc], cpu: CpuModel) -> None:
        super().__init__(mod)
        self.layers = layers
        self.cpu = cpu

    def visit_call_(self, call: relax.Call) -> Expr:
        layer = self.layers.get(call.args[0]) if call.op == tvm.ir.Op.get("relax.call_tir") else None
        workload = RecurrentWorkload.from_attr(layer.attrs) if layer is not None else None
        if layer is None or workload is None:
            return super().visit_call_(call)
        which, gates = 1 + workload.states, workload.gates
        fields = [self.visit_expr(field) for field in call.args[1].fields]
        directions, _, hidden = (int(size) for size in layer.params[which].shape)
        width = choose_panel(hidden, gates, str(layer.params[which].dtype), self.cpu).width
        panels = GatePanels(directions, gates, hidden, width)
        packing = panels.packing()
        fields[which] = self.builder_.emit(
            self.builder_.call_te(
                packing.compute,
                fields[which],
                primfunc_name_hint="pack_weight",
                primfunc_attrs=packing.to_attr(),
            )
        )
        packed = with_packed_weights(layer, which, panels)
        gvar = self.builder_.add_func(packed, f"{workload.cell}_packed")
        return relax.call_tir(gvar, relax.Tuple(fields), list(call.ty_args[0].fields), *call.args[2:])


def with_packed_weights(layer: tirx.PrimFunc, which: int, panels: GatePanels) -> tirx.PrimFunc:
    """``layer`` with its parameter ``which``, the weights, in ``panels``."""
    old = layer.params[which]
    new = tirx.decl_buffer(panels.shape, str(old.dtype), "packed")

    def visit(load: TensorLoad) -> Expr:
        return tirx.BufferLoad(new, panels.place(*load.indices)) if load.source.same_as(old) else load

    body = tvm_ffi.structural_map(layer.body.block.body, (TensorLoad, visit))
    params = [new if param.same_as(old) else param for param in layer.params]
    root = SBlockRealize([], tirx.const(True, "bool"), SBlock([], [], [], "root", body))
    return tirx.PrimFunc(params, root, layer.ret_type, layer.attrs)
