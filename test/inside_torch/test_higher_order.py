"""Loops and attention of PyTorch's higher-order ops under ``torch.compile(backend="torch_tvm")``, with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._higher_order_ops._invoke_quant import InvokeQuant
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.map import map as mapped
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.utils import _pytree as pytree

from torch_tvm.dynamo import GraphNotCompiled

pytestmark = pytest.mark.usefixtures("everything_is_compiled")


WEIGHT = torch.eye(4) + 0.3
BIAS = torch.linspace(-1, 1, 8)
MASK = create_block_mask(lambda b, h, q, k: q >= k, 1, 1, 8, 8, device="cpu")


def over_rows(x: torch.Tensor, y: torch.Tensor) -> Any:
    return mapped(lambda a, b: (a.sin() @ b, a + 1), x, y)


def recurrence(start: torch.Tensor, x: torch.Tensor) -> Any:
    return scan(lambda carry, a: (torch.tanh(carry @ WEIGHT + a), carry * 2), start, x)


def backwards(start: torch.Tensor, x: torch.Tensor) -> Any:
    step = lambda carry, a: (torch.tanh(carry + a), carry * 2)
    return scan(step, start, x, reverse=True, dim=1)


def marked(x: torch.Tensor) -> Any:
    return InvokeQuant()(lambda a, b: (a.sin() * b,), x, x * 2)[0] + 1


def products(x: torch.Tensor) -> Any:
    return associative_scan(lambda a, b: a * b, x, 0, combine_mode="generic")


LOOPS: dict[str, tuple[Callable[..., Any], list[torch.Tensor]]] = {
    "map": (over_rows, [torch.randn(5, 4), torch.randn(4, 3)]),
    "scan": (recurrence, [torch.randn(4), torch.randn(6, 4)]),
    "scan from the end along a dimension": (backwards, [torch.randn(4), torch.randn(4, 6)]),
    "associative scan": (products, [torch.rand(9, 3) + 0.5]),
    "a region for other code generators": (marked, [torch.randn(3)]),
    "associative scan of one row": (products, [torch.rand(1, 3)]),
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops_of_a_known_length(name: str) -> None:
    program, arguments = LOOPS[name]
    fast = torch.compile(program, backend="torch_tvm")
    for _ in range(2):
        ours, theirs = ([a.clone().requires_grad_() for a in arguments] for _ in range(2))
        mine, wanted = (pytree.tree_leaves(f(*a)) for f, a in ((fast, ours), (program, theirs)))
        torch.testing.assert_close(mine, wanted)
        for results in (mine, wanted):
            sum(result.square().sum() for result in results).backward()
        torch.testing.assert_close([a.grad for a in ours], [a.grad for a in theirs])


def test_a_loop_of_too_many_ops_runs_in_pytorch() -> None:
    arguments = torch.randn(4), torch.randn(2000, 4)
    with pytest.warns(GraphNotCompiled, match="higher_order|scan"):
        mine = torch.compile(recurrence, backend="torch_tvm")(*arguments)
    torch.testing.assert_close(mine, recurrence(*arguments))


def test_a_trained_loop_of_unknown_length() -> None:
    """PyTorch stacks what a ``while_loop`` carries, for the gradient; it has no iteration of none."""
    weight = torch.eye(4).add(0.3).requires_grad_()
    step = lambda i, y: (i + 1, torch.sin(y @ weight))

    def program(x: torch.Tensor, count: torch.Tensor) -> Any:
        return while_loop(lambda i, _: i < count, step, (torch.zeros((), dtype=torch.int64), x))[1]

    def written_out(x: torch.Tensor, count: torch.Tensor) -> Any:
        for _ in range(int(count)):
            x = torch.sin(x @ weight)
        return x

    fast = torch.compile(program, backend="torch_tvm")
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        for count in (3, 1, 40):
            x, n = torch.randn(3, 4, requires_grad=True), torch.tensor(count)
            mine, wanted = (torch.autograd.grad(f(x, n).square().sum(), [x, weight]) for f in (fast, written_out))
            torch.testing.assert_close(mine, wanted)


def sloped(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return flex_attention(q, k, v, score_mod=lambda score, b, h, m, n: score + 0.1 * (m - n))


def masked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    biased = lambda score, b, h, m, n: score + BIAS[n]
    return flex_attention(q, k, v, score_mod=biased, block_mask=MASK, enable_gqa=True)


@pytest.mark.parametrize("program", [sloped, masked])
def test_attention_with_functions_of_the_user(program: Callable[..., Any]) -> None:
    fast = torch.compile(program, backend="torch_tvm")
    heads = 2 if program is sloped else 1
    for _ in range(2):
        q, k, v = torch.randn(2, 2, 8, 16), torch.randn(2, heads, 8, 16), torch.randn(2, heads, 8, 16)
        torch.testing.assert_close(fast(q, k, v), program(q, k, v))
