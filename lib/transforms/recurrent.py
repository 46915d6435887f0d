"""Pack the recurrent weights of layers for :mod:`torch_tvm.schedules.cpu.recurrent.rule`.

    call_tir(lstm, (x, h, c, w))              # w: [D, G * H, H]
becomes
    p = pack(w)                               # [D, ceil(H / W), H, G * W]: W hidden units with all their gates
    call_tir(lstm_packed, (x, h, c, p))

A last panel that is not full moves back until it fits, as in the kernel.
"""

from __future__ import annotations

import json

import tvm
import tvm_ffi
from tvm import relax, te, tirx
from tvm.ir import Expr, TensorLoad
from tvm.s_tir import SBlock, SBlockRealize

from torch_tvm.schedules.cpu.recurrent.rule import choose_panel
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.attributes import RECURRENT
from torch_tvm.tir import ceil_div
from torch_tvm.transforms.base import Transform, current_cpu
from torch_tvm.transforms.params.weight_prepacking import Steps, host_attribute


class PackRecurrentWeights(Transform):
    """Recurrent weights of layers are packed for their kernel; those that are no parameters, on each call.

    ``call_tir(lstm, (x, h, c, w))``  →  ``call_tir(lstm_packed, (x, h, c, pack(w)))``
    """

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        layers = {g: f for g, f in mod.functions_items() if f.attrs and RECURRENT in f.attrs}
        if not layers:
            return mod
        cpu = current_cpu()
        for gvar, func in mod.functions_items():
            if isinstance(func, relax.Function):
                mod = _Packer(mod, layers, cpu).run(gvar, func)
        return relax.transform.DeadCodeElimination()(mod)


@relax.expr_functor.mutator
class _Packer(relax.PyExprMutator):
    def __init__(
        self, mod: tvm.IRModule, layers: dict[tvm.ir.GlobalVar, tirx.PrimFunc], cpu: CpuModel
    ) -> None:
        super().__init__(mod)
        self.layers = layers
        self.cpu = cpu

    def run(self, gvar: tvm.ir.GlobalVar, func: relax.Function) -> tvm.IRModule:
        self.builder_.update_func(gvar, self.visit_expr(func))
        return self.builder_.get()

    def visit_call_(self, call: relax.Call) -> Expr:
        layer = self.layers.get(call.args[0]) if call.op == tvm.ir.Op.get("relax.call_tir") else None
        if layer is None:
            return super().visit_call_(call)
        facts = json.loads(str(layer.attrs[RECURRENT]))
        which, gates = 1 + facts["states"], facts["gates"]
        fields = [self.visit_expr(field) for field in call.args[1].fields]
        shape = [int(size) for size in layer.params[which].shape]
        width = choose_panel(shape[2], gates, str(layer.params[which].dtype), self.cpu).width
        fields[which] = self.builder_.emit(
            self.builder_.call_te(
                pack,
                fields[which],
                gates,
                width,
                primfunc_name_hint="pack_weight",
                primfunc_attrs=host_attribute(pack_steps(shape, gates, width)),
            )
        )
        packed = with_packed_weights(layer, which, gates, width)
        gvar = self.builder_.add_func(packed, f"{facts['cell']}_packed")
        return relax.call_tir(gvar, relax.Tuple(fields), list(call.ty_args[0].fields), *call.args[2:])


def pack(w: te.Tensor, gates: int, width: int) -> te.Tensor:
    """``w`` ``[D, G * H, H]`` as ``[D, ceil(H / width), H, G * width]``."""
    directions, _, hidden = (int(size) for size in w.shape)

    def element(d: tirx.Var, panel: tirx.Var, k: tirx.Var, column: tirx.Var) -> Expr:
        first = tirx.min(panel * width, tirx.const(hidden - width, "int64"))
        return w[d, column // width * hidden + first + column % width, k]

    return te.compute((directions, ceil_div(hidden, width), hidden, gates * width), element, name="pack")


def pack_steps(shape: list[int], gates: int, width: int) -> Steps:
    """What :func:`pack` does, for the runtime."""
    directions, _, hidden = shape
    panels = ceil_div(hidden, width)
    return [
        ["reshape", [directions, gates, hidden, hidden]],
        ["windows", [2, width]],
        ["permute", [0, 2, 4, 1, 3]],
        ["reshape", [directions, panels, hidden, gates * width]],
    ]


def with_packed_weights(layer: tirx.PrimFunc, which: int, gates: int, width: int) -> tirx.PrimFunc:
    """``layer`` with its parameter ``which``, the weights, in the layout of :func:`pack`."""
    old = layer.params[which]
    directions, _, hidden = (int(size) for size in old.shape)
    panels = ceil_div(hidden, width)
    new = tirx.decl_buffer((directions, panels, hidden, gates * width), str(old.dtype), "packed")

    def visit(load: TensorLoad) -> Expr:
        if not load.source.same_as(old):
            return load
        d, row, k = load.indices
        gate, unit = row // hidden, row % hidden
        panel = tirx.min(unit // width, tirx.const(panels - 1, "int64"))
        lane = unit - tirx.min(panel * width, tirx.const(hidden - width, "int64"))
        return tirx.BufferLoad(new, [d, panel, k, gate * width + lane])

    body = tvm_ffi.structural_map(layer.body.block.body, (TensorLoad, visit))
    params = [new if param.same_as(old) else param for param in layer.params]
    root = SBlockRealize([], tirx.const(True, "bool"), SBlock([], [], [], "root", body))
    return tirx.PrimFunc(params, root, layer.ret_type, layer.attrs)
