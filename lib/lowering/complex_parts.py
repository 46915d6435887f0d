"""Complex tensors as their real and imaginary parts.

Between ops a complex tensor is one real tensor with a last dimension of 2, as it lies in PyTorch's memory. An op takes
it apart, computes with the parts and puts its results together; what the next op takes apart again falls away, so a
chain of ops is a chain on two real tensors. An op is lowered by the first of these that has it:

- ``COMPLEX`` of the registry: what is particular to complex numbers;
- ``BY_PARTS``: ops that move elements or are linear are their real lowering on each part;
- ``PRODUCTS``: ops that are linear in each of several operands are sums of their real lowering on the parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from tvm import relax, te, tirx

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.lowering.builder import Builder, is_tensor
from torch_tvm.lowering.registry import COMPLEX, LOWERINGS, Entry, Parts, bind
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import as_size
from torch_tvm.workloads.workload import POINTWISE

Expr: TypeAlias = relax.Expr

BY_PARTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(
        (
            *("view", "permute", "expand", "squeeze.dim", "unsqueeze", "cat", "stack", "slice.Tensor", "select.int"),
            *("narrow", "split.Tensor", "split_with_sizes", "unbind.int", "repeat", "tile", "roll", "flip"),
            *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "reflection_pad1d", "reflection_pad2d"),
            *("reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d", "_pad_circular"),
            *("diagonal", "unfold", "tril", "triu", "repeat_interleave.self_int", "repeat_interleave.Tensor"),
            *("index.Tensor", "_unsafe_index.Tensor", "index_select", "gather", "take", "take_along_dim", "embedding"),
            *("im2col", "col2im", "vstack", "dstack", "concat", "concatenate", "new_zeros", "zeros_like", "neg"),
            *("sum", "sum.dim_IntList", "mean", "mean.dim", "cumsum", "as_strided", "masked_select"),
        ),
        (0,),
    ),
    **dict.fromkeys(("slice_scatter", "select_scatter", "diagonal_scatter"), (0, 1)),
    **dict.fromkeys(("index_put", "masked_fill.Tensor", "masked_scatter", "put"), (0, 2)),
    **dict.fromkeys(("scatter.src", "scatter_add", "index_add", "index_copy", "index_fill.int_Tensor"), (0, 3)),
    "where.self": (1, 2),
    "zeros": (),
}  # fmt: skip
"""Ops that do the same with both parts; the places of their operands that have parts."""

PRODUCTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("mm", "bmm", "matmul", "mv", "outer"), (0, 1)),
    **dict.fromkeys(
        (
            *(
                "conv1d",
                "conv2d",
                "conv3d",
                "conv1d.padding",
                "conv2d.padding",
                "conv3d.padding",
                "convolution",
            ),
            *("conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input"),
        ),
        (0, 1),
    ),
    "einsum": (1,),
}
"""Ops that are linear in each of these operands (or in each member of the list that is one)."""

MOST_FACTORS = 4
"""Factors of a product of which every combination of parts is a product of its own."""


def is_complex(value: ir.Value) -> bool:
    return "complex<" in str(value.type)


def has_complex(op: ir.Operation) -> bool:
    """Whether an operand or a result of an operation is a complex tensor, or a list with one."""
    return any(is_complex(value) for value in (*op.operands, *op.results)) or any(
        is_complex(item) for operand in op.operands for item in _members(operand)
    )


def is_lowered(name: str) -> bool:
    """Whether an op of this name has a form for complex tensors."""
    stem = name.removeprefix("torch.aten.")
    return name in COMPLEX or (name in LOWERINGS and (stem in BY_PARTS or stem in PRODUCTS))


def lower(b: Builder, op: ir.Operation, name: str, operands: Sequence[Any]) -> Any:
    """What an op gives: :class:`Parts` for each complex result. Raises :class:`Refusal`."""
    value = _lowered(b, op, name, operands)
    is_real = isinstance(value, Parts) and not is_complex(op.results[0])  # ``new_full`` of floats
    return value.re if is_real else value


def _lowered(b: Builder, op: ir.Operation, name: str, operands: Sequence[Any]) -> Any:
    given = [_apart(b, value, operand) for value, operand in zip(op.operands, operands, strict=True)]
    if name in COMPLEX:
        entry = COMPLEX[name]
        return entry.function(b, *bind(entry, given, b))
    if not is_lowered(name):
        raise Refusal("no lowering of this op for complex numbers")
    stem, entry = name.removeprefix("torch.aten."), LOWERINGS[name]
    if stem in BY_PARTS:
        return by_parts(b, entry, given, BY_PARTS[stem])
    return product(b, entry, given, PRODUCTS[stem])


def by_parts(b: Builder, entry: Entry, operands: Sequence[Any], places: Sequence[int]) -> Any:
    """A real lowering on the real parts of the operands at ``places``, and on their imaginary parts."""
    if any(isinstance(v, Parts) for i, v in enumerate(operands) if i not in places):
        raise Refusal("a complex operand where a real one is expected")
    halves = [_with(b, entry, operands, {i: _part(b, operands[i], which) for i in places}) for which in ("re", "im")]
    if isinstance(halves[0], (list, tuple)):
        return [Parts(re, im) for re, im in zip(*halves, strict=True)]
    return Parts(*halves)


def product(b: Builder, entry: Entry, operands: Sequence[Any], places: Sequence[int]) -> Parts:
    """A real lowering on every choice of a part of each factor, summed: ``i`` to the number of imaginary ones."""
    bias = operands[2] if len(operands) > 2 and isinstance(operands[2], Parts) else None
    if bias is not None:  # a convolution's: a number for each channel
        value = product(b, entry, [*operands[:2], None, *operands[3:]], places)
        sizes = [*b.shape(bias.re), *[1] * (b.rank(operands[1].re) - 2)]
        pairs = ((value.re, bias.re), (value.im, dense(b, bias).im))
        return Parts(*(b.emit(relax.op.add(u, b.reshape(v, sizes))) for u, v in pairs))
    factors: list[Any] = []
    for place in places:
        factors += operands[place] if isinstance(operands[place], list) else [operands[place]]
    if len(factors) > MOST_FACTORS:
        raise Refusal(f"a product of more than {MOST_FACTORS} complex tensors")
    sums: dict[int, Expr | None] = {0: None, 1: None}
    for choice in itertools.product((0, 1), repeat=len(factors)):
        if any(which and not isinstance(f, Parts) for which, f in zip(choice, factors, strict=True)):
            continue
        chosen = [_part(b, f, "im" if which else "re") for which, f in zip(choice, factors, strict=True)]
        rest = iter(chosen)
        given = {
            place: [next(rest) for _ in operands[place]] if isinstance(operands[place], list) else next(rest)
            for place in places
        }
        term, turns = _with(b, entry, operands, given), sum(choice)
        total = sums[turns % 2]
        if total is None:
            assert turns < 2
            sums[turns % 2] = term
        else:
            combine = relax.op.subtract if turns % 4 > 1 else relax.op.add
            sums[turns % 2] = b.emit(combine(total, term))
    assert sums[0] is not None
    return Parts(sums[0], sums[1] if sums[1] is not None else zeros(b, sums[0]))


def _with(b: Builder, entry: Entry, operands: Sequence[Any], given: dict[int, Any]) -> Any:
    """The lowering with other operands at the places in ``given``."""
    return entry.function(b, *bind(entry, [given.get(i, v) for i, v in enumerate(operands)], b))


# -- apart and together ----------------------------------------------------------------------------------


def parts_of(b: Builder, pairs: Expr) -> Parts:
    """The parts of a tensor of pairs: those that it was put together from, where it was."""
    found = b.put_together.get(pairs.__chandle__())
    if found is not None:
        return found[1]

    def part(which: int) -> Expr:
        pick = lambda x: te.compute(x.shape[:-1], lambda *i: x(*i, which), name="part")
        return b.te(pick, pairs, name="part", attributes={POINTWISE: True})

    parts = Parts(part(0), part(1))
    b.taken_apart[_handles(parts)] = (pairs, parts)
    return parts


def _handles(parts: Parts) -> tuple[int, int]:
    return parts.re.__chandle__(), parts.im.__chandle__()


def together(b: Builder, parts: Parts) -> Expr:
    """The tensor of pairs of two parts: the one that they were taken from, where they were."""
    parts = dense(b, parts)
    found = b.taken_apart.get(_handles(parts))
    if found is not None:
        return found[0]
    shape = [*b.shape(parts.re), 2]

    def joined(re: te.Tensor, im: te.Tensor) -> te.Tensor:
        last = lambda i: tirx.EQ(i[-1], tirx.const(0, "int64"))
        element = lambda *i: tirx.if_then_else(last(i), re(*i[:-1]), im(*i[:-1]))
        return te.compute([as_size(size) for size in shape], element, name="pairs")

    pairs = b.te(joined, parts.re, parts.im, name="pairs")
    b.put_together[pairs.__chandle__()] = (pairs, parts)
    return pairs


def dense(b: Builder, parts: Parts) -> Parts:
    """The parts as two tensors of one shape and dtype, where the imaginary one is a number."""
    return parts if is_tensor(parts.im) else replace(parts, im=full_like(b, parts.re, parts.im))


def zeros(b: Builder, x: Expr) -> Expr:
    return full_like(b, x, 0)


def full_like(b: Builder, x: Expr, value: float) -> Expr:
    """A tensor like ``x`` with all elements ``value``."""
    sizes = relax.ShapeExpr([as_size(size) for size in b.shape(x)])
    return b.emit(relax.op.full(sizes, relax.const(value, b.dtype(x)), b.dtype(x)))


def _apart(b: Builder, value: ir.Value, operand: Any) -> Any:
    """An operand with :class:`Parts` for each complex tensor, given what the dialect says of it."""
    if isinstance(operand, list):
        members = _members(value)
        if len(members) == len(operand):
            return [_apart(b, member, item) for member, item in zip(members, operand, strict=True)]
        return [parts_of(b, item) if is_complex(value) and is_tensor(item) else item for item in operand]
    return parts_of(b, operand) if is_tensor(operand) and _is_complex_inside(value) else operand


def _members(value: ir.Value) -> list[ir.Value]:
    made = view.defining_op(value)
    return list(made.operands) if made is not None and made.name == "torch.prim.ListConstruct" else []


def _is_complex_inside(value: ir.Value) -> bool:
    """Whether a value is complex, or is one that is whose type was forgotten."""
    if is_complex(value):
        return True
    made = view.defining_op(value)
    return made is not None and made.name == "torch.derefine" and _is_complex_inside(made.operands[0])


def _part(b: Builder, operand: Any, which: str) -> Any:
    """One part of each tensor in an operand; real tensors and numbers have an imaginary part of 0."""
    if isinstance(operand, list):
        return [_part(b, item, which) for item in operand]
    if isinstance(operand, Parts):
        return getattr(dense(b, operand), which)
    if which == "re" or operand is None:
        return operand
    return zeros(b, operand) if is_tensor(operand) else 0


Rule = Callable[..., Any]

__all__ = [
    "BY_PARTS",
    "PRODUCTS",
    "by_parts",
    "dense",
    "has_complex",
    "lower",
    "parts_of",
    "product",
    "together",
]
