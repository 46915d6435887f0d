"""A fused kernel seen as an anchor (the blocks that a rule knows) and its elementwise epilogue.

FuseOps leaves ``conv; T = conv + bias; U = max(T, 0); V = U + residual``. The rule computes the anchor in
registers and :class:`Epilogue` writes the rest, one vector at a time, without a trip to memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.s_tir import SBlock, SBlockRealize

from torch_tvm import tir
from torch_tvm.schedules.cpu.loops.producers.steps import PARALLEL_THRESHOLD
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import const, elements, product, statements, static
from torch_tvm.workloads.workload import Workload

W = TypeVar("W", bound=Workload)

Remap = Callable[[tirx.Buffer, Sequence[Expr]], Expr | None]


@dataclass(frozen=True)
class Stage:
    """One elementwise block: ``buffer[axes] = value``."""

    buffer: tirx.Buffer
    axes: tuple[Var, ...]
    value: Expr


@dataclass(frozen=True)
class FusedKernel(Generic[W]):
    """``anchors`` are the blocks with ``workload`` on them, in order; ``anchor_buffer`` is what the last of them
    writes.

    ``stages`` have the anchor's shape and run in its epilogue. ``later`` stages have another one (a gate of
    ``[N, C, 1, 1]`` that scales an image) and run in loops of their own.
    """

    func: tirx.PrimFunc
    workload: W
    anchors: tuple[SBlock, ...]
    anchor_buffer: tirx.Buffer
    stages: tuple[Stage, ...]
    later: tuple[Stage, ...]

    @property
    def output(self) -> tirx.Buffer:
        """What the epilogue writes: an output of the function, or what the later stages read."""
        return self.stages[-1].buffer if self.stages else self.anchor_buffer

    def rebuilt(self, body: tirx.Stmt) -> tirx.PrimFunc:
        """The function with a new body: explicit loops instead of blocks."""
        if self.later:
            body = tir.sequence(tirx.AllocBuffer(self.output), body, self._later_loops())
        return self.func.with_body(body).with_attr("tirx.noalias", True)

    def _later_loops(self) -> tirx.Stmt:
        last = self.later[-1]
        shape = list(last.buffer.ty.shape)
        known = {stage.buffer: stage for stage in self.later[:-1]}
        head = shape[:-2]
        size = static(elements(shape))
        kind = "serial" if size is not None and size < PARALLEL_THRESHOLD else "parallel"
        inner = "vectorized" if static(shape[-1]) else "serial"

        def nest(point: list[Expr], rest: list[Expr]) -> tirx.Stmt:
            if not rest:
                return tirx.BufferStore(last.buffer, _inlined(last, point, known), point)
            name, of_kind = f"ax{len(point)}", inner if len(rest) == 1 else "serial"
            return tir.loop(name, rest[0], lambda var: nest([*point, var], rest[1:]), kind=of_kind)

        def row(task: Expr) -> tirx.Stmt:
            """Blocks of channels (axis 1) move fastest: a core then has a part of the image with all of them."""
            point: list[Expr] = [const(0)] * len(head)
            for axis in (1, *range(len(head) - 1, 1, -1), 0):
                if axis < len(head):
                    point[axis], task = task % shape[axis], task // shape[axis]
            bound = [tir.bind_index(f"ax{axis}", value) for axis, value in enumerate(point)]
            places = nest([var for var, _ in bound], shape[len(head) :])
            return tir.sequence(*(stmt for _, stmt in bound), places)

        return tir.loop("row", product(head), row, kind=kind)


def read_fused(func: tirx.PrimFunc, kind: type[W]) -> FusedKernel[W]:
    """Split ``func`` into blocks that carry a workload of ``kind`` and the epilogue. Raises :class:`Refusal`."""
    if not isinstance(func.body, SBlockRealize):
        raise Refusal("the body is not a root block")
    root = func.body.block
    blocks = [_block_of(nest) for nest in statements(root.body)]
    found = [kind.from_attr(block.annotations) for block in blocks]
    workload = next((each for each in found if each is not None), None)
    if workload is None:
        raise Refusal(f"no block is annotated with {kind.ATTRIBUTE}")
    anchors = tuple(block for block, own in zip(blocks, found, strict=True) if own is not None)
    stages = tuple(_stage(block) for block, own in zip(blocks, found, strict=True) if own is None)
    buffer = anchors[-1].writes[0].source
    now, later = _split(stages, buffer)
    kernel = FusedKernel(func, workload, anchors, buffer, now, later)
    final = later[-1].buffer if later else kernel.output
    if not any(final.same_as(param) for param in func.params):
        raise Refusal("the last block does not write an output of the function")
    inner = {stage.buffer for stage in stages if not stage.buffer.same_as(final)}
    if any(param in inner for param in func.params):
        raise Refusal("the kernel has more than one output")
    return kernel


def _split(stages: Sequence[Stage], anchor: tirx.Buffer) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
    """Stages for the epilogue, and those that come after because their shape, or what they read, is another."""
    now: list[Stage] = []
    later: list[Stage] = []
    for stage in stages:
        same_shape = tvm_ffi.structural_equal(stage.buffer.ty.shape, anchor.ty.shape)
        reads = _sources(stage.value)
        if same_shape and not any(other.buffer in reads for other in later):
            now.append(stage)
        else:
            later.append(stage)
    boundary = now[-1].buffer if now else anchor
    hidden = {anchor, *(stage.buffer for stage in now)} - {boundary}
    if any(hidden & _sources(stage.value) for stage in later):
        raise Refusal("a stage of another shape reads more than the result of the epilogue")
    return tuple(now), tuple(later)


def _sources(value: Expr) -> set[tirx.Buffer]:
    found: set[tirx.Buffer] = set()
    tvm_ffi.structural_walk(value, (TensorLoad, lambda load: found.add(load.source)))
    return found


def _inlined(stage: Stage, point: Sequence[Expr], known: dict[tirx.Buffer, Stage]) -> Expr:
    """The value of ``stage`` at ``point``, with the stages in ``known`` computed in place."""
    mapping = dict(zip(stage.axes, point, strict=True))

    def map_load(load: TensorLoad) -> Expr:
        return _inlined(known[load.source], load.indices, known) if load.source in known else load

    return tvm_ffi.structural_map(stage.value, [(Var, lambda var: mapping.get(var, var)), (TensorLoad, map_load)])


def _block_of(nest: tirx.Stmt) -> SBlock:
    while isinstance(nest, tirx.For):
        nest = nest.body
    if not isinstance(nest, SBlockRealize):
        raise Refusal("a loop nest does not hold exactly one block")
    return nest.block


def _stage(block: SBlock) -> Stage:
    if any(axis.iter_type != tirx.IterVar.DataPar for axis in block.iter_vars):
        raise Refusal(f"{block.name_hint} is a reduction")
    if not isinstance(block.body, tirx.BufferStore):
        raise Refusal(f"{block.name_hint} is not one store")
    axes = tuple(axis.var for axis in block.iter_vars)
    if not _is_identity(block.body.indices, axes):
        raise Refusal(f"{block.name_hint} does not store at its own axes")
    return Stage(block.body.buffer, axes, block.body.value)


def _is_identity(indices: Sequence[Expr], axes: Sequence[Var]) -> bool:
    return len(indices) == len(axes) and all(i.same_as(a) for i, a in zip(indices, axes, strict=True))


class Epilogue:
    """Writes outputs of ``kernel`` from accumulators.

    ``remap`` may replace a load of a parameter (to index a flattened view); it gets the parameter and the
    indices at the point that is written, and returns None to leave the load as it is.
    """

    def __init__(self, kernel: FusedKernel, lanes: int) -> None:
        self.kernel, self.lanes = kernel, lanes
        dtype = kernel.anchor_buffer.ty.dtype
        self._anchor = tir.Accumulators(1, lanes, dtype, "anchor")
        self._locals = {
            stage.buffer: tir.Accumulators(1, lanes, stage.buffer.ty.dtype, stage.buffer.name)
            for stage in kernel.stages[:-1]
        }
        self._defs = {stage.buffer: stage for stage in kernel.stages}

    def allocate(self) -> tirx.Stmt:
        """Scratch vectors; belongs before the first :meth:`write` in the same scope."""
        return tir.sequence(self._anchor.allocate(), *(acc.allocate() for acc in self._locals.values()))

    def write(
        self,
        value: Expr,
        indices: Callable[[Expr], Sequence[Expr]],
        *,
        count: int | Expr | None = None,
        remap: Remap | None = None,
        store: Callable[[Expr, Expr], tirx.Stmt] | None = None,
    ) -> tirx.Stmt:
        """Store one vector of the anchor's results, ``value``, through the epilogue.

        ``indices(lane)`` are the output's indices of one lane; ``count`` lanes are written (None: all of
        them, as vectors); ``store(lane, result)`` overrides the final store.
        """

        def at(lane: Expr) -> tirx.Stmt:
            point = list(indices(lane))

            def final(result: Expr) -> tirx.Stmt:
                if store is not None:
                    return store(lane, result)
                return tirx.BufferStore(self.kernel.output, result, point)

            if not self.kernel.stages:
                return final(self._anchor.lane(0, lane))
            stmts = []
            for stage in self.kernel.stages:
                result = self._evaluate(stage, point, lane, remap)
                is_last = stage.buffer not in self._locals
                stmts.append(
                    final(result) if is_last else tirx.BufferStore(self._locals[stage.buffer].buffer, result, [lane])
                )
            return tir.sequence(*stmts)

        extent, is_whole = (self.lanes, True) if count is None else (count, False)
        return tir.sequence(
            self._anchor.set(0, value),
            tir.loop("lane", extent, at, kind="vectorized" if is_whole and self.lanes > 1 else "serial"),
        )

    def _evaluate(self, stage: Stage, point: Sequence[Expr], lane: Expr, remap: Remap | None) -> Expr:
        mapping = dict(zip(stage.axes, point, strict=True))

        def map_load(load: TensorLoad) -> Expr:
            buffer = load.source
            here = len(load.indices) == len(point) and all(
                i.same_as(p) for i, p in zip(load.indices, point, strict=True)
            )
            if buffer.same_as(self.kernel.anchor_buffer):
                if not here:
                    raise Refusal("the epilogue reads the convolution at another place than it writes")
                return self._anchor.lane(0, lane)
            if buffer in self._locals and here:
                return tirx.BufferLoad(self._locals[buffer].buffer, [lane])
            if buffer in self._defs:
                return self._evaluate(self._defs[buffer], load.indices, lane, remap)
            mapped = remap(buffer, load.indices) if remap else None
            return load if mapped is None else mapped

        return tvm_ffi.structural_map(stage.value, [(Var, lambda var: mapping.get(var, var)), (TensorLoad, map_load)])
