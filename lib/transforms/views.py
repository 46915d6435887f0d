"""Follow reshapes, transposes, slices and broadcasts back to the tensor that they look at.

A kernel that indexes the source directly needs no copy: ``permute_dims(reshape(qkv))`` is ``qkv`` with other
indices. :func:`trace` collects the steps from Relax bindings, :class:`View` replays them on a TE tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm import relax, te, tirx
from tvm.ir import Expr

from torch_tvm.tir import static_sizes
from torch_tvm.transforms.params.weights import Weights


@dataclass
class Path:
    """A source variable and the steps, first to last, that lead from it to a value.

    A step is ``("permute", axes)``, ``("reshape", shape)``, ``("broadcast", shape)``,
    ``("slice", axis, begin, size)`` or ``("repeat", axis, times)``.
    """

    source: Expr
    steps: list[tuple[Any, ...]] = field(default_factory=list)

    def then(self, *step: Any) -> Path:
        return Path(self.source, [*self.steps, step])

    def expressions(self) -> list[list[Expr]]:
        """Sizes in the steps, to be passed through ``call_te``, which renames symbolic sizes."""
        return [
            [tvm.tirx.convert(v) for v in step[1]] if step[0] in ("reshape", "broadcast") else [] for step in self.steps
        ]


def trace(value: Expr, values: Weights, through: Callable[[relax.Call], bool] = lambda call: True) -> Path:
    """The path to ``value``, a variable; as far back as the bindings are views that ``through`` admits."""
    definition = values.bound.get(value) if isinstance(value, relax.Var) else None
    step = _step(definition, values) if definition is not None else None
    if step is None:
        return Path(value)
    origin, steps = step
    if isinstance(definition, relax.Call) and not through(definition):
        return Path(value)
    path = trace(origin, values, through)
    return Path(path.source, path.steps + steps)


def _step(value: Expr, values: Weights) -> tuple[relax.Var, list[tuple[Any, ...]]] | None:
    if isinstance(value, relax.Var):
        return value, []
    if isinstance(value, relax.TupleGetItem):
        return _split(value, values)
    if not isinstance(value, relax.Call) or not isinstance(value.op, tvm.ir.Op) or not value.args:
        return None
    source = value.args[0]
    if not isinstance(source, relax.Var) or not _has_sizes(source) or not _has_sizes(value):
        return None
    shape = list(value.ty.shape)
    match value.op.name:
        case "relax.permute_dims":
            axes = value.attrs.axes
            axes = list(reversed(range(len(shape)))) if axes is None else [int(a) for a in axes]
            return source, [("permute", axes)]
        case "relax.reshape" | "relax.expand_dims" | "relax.squeeze" | "relax.flatten":
            return source, [("reshape", shape)]
        case "relax.broadcast_to":
            return source, [("broadcast", shape)]
        case "relax.repeat" if value.attrs.axis is not None:
            return source, [("repeat", int(value.attrs.axis) % len(shape), int(value.attrs.repeats))]
        case "relax.strided_slice":
            steps = _slices(value)
            return None if steps is None else (source, steps)
    return None


def _slices(call: relax.Call) -> list[tuple[Any, ...]] | None:
    """The steps of a slice with constant bounds and without gaps."""
    axes, begins, _, *strides = (static_sizes(arg.fields) for arg in call.args[1:])
    if axes is None or begins is None or any(of_axes is None or set(of_axes) - {1} for of_axes in strides):
        return None
    axes = tuple(axis % len(call.ty.shape) for axis in axes)
    sizes = static_sizes(call.ty.shape[axis] for axis in axes)
    if sizes is None or min(begins, default=0) < 0:
        return None
    return [("slice", *step) for step in zip(axes, begins, sizes, strict=True)]


def _split(value: relax.TupleGetItem, values: Weights) -> tuple[relax.Var, list[tuple[Any, ...]]] | None:
    """``split(x, …)[k]`` as a slice of ``x``."""
    call = values.definition(value.tuple_value, "relax.split")
    if call is None or not isinstance(call.args[0], relax.Var):
        return None
    types = call.ty.fields
    axis = int(call.attrs.axis) % len(call.args[0].ty.shape)
    if not all(_has_sizes(t) and isinstance(t.shape[axis], tirx.IntImm) for t in types):
        return None
    sizes = [int(t.shape[axis]) for t in types]
    begin = sum(sizes[: value.index])
    return call.args[0], [("slice", axis, begin, sizes[value.index])]


def _has_sizes(value: Expr | relax.TensorType) -> bool:
    ty = value if isinstance(value, relax.TensorType) else value.ty
    return isinstance(ty, relax.TensorType) and isinstance(ty.shape, relax.ShapeExpr)


class View:
    """A TE tensor seen through the steps of a path: a shape, and the element at some indices."""

    def __init__(self, shape: Sequence[Expr], at: Callable[[Sequence[Expr]], Expr]) -> None:
        self.shape = list(shape)
        self.at = at

    @classmethod
    def of(cls, tensor: te.Tensor, path: Path, expressions: Sequence[Sequence[Expr]]) -> View:
        view = cls(tensor.shape, lambda indices: tensor(*indices))
        for step, sizes in zip(path.steps, expressions, strict=True):
            view = view._apply(step, list(sizes))
        return view

    def _apply(self, step: tuple[Any, ...], sizes: list[Expr]) -> View:
        kind = step[0]
        at = self.at
        if kind == "permute":
            axes = step[1]
            order = sorted(range(len(axes)), key=lambda position: axes[position] % len(axes))

            def permuted(indices: Sequence[Expr]) -> Expr:
                return at([indices[position] for position in order])

            return View([self.shape[a] for a in axes], permuted)
        if kind == "reshape":
            old_shape = self.shape
            return View(sizes, lambda indices: at(_reshape_indices(indices, sizes, old_shape)))
        if kind == "broadcast":
            missing = len(sizes) - len(self.shape)
            ones = [isinstance(s, tirx.IntImm) and int(s) == 1 for s in self.shape]
            return View(
                sizes,
                lambda indices: at(
                    [tirx.const(0, "int64") if one else i for one, i in zip(ones, indices[missing:], strict=True)]
                ),
            )
        axis = step[1]
        if kind == "slice":
            shape = [tirx.const(step[3], "int64") if a == axis else s for a, s in enumerate(self.shape)]
            change = lambda i: i + step[2]
        else:
            shape = [s * step[2] if a == axis else s for a, s in enumerate(self.shape)]
            change = lambda i: i // step[2]
        return View(shape, lambda indices: at([change(i) if a == axis else i for a, i in enumerate(indices)]))


def _reshape_indices(indices: Sequence[Expr], new: Sequence[Expr], old: Sequence[Expr]) -> list[Expr]:
    """Indices into ``old`` for indices into ``new`` (same elements in row-major order).

    Axes are matched in the smallest groups with equal products, so that ``[B, S, H * D]`` seen as
    ``[B, S, H, D]`` is ``[b, s, h * D + d]`` with no division.
    """
    analyzer = tvm.sym.Analyzer()
    result: list[Expr] = []
    n = o = 0
    while n < len(new) or o < len(old):
        if n == len(new) or o == len(old):
            result += [tirx.const(0, "int64")] * (len(old) - o)
            break
        n_end, o_end = _group(new, old, n, o, analyzer)
        flat = indices[n]
        for position in range(n + 1, n_end):
            flat = flat * new[position] + indices[position]
        group: list[Expr] = []
        for position in range(o_end - 1, o, -1):
            group.append(flat % old[position])
            flat = flat // old[position]
        result += [flat, *reversed(group)]
        n, o = n_end, o_end
    return result


def _group(new: Sequence[Expr], old: Sequence[Expr], n: int, o: int, analyzer: tvm.sym.Analyzer) -> tuple[int, int]:
    """Ends of the smallest groups from ``n`` and ``o`` on whose products are equal."""
    best: tuple[int, int] | None = None
    for n_end in range(n + 1, len(new) + 1):
        for o_end in range(o + 1, len(old) + 1):
            product = lambda sizes: _multiply(sizes)
            if analyzer.can_prove_equal(product(new[n:n_end]), product(old[o:o_end])):
                if best is None or n_end + o_end < sum(best):
                    best = (n_end, o_end)
                break
    return best or (len(new), len(old))


def _multiply(sizes: Sequence[Expr]) -> Expr:
    result: Expr = tirx.const(1, "int64")
    for size in sizes:
        result = result * size
    return result
