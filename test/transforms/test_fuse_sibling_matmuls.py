"""Q, K and V projections become one product, and only where attention reads its parts in place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import tvm
from tvm import relax

from torch_tvm.backends import build, optimize, schedule
from torch_tvm.runtime.weights.weights_program import pack_weights
from torch_tvm.schedules.target import host_target
from torch_tvm.transforms.matmul.fuse_siblings import FuseSiblingMatmuls

op = relax.op
TOKENS, HEADS, DEPTH = 9, 3, 8
WIDTH = HEADS * DEPTH


def module(biases: tuple[bool, bool, bool], is_attention: bool = True, key_width: int = WIDTH) -> tvm.IRModule:
    var = lambda name, *shape: relax.Var(name, relax.TensorType(shape, "float32"))
    x = var("x", 2, TOKENS, WIDTH)
    widths = (WIDTH, key_width, WIDTH)
    weights = [var(f"w{i}", n, WIDTH) for i, n in enumerate(widths)]
    bias = [var(f"b{i}", n) for i, n in enumerate(widths)]
    builder = relax.BlockBuilder()
    emit = builder.emit
    with builder.function("main", [x, *weights, *bias], attrs={"num_input": 1}):
        with builder.dataflow():
            parts = []
            for w, b, has_bias in zip(weights, bias, biases, strict=True):
                y = emit(op.matmul(x, emit(op.permute_dims(w))))
                parts.append(emit(op.add(y, b)) if has_bias else y)
            if is_attention:
                heads = [emit(op.reshape(p, (2, TOKENS, HEADS, DEPTH))) for p in parts]
                result = emit(op.nn.attention(*heads))
            else:
                result = emit(op.multiply(emit(op.multiply(parts[0], parts[1])), parts[2]))
            result = builder.emit_output(result)
        builder.emit_func_output(result)
    return builder.get()


def count(mod: tvm.IRModule, name: str) -> int:
    found = []
    relax.analysis.post_order_visit(
        mod["main"],
        lambda e: found.append(e) if isinstance(e, relax.Call) and e.op == tvm.ir.Op.get(name) else None,
    )
    return len(found)


def run(mod: tvm.IRModule, x: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    target = host_target()
    scheduled, _ = schedule(optimize(mod, target), target)
    vm = relax.VirtualMachine(build(scheduled, target), tvm.cpu())
    return torch.from_dlpack(vm["main"](x, pack_weights(scheduled, vm, weights)))


def reference(x: torch.Tensor, weights: list[torch.Tensor], biases: tuple[bool, ...]) -> torch.Tensor:
    q, k, v = (
        F.linear(x, w, b if has else None).view(2, TOKENS, HEADS, DEPTH).transpose(1, 2)
        for w, b, has in zip(weights[:3], weights[3:], biases, strict=True)
    )
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def check(biases: tuple[bool, bool, bool]) -> None:
    x = torch.randn(2, TOKENS, WIDTH)
    weights = [torch.randn(WIDTH, WIDTH) for _ in range(3)] + [torch.randn(WIDTH) for _ in range(3)]
    torch.testing.assert_close(run(module(biases), x, weights), reference(x, weights, biases), rtol=1e-4, atol=1e-4)


def test_three_projections_become_one() -> None:
    fused = FuseSiblingMatmuls().run(module((True, True, True)))
    assert count(fused, "relax.matmul") == 1
    assert count(fused, "relax.split") == 1
    check((True, True, True))


def test_projections_without_bias() -> None:
    assert count(FuseSiblingMatmuls().run(module((False, False, False))), "relax.matmul") == 1
    check((False, False, False))


def test_biased_and_unbiased_projections_stay_apart() -> None:
    """Whisper's keys have no bias: queries and values are fused, keys are not."""
    assert count(FuseSiblingMatmuls().run(module((True, False, True))), "relax.matmul") == 2
    check((True, False, True))


def test_parts_reach_attention_without_a_copy() -> None:
    mod = optimize(module((True, True, True)), host_target())
    calls = []
    relax.analysis.post_order_visit(
        mod["main"],
        lambda e: calls.append(e) if isinstance(e, relax.Call) and e.op == tvm.ir.Op.get("relax.call_tir") else None,
    )
    assert len(calls) == 2


def test_other_consumers_keep_their_own_products() -> None:
    assert count(FuseSiblingMatmuls().run(module((True, True, True), is_attention=False)), "relax.matmul") == 3
