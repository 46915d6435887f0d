"""What the library does, replaced for one compile: the lowering of an op, and a schedule rule.

``python examples/own_rules.py``
"""

from typing import Any

import torch
import tvm
from tvm import relax, s_tir, tirx

import torch_tvm
from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.registry import Tensor
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal


def quick_gelu(b: Builder, x: Tensor, approximate: str) -> relax.Expr:
    """``x * sigmoid(1.702 x)``; what it refuses is left to the library's own lowering."""
    if approximate != "none":
        b.unsupported("only the exact one is replaced")
    gate = b.emit(relax.op.sigmoid(b.emit(relax.op.multiply(x, b.const(1.702, b.dtype(x))))))
    return b.emit(relax.op.multiply(x, gate))


class OneLoop:
    """Kernels without a sum: all of it where the result is made, all loops one, in vectors of the processor."""

    name = "one loop"

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        schedule = s_tir.Schedule(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}))
        blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
        if any(axis.iter_type != 0 for block in blocks for axis in schedule.get(block).iter_vars):
            raise Refusal("a block sums")
        for block in blocks[:-1]:
            schedule.compute_inline(block)
        fused = schedule.fuse(*schedule.get_loops(blocks[-1]))
        _, lanes = schedule.split(fused, [None, cpu.lanes("float32")])
        schedule.vectorize(lanes)
        return func.with_body(schedule.mod["main"].body)


def main() -> None:
    x = torch.randn(8, 32)
    net = torch.nn.GELU()
    options: dict[str, Any] = {"lowerings": {"aten.gelu": quick_gelu}, "rules": [OneLoop()]}
    compiled = torch_tvm.compile(net, (x,), fallback=False, options=options)
    torch.testing.assert_close(compiled(x), x * torch.sigmoid(1.702 * x))
    print("rules:", ", ".join(f"{kernel.name}: {kernel.rule}" for kernel in compiled.report.kernels))
    assert {kernel.rule for kernel in compiled.report.kernels} == {"one loop"}
    tanh = torch.nn.GELU(approximate="tanh")  # which the replacement refuses
    torch.testing.assert_close(torch_tvm.compile(tanh, (x,), options=options)(x), tanh(x))
    torch.testing.assert_close(torch_tvm.compile(net, (x,), fallback=False)(x), net(x))
    print("the next compile is the library's own again")


if __name__ == "__main__":
    main()
