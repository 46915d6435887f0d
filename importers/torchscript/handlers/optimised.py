"""Undoes what ``torch.jit.freeze`` and ``torch.jit.optimize_for_inference`` did for ATen on a CPU.

Those passes put tensors into an opaque oneDNN layout; here a tensor has no layout, so the conversions vanish.
"""

from __future__ import annotations

from typing import Any

import torch

from torch_tvm.importers.torchscript.evaluator import Evaluator, Handler
from torch_tvm.importers.torchscript.handlers import tensors
from torch_tvm.importers.torchscript.handlers.registry import handles

aten = torch.ops.aten

ADVICE = "import the module before torch.jit.optimize_for_inference or quantisation"
_CONVOLUTIONS = {3: aten.conv1d.default, 4: aten.conv2d.default, 5: aten.conv3d.default}


def is_optimised(kind: str) -> bool:
    """Whether only an optimisation pass can have put this kind of node there."""
    namespace, _, name = kind.partition("::")
    known = (
        "quantized",
        "mkldnn_prepacked",
        "mkldnn",
        "prepacked",
        "xnnpack",
        "onednn",
        "cudnn",
        "tensorexpr",
    )
    return namespace in known or name.lower().startswith(("mkldnn", "constantmkldnn", "tensorexprgroup", "cudnn"))


@handles("prim::ConstantMKLDNNTensor")
def _constant(ev: Evaluator, args: list[Any]) -> Any:
    raw = ev.instruction.node.t("value")
    name = ev.instruction.node.output().debugName().removeprefix("self.")
    kept = ev.objects.unpacked.get(name)
    if kept is None:
        kept = ev.objects.unpacked[name] = raw.to_dense() if raw.is_mkldnn else raw
    return ev.objects.tensor(kept, name)


@handles("prim::mkldnn_convolution")
def _convolution(ev: Evaluator, args: list[Any]) -> Any:
    x, weight, bias, stride, padding, dilation, groups = args
    overload = _CONVOLUTIONS.get(x.meta.dim())
    if overload is None or weight.meta.dim() != x.meta.dim():
        raise ev.failure("this packed convolution cannot be unpacked", advice=ADVICE)
    return tensors.call(ev, overload, [x, weight, bias, stride, padding, dilation, groups])


@handles("aten::to_mkldnn", "aten::to_dense")
def _same(ev: Evaluator, args: list[Any]) -> Any:
    if len(args) > 1 and isinstance(args[1], int):
        return tensors.call(ev, aten.to.dtype, [args[0], args[1], False, False, None])
    return args[0]


def _clamp(overload: torch._ops.OpOverload) -> Handler:
    def clamp(ev: Evaluator, args: list[Any]) -> Any:
        node = ev.instruction.node
        return tensors.call(ev, overload, [args[0], node.f("min_val"), node.f("max_val")])

    return clamp


def _call(overload: torch._ops.OpOverload) -> Handler:
    return lambda ev, args: tensors.call(ev, overload, args)


handles("prim::BroadcastMKLDNNTensors")(lambda ev, args: args)
for _name, _handler in {
    "MKLDNNHardSwish": _call(aten.hardswish.default),
    "MKLDNNHardSigmoid": _call(aten.hardsigmoid.default),
    "MKLDNNHardTanh": _clamp(aten.hardtanh.default),
    "MKLDNNClamp": _clamp(aten.clamp.default),
    "MKLDNNScalarMul": _call(aten.mul.Scalar),
}.items():
    handles(f"prim::{_name}", f"prim::{_name}_")(_handler)
