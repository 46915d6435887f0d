"""The loop nest of a recurrent layer; :mod:`torch_tvm.schedules.cpu.recurrent.rule` says what it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from torch_tvm.schedules.cpu.matmul.register_tile import TileShape, emit_tile
from torch_tvm.tir import as_size, broadcast, ceil_div, const, load, loop, sequence, static, store, when
from torch_tvm.workloads.recurrent import RecurrentWorkload, new_states


@dataclass(frozen=True)
class Layer:
    """The tensors of one layer (:class:`~torch_tvm.workloads.recurrent.RecurrentWorkload` has their shapes).

    ``weights`` are packed: ``[directions, panels, hidden, gates * panel width]``.
    """

    workload: RecurrentWorkload
    x: tirx.Buffer
    initial: tuple[tirx.Buffer, ...]
    weights: tirx.Buffer
    bias: tirx.Buffer | None
    output: tirx.Buffer
    final: tuple[tirx.Buffer, ...]

    @property
    def hidden(self) -> int:
        return int(self.initial[0].shape[2])

    @property
    def steps(self) -> Expr:
        return self.x.shape[1 if self.workload.batch_first else 0]

    @property
    def batch(self) -> Expr:
        return self.x.shape[0 if self.workload.batch_first else 1]

    @property
    def dtype(self) -> str:
        return str(self.x.dtype)

    @property
    def panel_width(self) -> int:
        return int(self.weights.shape[3]) // self.workload.gates


@dataclass(frozen=True)
class RecurrentTiling:
    """Register tiles (the first with enough rows runs), vectors of a panel, and what runs on all cores.

    ``chunks`` are parts of the batch; with ``is_step_parallel`` the panels of each step are shared out.
    """

    shapes: tuple[TileShape, ...]
    vectors: int
    chunks: int
    is_parallel: bool
    is_step_parallel: bool


class Gates:
    """The arithmetic of the cells on vectors of ``lanes``; each step is stored where LLVM finds a register."""

    def __init__(self, lanes: int, dtype: str) -> None:
        self.lanes, self.dtype = lanes, dtype
        self.stmts: list[tirx.Stmt] = []

    def keep(self, value: Expr) -> Expr:
        buffer = tirx.decl_buffer((const(self.lanes),), self.dtype, "v")
        self.stmts += [tirx.AllocBuffer(buffer), store(buffer, value, [0], self.lanes)]
        return load(buffer, [0], self.lanes)

    def sigmoid(self, value: Expr) -> Expr:
        return self.keep(tirx.sigmoid(self.keep(value)))

    def tanh(self, value: Expr) -> Expr:
        return self.keep(tirx.tanh(self.keep(value)))

    def zero(self) -> Expr:
        return broadcast(tirx.const(0, self.dtype), self.lanes)


class RecurrentEmitter:
    """Writes the kernel of one layer under one tiling."""

    def __init__(self, layer: Layer, tiling: RecurrentTiling) -> None:
        self.layer, self.tiling = layer, tiling
        self.lanes = tiling.shapes[0].lanes
        self.width = tiling.vectors * self.lanes
        self.panels = ceil_div(layer.hidden, self.width)
        rows = static(layer.batch)
        self.rows: int | Expr = layer.batch if rows is None else ceil_div(rows, tiling.chunks)
        slots = self.rows * (layer.workload.directions if tiling.is_step_parallel else 1)
        shape = (const(2), as_size(slots), const(layer.hidden))
        names = ("hidden", "cell")[: layer.workload.states]
        self.states = [tirx.decl_buffer(shape, layer.dtype, name) for name in names]

    def emit(self) -> tirx.Stmt:
        directions, chunks = self.layer.workload.directions, self.tiling.chunks
        if self.tiling.is_step_parallel:
            return self.step_parallel()

        def task(which: Expr) -> tirx.Stmt:
            d = which // chunks if chunks > 1 else which
            first: Expr = const(0)
            if chunks > 1:
                first = tirx.min(which % chunks * self.rows, self.layer.batch - self.rows)
            row0, direction = tirx.Var("first_row", "int64"), tirx.Var("direction", "int64")
            panels = lambda t: loop(
                "panel",
                self.panels,
                lambda p: self.panel(t, direction, self.back_and_forth(t, p), row0, const(0)),
            )
            return sequence(
                tirx.Bind(direction, d),
                tirx.Bind(row0, first),
                *(tirx.AllocBuffer(state) for state in self.states),
                self.copy_states(direction, row0, const(0), is_start=True),
                loop("t", self.layer.steps, panels),
                self.copy_states(direction, row0, const(0), is_start=False),
            )

        return loop("task", directions * chunks, task, kind="parallel" if self.tiling.is_parallel else "serial")

    def step_parallel(self) -> tirx.Stmt:
        """All directions and panels of a step on all cores; states in buffers that tasks share."""
        directions, zero = self.layer.workload.directions, const(0)

        def step(t: Expr) -> tirx.Stmt:
            def task(which: Expr) -> tirx.Stmt:
                d = which // self.panels if directions > 1 else zero
                return self.panel(t, d, which % self.panels, zero, d * self.rows)

            return loop("panel", directions * self.panels, task, kind="parallel")

        copy = lambda is_start: loop(
            "direction", directions, lambda d: self.copy_states(d, zero, d * self.rows, is_start=is_start)
        )
        return sequence(
            *(tirx.AllocBuffer(state) for state in self.states),
            copy(True),
            loop("t", self.layer.steps, step),
            copy(False),
        )

    def back_and_forth(self, t: Expr, panel: Expr) -> Expr:
        """The panels in turn, in every second step from the last to the first: that one finds the last in the cache."""
        return tirx.Select(t % 2 == 1, self.panels - 1 - panel, panel) if self.panels > 1 else panel

    def start(self, panel: Expr) -> Expr:
        """The first hidden unit of a panel."""
        if self.layer.hidden % self.width == 0:
            return panel * self.width
        return tirx.min(panel * self.width, const(self.layer.hidden - self.width))

    def copy_states(self, d: Expr, row0: Expr, slot: Expr, *, is_start: bool) -> tirx.Stmt:
        """The initial states to the buffers, or the last ones from there to the results."""
        layer = self.layer

        def copy(row: Expr, at: Expr) -> tirx.Stmt:
            stmts = []
            for state, initial, final in zip(self.states, layer.initial, layer.final, strict=True):
                if is_start:
                    value = load(initial, [layer.workload.first_slot + d, row0 + row, at], self.lanes)
                    stmts.append(store(state, value, [0, slot + row, at], self.lanes))
                else:
                    value = load(state, [layer.steps % 2, slot + row, at], self.lanes)
                    stmts.append(store(final, value, [d, row0 + row, at], self.lanes))
            return sequence(*stmts)

        whole = ceil_div(layer.hidden, self.lanes)
        at = lambda v: tirx.min(v * self.lanes, const(layer.hidden - self.lanes))
        return loop("row", self.rows, lambda row: loop("vector", whole, lambda v: copy(row, at(v))))

    def panel(self, t: Expr, d: Expr, panel: Expr, row0: Expr, slot: Expr) -> tirx.Stmt:
        """One step of the hidden units of one panel, for all rows."""
        result: tirx.Stmt | None = None
        for shape in reversed(self.tiling.shapes):
            tiles = ceil_div(self.rows, shape.rows)

            def tile(which: Expr, shape: TileShape = shape) -> tirx.Stmt:
                first = which * shape.rows
                if shape.rows > 1 and not (isinstance(self.rows, int) and self.rows % shape.rows == 0):
                    first = tirx.min(first, self.rows - shape.rows)
                return self.tile(shape, t, d, panel, row0, slot, first)

            body = loop("tile", tiles, tile)
            result = body if result is None else when(as_size(self.rows) >= const(shape.rows), body, result)
        assert result is not None
        return result

    def tile(self, shape: TileShape, t: Expr, d: Expr, panel: Expr, row0: Expr, slot: Expr, first: Expr) -> tirx.Stmt:
        layer = self.layer
        sums = tirx.decl_buffer((const(shape.rows), const(shape.columns)), layer.dtype, "sums")
        row, start = tirx.Var("tile_row", "int64"), tirx.Var("start", "int64")
        now = t % 2
        product = emit_tile(
            shape,
            layer.hidden,
            lambda r, k: tirx.BufferLoad(self.states[0], [now, slot + row + r, k]),
            lambda k, column: tirx.BufferLoad(layer.weights, [d, panel, k, column]),
            lambda r, column, total: tirx.BufferStore(sums, total, [r, column]),
            layer.dtype,
        )
        vectors: Callable[[Expr], tirx.Stmt] = lambda r: sequence(
            *(
                self.cell(t, d, start + v * self.lanes, row0, slot, row + r, sums, r, v)
                for v in range(self.tiling.vectors)
            )
        )
        return sequence(
            tirx.Bind(row, first),
            tirx.Bind(start, self.start(panel)),
            tirx.AllocBuffer(sums),
            product,
            loop("row", shape.rows, vectors),
        )

    def cell(
        self,
        t: Expr,
        d: Expr,
        unit: Expr,
        row0: Expr,
        slot: Expr,
        row: Expr,
        sums: tirx.Buffer,
        r: Expr,
        v: int,
    ) -> tirx.Stmt:
        """One vector of hidden units of one row, from the sums to the new states and the output."""
        layer, lanes, g = self.layer, self.lanes, Gates(self.lanes, self.layer.dtype)
        time = t if layer.workload.directions == 1 else tirx.Select(d > 0, layer.steps - 1 - t, t)
        place: Sequence[Expr] = [row0 + row, time] if layer.workload.batch_first else [time, row0 + row]
        now, later = t % 2, 1 - t % 2
        x, h = [], []
        for gate in range(layer.workload.gates):
            x.append(g.keep(load(layer.x, [*place, (d * layer.workload.gates + gate) * layer.hidden + unit], lanes)))
            total = load(sums, [r, (gate * self.tiling.vectors + v) * lanes], lanes)
            if layer.bias is not None:
                total = total + load(layer.bias, [d, gate * layer.hidden + unit], lanes)
            h.append(g.keep(total))
        old = [g.keep(load(state, [now, slot + row, unit], lanes)) for state in self.states]
        new = new_states(layer.workload.cell, g, x, h, old)
        return sequence(
            *g.stmts,
            store(layer.output, new[0], [*place, d * layer.hidden + unit], lanes),
            *(store(s, value, [later, slot + row, unit], lanes) for s, value in zip(self.states, new, strict=True)),
        )
