"""The time loop of a recurrent layer: products with packed weights, gates while the sums are in the cache.

    for task in parallel(directions × row chunks):
        for t:
            for panel:                                      # W hidden units: the columns of all their gates
                for row tile:
                    sums[rows, gates, W] = h[t - 1] · weights[panel]
                    out[t], h[t], c[t] = cell(x[t], sums)

Hidden and cell states alternate between two buffers, so a step reads only what the step before wrote. A last panel
or row tile that is not full moves back until it fits: what it computes twice comes out the same.

One step over large weights is worth all cores where rows and directions are too few for them, or where every core
would read all weights from beyond its cache: then panels are the parallel loop, inside that over time
(:data:`STEP_WORK`). A :class:`~torch_tvm.workloads.recurrent.RecurrentWorkload` describes the PrimFunc; weights come as
:mod:`torch_tvm.transforms.recurrent` packed them.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from torch_tvm.schedules.cpu.matmul.register_tile import tile_shape
from torch_tvm.schedules.cpu.recurrent.kernel import Layer, RecurrentEmitter, RecurrentTiling
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import bytes_of, ceil_div, static
from torch_tvm.workloads.recurrent import RecurrentWorkload

SERIAL_WORK = 1 << 18
"""Multiply-adds of all steps together below which tasks share one thread."""

STEP_WORK = 1 << 18
"""Multiply-adds of one step from which starting all cores for it pays."""

TYPICAL_STEPS = 32
"""What an unknown number of steps is taken for."""


@dataclass(frozen=True)
class Panel:
    """``vectors`` of ``lanes`` hidden units, each with all its gates."""

    lanes: int
    vectors: int

    @property
    def width(self) -> int:
        return self.lanes * self.vectors


class Recurrent:
    """See the module's text."""

    name = "recurrent"

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        layer = read_layer(func)
        panel = choose_panel(layer.hidden, layer.workload.gates, layer.dtype, cpu)
        if layer.panel_width != panel.width:
            raise Refusal("the weights are not packed for this target")
        body = RecurrentEmitter(layer, choose_tiling(layer, panel, cpu)).emit()
        return func.with_body(body).without_attr(RecurrentWorkload.ATTRIBUTE)


def read_layer(func: tirx.PrimFunc) -> Layer:
    """Read the specification or raise :class:`Refusal`."""
    workload = RecurrentWorkload.from_attr(func.attrs)
    if workload is None:
        raise Refusal("no recurrent layer")
    params = list(func.params)
    x, initial, weights, bias = workload.split(params)
    if len(weights.shape) != 4:
        raise Refusal("the weights are not packed")
    output, *final = params[-1 - workload.states :]
    return Layer(workload, x, tuple(initial), weights, bias, output, tuple(final))


def choose_panel(hidden: int, gates: int, dtype: str, cpu: CpuModel) -> Panel:
    """Few padded units, as many vectors as leave registers for the tile; short layers take short vectors."""
    lanes = cpu.lanes(dtype)
    while lanes > hidden:
        lanes //= 2
    most = 8 if cpu.vector_registers >= 32 else 4
    fitting = [v for v in (4, 2, 1) if v == 1 or (gates * v <= most and v * lanes <= hidden)]
    return Panel(lanes, min(fitting, key=lambda v: ceil_div(hidden, v * lanes) * v))


def choose_tiling(layer: Layer, panel: Panel, cpu: CpuModel) -> RecurrentTiling:
    """Tile sizes and what runs in parallel, from the registers and cores of ``cpu``."""
    vectors = layer.workload.gates * panel.vectors
    most = max(1, min(8, (cpu.vector_registers - vectors - 1) // vectors))
    rows, steps = static(layer.batch), static(layer.steps)
    one_row = layer.workload.gates * layer.hidden * layer.hidden * layer.workload.directions
    tiles = 1 if rows is None else ceil_div(rows, most)
    chunks = max(1, min(tiles, cpu.cores // layer.workload.directions))
    step_work = one_row * (rows or 1)
    is_step_parallel = step_work >= STEP_WORK and (
        chunks * layer.workload.directions < cpu.cores or (chunks > 1 and _weight_bytes(layer) > cpu.l2)
    )
    chunks = 1 if is_step_parallel else chunks
    work = step_work * (steps or TYPICAL_STEPS)
    sizes = [most, 1] if rows is None and most > 1 else [_even(ceil_div(rows or 1, chunks), most)]
    return RecurrentTiling(
        shapes=tuple(tile_shape(size, vectors, panel.lanes, cpu) for size in sizes),
        vectors=panel.vectors,
        chunks=chunks,
        is_parallel=not is_step_parallel and chunks * layer.workload.directions > 1 and work >= SERIAL_WORK,
        is_step_parallel=is_step_parallel,
    )


def _weight_bytes(layer: Layer) -> int:
    """Of one direction."""
    return layer.workload.gates * layer.hidden * layer.hidden * bytes_of(layer.dtype)


def _even(rows: int, most: int) -> int:
    """Rows of a tile, at most ``most``, so that as many tiles as needed are about full."""
    return ceil_div(rows, ceil_div(rows, most)) if rows else 1
