"""An attention as its rules see it: sizes, elements of the operands, the mask, and how the result is stored.

The PrimFunc is its own specification (:mod:`torch_tvm.transforms.fuse_attention` writes it): the blocks that
:mod:`torch_tvm.workloads.attention` names say how Q, K, V, the mask and the result lie in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Expr, TensorLoad
from tvm.s_tir import SBlock
from tvm_ffi import structural_walk
from tvm_ffi.structural import structural_map

from torch_tvm.support.errors import Refusal
from torch_tvm.tir import const, static, static_sizes, substitute
from torch_tvm.workloads.attention import CAST, MASKED, OUTPUT, ROWS, SCORES, AttentionWorkload


@dataclass(frozen=True)
class AttentionSpec:
    """Sizes, and the elements of the operands as functions of batch, head, row (query), key and depth.

    ``masked(b, h, i, j, score)`` is the scaled and masked score, ``store(b, h, i, d, value)`` writes the
    result. ``causal`` is the key offset of the diagonal (key ``j`` is visible to row ``i`` if
    ``j <= i + causal``) or None; a row without any visible key is 0 if ``is_safe`` or if there are none, otherwise NaN.
    """

    batch: Expr
    heads: Expr
    rows: Expr
    keys: Expr
    depth: int
    value_depth: int
    query: Callable[[Expr, Expr, Expr, Expr], Expr]
    key: Callable[[Expr, Expr, Expr, Expr], Expr]
    value: Callable[[Expr, Expr, Expr, Expr], Expr]
    masked: Callable[[Expr, Expr, Expr, Expr, Expr], Expr]
    store: Callable[[Expr, Expr, Expr, Expr, Expr], tirx.Stmt]
    causal: Expr | None
    is_safe: bool


@dataclass(frozen=True)
class Blocks:
    """The blocks of an attention; ``after`` are those that change the weighted sums element by element."""

    scores: SBlock
    masked: SBlock
    output: SBlock
    after: list[SBlock]


def read_attention(func: tirx.PrimFunc) -> AttentionSpec:
    """Read the specification or raise :class:`Refusal`."""
    workload = AttentionWorkload.from_attr(func.attrs)
    if workload is None:
        raise Refusal("no attention")
    blocks = _read_blocks(func)
    b, h, i, j, d = (it.var for it in blocks.scores.iter_vars)
    batch, heads, rows, keys, depth = (it.dom.extent for it in blocks.scores.iter_vars)
    query, key = blocks.scores.body.value.b.a, blocks.scores.body.value.b.b
    weights, value = blocks.output.body.value.b.a, blocks.output.body.value.b.b
    point = list(_first_load(weights).indices)
    of_value = next((it for it in blocks.output.iter_vars if not any(it.var.same_as(p) for p in point)), None)
    sizes = static_sizes((depth, of_value.dom.extent if of_value is not None else None))
    if of_value is None or sizes is None:
        raise Refusal("the size of a head is not constant")
    if any(static(extent) == 0 for extent in (batch, heads, rows, keys, *sizes)):
        raise Refusal("an axis is empty")
    at = lambda expr, old: lambda *new: substitute(expr, dict(zip(old, new, strict=True))).astype("float32")
    return AttentionSpec(
        batch=batch,
        heads=heads,
        rows=rows,
        keys=keys,
        depth=sizes[0],
        value_depth=sizes[1],
        query=at(query, (b, h, i, d)),
        key=at(key, (b, h, j, d)),
        value=at(value, (point[0], point[1], point[3], of_value.var)),
        masked=_read_masked(blocks),
        store=_read_store(blocks, [*point[:3], of_value.var]),
        causal={"none": None, "top_left": const(0), "bottom_right": keys - rows}[workload.causal],
        is_safe=workload.is_safe,
    )


def _read_blocks(func: tirx.PrimFunc) -> Blocks:
    blocks: list[SBlock] = []
    structural_walk(func.body, (SBlock, blocks.append))
    found = {block.name_hint: block for block in blocks}
    scores, masked, output = (found.get(name) for name in (SCORES, MASKED, OUTPUT))
    if scores is None or masked is None or output is None:
        raise Refusal("the blocks of an attention are missing")
    if str(output.body.buffer.dtype) != "float32":
        raise Refusal("the exponential is written for single precision")
    return Blocks(scores, masked, output, [found[name] for name in (ROWS, CAST) if name in found])


def _read_masked(blocks: Blocks) -> Callable[..., Expr]:
    """``masked(b, h, i, j, score)``."""
    axes = [it.var for it in blocks.masked.iter_vars]

    def masked(*args: Expr) -> Expr:
        *place, score = args
        value = substitute(blocks.masked.body.value, dict(zip(axes, place, strict=True)))
        return _replace_load(value, blocks.scores.body.buffer.name, score)

    return masked


def _read_store(blocks: Blocks, axes: list[tirx.Var]) -> Callable[..., tirx.Stmt]:
    """``store(b, h, i, d, total)``, through the blocks after the sums; ``axes`` are those of the sums."""

    def store(*args: Expr) -> tirx.Stmt:
        *place, total = args
        bindings = dict(zip(axes, place, strict=True))
        indices = [substitute(index, bindings) for index in blocks.output.body.indices]
        buffer = blocks.output.body.buffer
        for block in blocks.after:
            own = dict(zip((it.var for it in block.iter_vars), indices, strict=True))
            total = _replace_load(substitute(block.body.value, own), buffer.name, total)
            buffer = block.body.buffer
        return tirx.BufferStore(buffer, total, indices)

    return store


def _first_load(expr: Any) -> TensorLoad:
    while not isinstance(expr, TensorLoad):
        expr = expr.value
    return expr


def _replace_load(expr: Expr, name: str, value: Expr) -> Expr:
    """``expr`` with ``value`` for what it loads from the buffer ``name``."""
    return structural_map(expr, (TensorLoad, lambda load: value if load.source.name == name else load))


__all__ = ["AttentionSpec", "read_attention"]
