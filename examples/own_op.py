"""An operator of your own, compiled: one lowered to Relax ops, one to a kernel with loops that you choose.

``python examples/own_op.py``
"""

import torch
from tvm import relax, s_tir, te, tirx

import torch_tvm
from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.registry import Number, Tensor


@torch.library.custom_op("example::soft_clip", mutates_args=())
def soft_clip(x: torch.Tensor, limit: float) -> torch.Tensor:
    """``limit * tanh(x / limit)``"""
    return limit * torch.tanh(x / limit)


@soft_clip.register_fake
def _(x: torch.Tensor, limit: float) -> torch.Tensor:
    return torch.empty_like(x)


@torch_tvm.register_lowering("example::soft_clip")
def lower_soft_clip(b: Builder, x: Tensor, limit: Number) -> relax.Expr:
    """As Relax ops: they are fused with what stands before and after."""
    bound = b.const(limit, b.dtype(x))
    scaled = b.emit(relax.op.tanh(b.emit(relax.op.divide(x, bound))))
    return b.emit(relax.op.multiply(scaled, bound))


@torch.library.custom_op("example::differences", mutates_args=())
def differences(x: torch.Tensor) -> torch.Tensor:
    """The absolute difference of every pair of rows: ``[n, k]`` to ``[n, n]``."""
    return (x[:, None] - x[None]).abs().sum(-1)


@differences.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape[0], x.shape[0])


@torch_tvm.register_lowering("example::differences")
def lower_differences(b: Builder, x: Tensor) -> relax.Expr:
    """As a tensor expression with a schedule: rows in parallel, a vector of sums for eight columns."""
    if b.dtype(x) != "float32" or any(not isinstance(size, int) or size % 8 for size in b.shape(x)):
        # the op runs in PyTorch, and the warning says why
        b.unsupported("it takes float32, and sizes in eights")
    rows, length = (tirx.const(size, "int64") for size in b.shape(x))
    data = te.placeholder((rows, length), "float32", "data")
    axis = te.reduce_axis((0, length), "axis")
    result = te.compute(
        (rows, rows),
        lambda i, j: te.sum(tirx.abs(data[i, axis] - data[j, axis]), axis=axis),
        "differences",
    )
    schedule = s_tir.Schedule(te.create_prim_func([data, result]))
    block = schedule.get_sblock("differences")
    i, j, k = schedule.get_loops(block)
    outer, lanes = schedule.split(j, [None, 8])
    schedule.reorder(i, outer, k, lanes)
    schedule.parallel(i)
    schedule.vectorize(lanes)
    schedule.decompose_reduction(block, k)
    # no rule schedules it again, and nothing is fused into it
    attributes = {"tirx.is_scheduled": True, "op_pattern": 8}
    kernel = schedule.mod["main"].without_attr("global_symbol").with_attrs(attributes)
    return b.emit(relax.call_tir(b.bb.add_func(kernel, "differences"), [x], relax.TensorType([rows, rows], "float32")))


class Net(torch.nn.Module):
    """Uses both."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(20, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return differences(soft_clip(self.linear(x), 0.5)).softmax(-1)


def main() -> None:
    net, x = Net().eval().requires_grad_(False), torch.randn(16, 20)
    compiled = torch_tvm.compile(net, (x,), fallback=False)
    torch.testing.assert_close(compiled(x), net(x))
    print("kernels:", ", ".join(kernel.name for kernel in compiled.report.kernels))
    inside = torch.compile(net, backend="torch_tvm", options={"fallback": False})
    torch.testing.assert_close(inside(x), net(x))
    print("results agree with eager PyTorch")


if __name__ == "__main__":
    main()
