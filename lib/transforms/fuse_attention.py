"""Recognise scaled dot product attention and make it one PrimFunc.

    attention(q, k, v, bias)                              # [batch, tokens, heads, depth]
    matmul(softmax(matmul(q, kᵀ) * scale + mask), v)      # [batch, heads, tokens, depth], or with fewer axes
becomes
    call_tir(attention, …)

Operands are read through the views that lead to them (:mod:`torch_tvm.transforms.views`): heads split off
a projection, a third of a joint QKV projection, heads repeated for grouped queries. A transpose of the
result is folded into how it is stored, and so is ``where(visible, result, 0)``.
:mod:`torch_tvm.schedules.cpu.attention.rule` has the kernel; the PrimFunc's own body is the plain computation,
which any other rule can schedule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import tvm
from tvm import relax, te, tirx
from tvm.ir import Expr
from tvm.ir.expr import GenericConst
from tvm_ffi import structural_equal

from torch_tvm.transforms.base import Level, Transform
from torch_tvm.transforms.params.weights import Weights
from torch_tvm.transforms.views import Path, View, trace
from torch_tvm.workloads.attention import CAST, MASKED, OUTPUT, ROWS, SCORES, AttentionWorkload

OPAQUE = 8


@dataclass(frozen=True)
class Scale:
    """The score times ``factor``."""

    factor: float
    mask: None = None

    def applied(self, score: Expr, views: Iterator[View], place: list[Expr], dtype: str) -> Expr:
        return score * tirx.const(self.factor, dtype)


@dataclass(frozen=True)
class Add:
    """The score and the element of the mask."""

    mask: Path

    def applied(self, score: Expr, views: Iterator[View], place: list[Expr], dtype: str) -> Expr:
        return score + next(views).at(place).astype(dtype)


@dataclass(frozen=True)
class Where:
    """``fill`` where the mask differs from ``keep``."""

    mask: Path
    fill: float
    keep: bool

    def applied(self, score: Expr, views: Iterator[View], place: list[Expr], dtype: str) -> Expr:
        element, fill = next(views).at(place), tirx.const(self.fill, dtype)
        return tirx.Select(element, score, fill) if self.keep else tirx.Select(element, fill, score)


Step = Scale | Add | Where


@dataclass
class Attention:
    """One recognised attention; paths lead to ``[batch, heads, tokens, depth]``.

    ``steps`` turn a score into a masked score, in order. ``shape`` is the result's,
    whose axes are batch, heads, tokens and depth in the order ``layout`` (others have size 1). The result is 0
    where ``visible`` is false.
    """

    query: Path
    key: Path
    value: Path
    steps: list[Step]
    shape: list[Expr]
    layout: tuple[int, ...]
    causal: str = "none"
    is_safe: bool = False
    visible: Path | None = None


class FuseAttention(Transform):
    """Scaled dot product attention becomes one PrimFunc.

    ``matmul(softmax(matmul(q, kᵀ) * scale + mask), v)``  →  ``call_tir(attention, (q, k, v, mask))``.

    What has weights that are used elsewhere, or more than four axes, stays as it is.
    """

    level = Level.LAYOUTS

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        for gvar, func in mod.functions_items():
            if isinstance(func, relax.Function):
                mod = _Fuser(mod, Weights(func)).run(gvar, func)
        return mod


@relax.expr_functor.mutator
class _Fuser(relax.PyExprMutator):
    def __init__(self, mod: tvm.IRModule, values: Weights) -> None:
        super().__init__(mod)
        self.values = values
        self.found: dict[Expr, Attention] = {}
        self.inner: set[Expr] = set()

    def run(self, gvar: tvm.ir.GlobalVar, func: relax.Function) -> tvm.IRModule:
        # From the end: a result's transpose and its condition take the products that they stand on.
        for value in reversed([*self.values.bound.values()]):
            if isinstance(value, relax.Call) and value not in self.inner:
                found = self._match(value)
                if found is not None:
                    self.found[value] = found
        if not self.found:
            return self.builder_.get()
        updated = self.visit_expr(func)
        self.builder_.update_func(gvar, updated)
        return relax.transform.DeadCodeElimination()(self.builder_.get())

    def visit_call_(self, call: relax.Call) -> Expr:
        found = self.found.get(call)
        return super().visit_call_(call) if found is None else self._emit(found)

    def _match(self, call: relax.Call) -> Attention | None:
        if not isinstance(call.op, tvm.ir.Op) or not _has_sizes(call):
            return None
        if call.op.name != "relax.permute_dims":
            return self._match_rows(call)
        inner = self._used_once(call.args[0])
        found = None if inner is None else self._match_rows(inner)
        if inner is None or found is None:
            return None
        axes = call.attrs.axes
        axes = list(reversed(range(len(call.ty.shape)))) if axes is None else [int(a) for a in axes]
        found.layout = tuple(found.layout[a] for a in axes)
        found.shape = list(call.ty.shape)
        self.inner.add(inner)
        return found

    def _match_rows(self, call: relax.Call) -> Attention | None:
        """An attention, or one whose rows are 0 where a condition says so."""
        if call.op.name != "relax.where":
            return _match_operator(call, self.values) or _match_chain(call, self.values)
        visible, result, fill = call.args
        inner = self._used_once(result)
        if inner is None or _scalar(fill) != 0 or not isinstance(visible, relax.Var) or not _has_sizes(visible):
            return None
        if not structural_equal(inner.ty, call.ty):
            return None
        found = _match_chain(inner, self.values)
        if found is not None:
            self.inner.add(inner)
            found.visible = _path(visible, self.values).then("broadcast", _four([*call.ty.shape]))
        return found

    def _used_once(self, value: Expr) -> relax.Call | None:
        """The op that computes ``value`` for one use alone."""
        if not isinstance(value, relax.Var) or self.values.uses.get(value) != 1:
            return None
        call = self.values.bound.get(value)
        return call if isinstance(call, relax.Call) and isinstance(call.op, tvm.ir.Op) else None

    def _emit(self, found: Attention) -> Expr:
        paths = [
            found.query,
            found.key,
            found.value,
            *(step.mask for step in found.steps if step.mask is not None),
        ]
        paths += [found.visible] if found.visible is not None else []
        sources: list[Expr] = []
        for path in paths:
            if not any(path.source.same_as(known) for known in sources):
                sources.append(path.source)
        return self.builder_.call_te(
            lambda tensors, sizes, shape: attention(found, paths, sources, tensors, sizes, shape),
            [self.visit_expr(source) for source in sources],
            [path.expressions() for path in paths],
            list(found.shape),
            primfunc_name_hint="attention",
            primfunc_attrs={
                "op_pattern": OPAQUE,
                **AttentionWorkload(found.causal, found.is_safe).to_attr(),
            },
        )


def attention(
    found: Attention,
    paths: list[Path],
    sources: list[Expr],
    tensors: list[te.Tensor],
    sizes: list[list[list[Expr]]],
    shape: list[Expr],
) -> te.Tensor:
    """The plain computation, in stages that the CPU rule knows by name; scores and weights in float32."""

    def view(path: Path, expressions: list[list[Expr]]) -> View:
        which = next(i for i, source in enumerate(sources) if source.same_as(path.source))
        return View.of(tensors[which], path, expressions)

    wanted = str(tensors[0].dtype)
    dtype = "float64" if wanted == "float64" else "float32"
    views = [view(path, e) for path, e in zip(paths, sizes, strict=True)]
    stages = _Stages(found, views, shape, dtype)
    result = stages.output(stages.weights(stages.masked(stages.scores())))
    if found.visible is not None:
        result = stages.rows(result)
    if wanted == dtype:
        return result
    return te.compute(shape, lambda *point: result(*point).astype(wanted), name=CAST)


class _Stages:
    """Each stage of one attention as a tensor expression of the one before."""

    def __init__(self, found: Attention, views: list[View], shape: list[Expr], dtype: str) -> None:
        self.found, self.shape, self.dtype = found, shape, dtype
        self.query, self.key, self.value, *self.masks = views
        self.batch, self.heads, self.row_count, self.depth = self.query.shape
        self.keys = self.key.shape[2]
        self.rows_shape = (self.batch, self.heads, self.row_count)
        self.minus_infinity, self.zero = tirx.const(float("-inf"), dtype), tirx.const(0, dtype)

    def scores(self) -> te.Tensor:
        d = te.reduce_axis((0, self.depth), "d")
        query = lambda b, h, i: self.query.at([b, h, i, d]).astype(self.dtype)
        key = lambda b, h, j: self.key.at([b, h, j, d]).astype(self.dtype)
        product = lambda b, h, i, j: te.sum(query(b, h, i) * key(b, h, j), axis=d)
        return te.compute((*self.rows_shape, self.keys), product, name=SCORES)

    def masked(self, scores: te.Tensor) -> te.Tensor:
        def mask(b: Expr, h: Expr, i: Expr, j: Expr) -> Expr:
            result, remaining = scores[b, h, i, j], iter(self.masks)
            for step in self.found.steps:
                result = step.applied(result, remaining, [b, h, i, j], self.dtype)
            if self.found.causal != "none":
                offset = self.keys - self.row_count if self.found.causal == "bottom_right" else 0
                result = tirx.Select(j <= i + offset, result, self.minus_infinity)
            return result

        return te.compute((*self.rows_shape, self.keys), mask, name=MASKED)

    def weights(self, masked: te.Tensor) -> te.Tensor:
        """The softmax; where it is safe, a row without a key has weights of 0."""
        j, j2 = te.reduce_axis((0, self.keys), "j"), te.reduce_axis((0, self.keys), "j")
        largest = lambda b, h, i: te.max(masked[b, h, i, j], axis=j)
        maximum = te.compute(self.rows_shape, largest, name="attention_maximum")
        is_safe, full = self.found.is_safe, (*self.rows_shape, self.keys)

        def shifted(b: Expr, h: Expr, i: Expr, j: Expr) -> Expr:
            top = maximum[b, h, i]
            top = tirx.Select(top == self.minus_infinity, self.zero, top) if is_safe else top
            return tirx.exp(masked[b, h, i, j] - top)

        exponents = te.compute(full, shifted, name="attention_exponents")
        summed = lambda b, h, i: te.sum(exponents[b, h, i, j2], axis=j2)
        total = te.compute(self.rows_shape, summed, name="attention_total")

        def share(b: Expr, h: Expr, i: Expr, j: Expr) -> Expr:
            quotient = exponents[b, h, i, j] / total[b, h, i]
            return tirx.Select(total[b, h, i] == self.zero, self.zero, quotient) if is_safe else quotient

        return te.compute(full, share, name="attention_weights")

    def output(self, weights: te.Tensor) -> te.Tensor:
        j = te.reduce_axis((0, self.keys), "j")

        def weighted(*point: Expr) -> Expr:
            b, h, i, e = self._place_of(point)
            return te.sum(weights[b, h, i, j] * self.value.at([b, h, j, e]).astype(self.dtype), axis=j)

        return te.compute(self.shape, weighted, name=OUTPUT)

    def rows(self, result: te.Tensor) -> te.Tensor:
        """0 where the last mask says that a row is not visible."""
        shown = self.masks[-1]
        row = lambda *point: tirx.Select(shown.at(self._place_of(point)), result(*point), self.zero)
        return te.compute(self.shape, row, name=ROWS)

    def _place_of(self, point: Sequence[Expr]) -> list[Expr]:
        """Batch, head, row and depth of a point of the result."""
        place: list[Expr] = [tirx.const(0, "int64")] * 4
        for axis, index in zip(self.found.layout, point, strict=True):
            place[axis] = index
        return place


def _match_operator(call: relax.Call, values: Weights) -> Attention | None:
    """``R.nn.attention(q, k, v, bias)``, whose operands are [batch, tokens, heads, depth]."""
    if call.op.name not in ("relax.nn.attention", "relax.nn.attention_bias"):
        return None
    if not all(_has_sizes(arg) for arg in call.args) or not _has_sizes(call):
        return None
    swap = ("permute", [0, 2, 1, 3])
    query, key, value = (_path(arg, values).then(*swap) for arg in call.args[:3])
    depth = call.args[0].ty.shape[3]
    if not isinstance(depth, tirx.IntImm):
        return None
    scale = call.attrs.scale
    steps: list[Step] = [Scale(1 / sqrt(int(depth)) if scale is None else float(scale))]
    b, i, h, _ = call.args[0].ty.shape
    full = [b, h, i, call.args[1].ty.shape[1]]
    if len(call.args) > 3:
        steps.append(Add(_path(call.args[3], values).then("broadcast", full)))
    causal = {None: "none", "TopLeft": "top_left", "BottomRight": "bottom_right"}[call.attrs.causal_mask]
    return Attention(query, key, value, steps, list(call.ty.shape), (0, 2, 1, 3), causal, is_safe=True)


def _match_chain(call: relax.Call, values: Weights) -> Attention | None:
    """``matmul(softmax(scores), v)``; scores lead back to ``matmul(q, kᵀ)`` through scales and masks."""
    if call.op.name != "relax.matmul":
        return None
    softmax = values.definition(call.args[0], "relax.nn.softmax")
    axes = len(call.ty.shape)
    if softmax is None or values.uses.get(call.args[0]) != 1 or not 2 <= axes <= 4:
        return None
    if int(softmax.attrs.axis) % axes != axes - 1 or not _has_sizes(softmax):
        return None
    current = softmax.args[0]
    steps: list[Step] = []
    full = _four([*softmax.ty.shape])
    while (product := values.definition(current, "relax.matmul")) is None:
        definition = values.bound.get(current) if isinstance(current, relax.Var) else None
        if not isinstance(definition, relax.Call) or values.uses.get(current) != 1:
            return None
        found = _score_step(definition, values, full)
        if found is None:
            return None
        current, step = found
        steps.insert(0, step)
    if values.uses.get(current) != 1:
        return None
    operands = [*product.args, call.args[1]]
    if not all(isinstance(x, relax.Var) and _has_sizes(x) and len(x.ty.shape) == axes for x in operands):
        return None
    if not _equal_batches(operands, axes):
        return None
    q, k, v = (_path(x, values).then("reshape", _four([*x.ty.shape])) for x in operands)
    layout = (0, 1, 2, 3)[4 - axes :]
    return Attention(q, k.then("permute", [0, 1, 3, 2]), v, steps, list(call.ty.shape), layout)


def _score_step(call: relax.Call, values: Weights, full: list[Expr]) -> tuple[Expr, Step] | None:
    """One scale or mask: the scores it applies to and the step."""
    name = call.op.name if isinstance(call.op, tvm.ir.Op) else ""
    if name in ("relax.multiply", "relax.divide"):
        first, second = call.args
        factor = _scalar(second)
        if factor is not None:
            return first, Scale(factor if name == "relax.multiply" else 1 / factor)
        factor = _scalar(first)
        return None if factor is None or name == "relax.divide" else (second, Scale(factor))
    if name == "relax.add":
        for scores, mask in ((call.args[0], call.args[1]), (call.args[1], call.args[0])):
            if _is_scores(scores, values) and isinstance(mask, relax.Var) and _has_sizes(mask):
                return scores, Add(_path(mask, values).then("broadcast", full))
    if name == "relax.where":
        mask, first, second = call.args
        for scores, fill, keep in ((first, _scalar(second), True), (second, _scalar(first), False)):
            if fill is not None and isinstance(mask, relax.Var) and _has_sizes(mask):
                return scores, Where(_path(mask, values).then("broadcast", full), fill, keep)
    return None


def _is_scores(value: Expr, values: Weights) -> bool:
    """Whether ``value`` leads back to a product through scales and masks alone."""
    for _ in range(8):
        call = values.bound.get(value) if isinstance(value, relax.Var) else None
        if not isinstance(call, relax.Call) or not isinstance(call.op, tvm.ir.Op):
            return False
        if call.op.name == "relax.matmul":
            return True
        if call.op.name not in ("relax.multiply", "relax.divide", "relax.add", "relax.where"):
            return False
        value = call.args[1] if call.op.name == "relax.where" else call.args[0]
    return False


def _path(value: Expr, values: Weights) -> Path:
    return trace(value, values)


def _four(shape: list[Expr]) -> list[Expr]:
    return [tirx.const(1, "int64")] * (4 - len(shape)) + shape


def _equal_batches(operands: list[Expr], axes: int) -> bool:
    """Whether the leading axes agree (broadcast products are left to the general kernel)."""
    analyzer = tvm.sym.Analyzer()
    first = operands[0].ty.shape
    return all(analyzer.can_prove_equal(x.ty.shape[a], first[a]) for x in operands for a in range(axes - 2))


def _scalar(value: Expr) -> float | None:
    """The number behind a constant with one element."""
    if (
        isinstance(value, GenericConst)
        and isinstance(value.value, tvm.runtime.Tensor)
        and value.value.numpy().size == 1
    ):
        return float(value.value.numpy().reshape(-1)[0])
    return None


def _has_sizes(value: Expr) -> bool:
    return isinstance(value.ty, relax.TensorType) and isinstance(value.ty.shape, relax.ShapeExpr)
