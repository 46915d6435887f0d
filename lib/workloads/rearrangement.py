"""Weights in another order: steps that are followed twice, by a kernel and by the runtime on whole tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import te, tirx
from tvm.ir import Expr, Range
from tvm.sym import Analyzer

from torch_tvm.tir import ceil_div, const, linear
from torch_tvm.workloads.workload import Workload

Step = tuple[str, Any]


@dataclass(frozen=True)
class Rearrangement(Workload):
    """A kernel that only moves the elements of its one operand.

    =========== ============== ====================================================================
    step        attributes     what it does
    =========== ============== ====================================================================
    reshape     sizes          the elements as they lie, in another shape
    permute     order          the axes in another order
    pad         axis, size     zeros at the end of an axis, up to ``size``
    extend      axis, size     the same where nobody reads what is added: a kernel repeats the last
    windows     axis, size     an axis as windows of ``size``, two axes; the last moves back to fit
    winograd    matrix         ``G g G^T`` of 3x3 filters; for the runtime alone
    check_index a check        positions from the front, none out of range; for the runtime alone
    =========== ============== ====================================================================
    """

    ATTRIBUTE: ClassVar[str] = "torch_tvm.rearrangement"

    steps: tuple[Step, ...] = ()

    def then(self, name: str, attributes: Any) -> Rearrangement:
        return Rearrangement((*self.steps, (name, attributes)))

    def reshape(self, *sizes: int) -> Rearrangement:
        return self.then("reshape", sizes)

    def permute(self, *order: int) -> Rearrangement:
        return self.then("permute", order)

    def pad(self, axis: int, size: int) -> Rearrangement:
        return self.then("pad", (axis, size))

    def extend(self, axis: int, size: int) -> Rearrangement:
        return self.then("extend", (axis, size))

    def windows(self, axis: int, size: int) -> Rearrangement:
        return self.then("windows", (axis, size))

    def compute(self, source: te.Tensor, value: Callable[[Expr], Expr] = lambda element: element) -> te.Tensor:
        """The kernel, of ``value`` of every element."""
        shape = self._shapes(source)[-1]
        return te.compute(shape, lambda *place: self.element(source, place, value), name="pack")

    def element(
        self,
        source: te.Tensor,
        place: Sequence[tirx.Var],
        value: Callable[[Expr], Expr] = lambda element: element,
    ) -> Expr:
        """``value`` of what lies at ``place`` in the end."""
        shapes = self._shapes(source)
        analyzer = Analyzer()
        for var, size in zip(place, shapes[-1], strict=True):
            analyzer.bind(var, Range(const(0), const(size)))
        indices: list[Expr] = list(place)
        valid: list[Expr] = []
        for (name, attributes), before, after in reversed(list(zip(self.steps, shapes, shapes[1:], strict=False))):
            if name == "pad" and before != after:
                valid.append(indices[attributes[0]] < before[attributes[0]])
            indices = [analyzer.simplify(i) for i in _BEFORE[name](attributes, before, after, indices)]
        found = value(source(*indices))
        return tirx.if_then_else(tirx.all(*valid), found, tirx.const(0, str(found.ty.dtype))) if valid else found

    def _shapes(self, source: te.Tensor) -> list[tuple[int, ...]]:
        """The shape before each step and that after the last."""
        shapes = [tuple(int(size) for size in source.shape)]
        for name, attributes in self.steps:
            shapes.append(_AFTER[name](attributes, shapes[-1]))
        return shapes


Shape = tuple[int, ...]


def _extended(attributes: Any, shape: Shape) -> Shape:
    axis, size = attributes
    return (*shape[:axis], size, *shape[axis + 1 :])


def _windowed(attributes: Any, shape: Shape) -> Shape:
    axis, size = attributes
    return (*shape[:axis], ceil_div(shape[axis], size), size, *shape[axis + 1 :])


_AFTER: dict[str, Callable[[Any, Shape], Shape]] = {
    "reshape": lambda sizes, _: tuple(sizes),
    "permute": lambda order, shape: tuple(shape[axis] for axis in order),
    "pad": _extended,
    "extend": _extended,
    "windows": _windowed,
}


def _before_reshape(_: Any, before: Shape, after: Shape, indices: list[Expr]) -> list[Expr]:
    position = linear([const(size) for size in after], indices)
    found: list[Expr] = []
    for size in reversed(before):
        found.insert(0, position % size)
        position = position // size
    return found


def _before_permute(order: Any, _: Shape, __: Shape, indices: list[Expr]) -> list[Expr]:
    return [indices[list(order).index(axis)] for axis in range(len(indices))]


def _before_extend(attributes: Any, before: Shape, after: Shape, indices: list[Expr]) -> list[Expr]:
    axis = attributes[0]
    if before == after:
        return indices
    return [*indices[:axis], tirx.min(indices[axis], const(before[axis] - 1)), *indices[axis + 1 :]]


def _before_windows(attributes: Any, before: Shape, _: Shape, indices: list[Expr]) -> list[Expr]:
    axis, size = attributes
    start = tirx.min(indices[axis] * size, const(before[axis] - size))
    return [*indices[:axis], start + indices[axis + 1], *indices[axis + 2 :]]


_BEFORE: dict[str, Callable[[Any, Shape, Shape, list[Expr]], list[Expr]]] = {
    "reshape": _before_reshape,
    "permute": _before_permute,
    "pad": lambda _, __, ___, indices: indices,
    "extend": _before_extend,
    "windows": _before_windows,
}
"""Where each step takes an element from."""
