"""Several ops that become one kernel of yours, wherever they stand in a program.

A function of the Relax module, run after lowering, finds the pattern and puts one call in its place.

``python examples/own_pattern.py``
"""

from typing import Any

import torch
import tvm
from tvm import relax, te, tirx
from tvm.relax.dpl import is_const, is_op, rewrite_call, wildcard

import torch_tvm


class InverseRoot(torch.nn.Module):
    """``x / sqrt(x² + 1)``, between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(32, 64), torch.nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.up(x)
        return self.down(y * torch.rsqrt(y * y + 1))


taken: list[str] = []


def inverse_root(x: te.Tensor) -> te.Tensor:
    """The kernel, as a tensor expression: the schedule rules of the library take it from here."""
    one = tirx.const(1, x.dtype)
    return te.compute(x.shape, lambda *i: x(*i) / tirx.sqrt(x(*i) * x(*i) + one), name="inverse_root")


def fuse_inverse_root(mod: tvm.IRModule) -> tvm.IRModule:
    """``multiply(x, rsqrt(add(multiply(x, x), 1)))``  →  ``inverse_root(x)``"""
    data = wildcard()
    squared = is_op("relax.multiply")(data, data)
    root = is_op("relax.rsqrt")(is_op("relax.add")(squared, is_const()))
    pattern = is_op("relax.multiply")(data, root)
    builder = relax.BlockBuilder(mod)

    def replace(call: relax.Call, found: dict[Any, relax.Expr]) -> relax.Expr:
        taken.append("inverse_root")
        return builder.call_te(inverse_root, found[data], primfunc_name_hint="inverse_root")

    main = rewrite_call(pattern, replace, mod["main"])
    builder.update_func(mod.get_global_var("main"), main)
    return builder.get()


def main() -> None:
    net, x = InverseRoot().eval().requires_grad_(False), torch.randn(4, 32)
    options = {"passes": {"after-lowering": [fuse_inverse_root]}}
    compiled = torch_tvm.compile(net, (x,), fallback=False, options=options)
    torch.testing.assert_close(compiled(x), net(x))
    names = [kernel.name for kernel in compiled.report.kernels]
    assert taken == ["inverse_root"] and any("inverse_root" in name for name in names), names
    print("kernels:", ", ".join(names))
    print("results agree with eager PyTorch")


if __name__ == "__main__":
    main()
