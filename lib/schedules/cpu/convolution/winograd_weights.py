"""``G g G^T`` of all 3x3 filters of a Winograd convolution, where the weights are known at run time alone.

The filters of as many output channels as a vector has lanes lie far apart; they are read row by row and transposed in
registers, so that each tap of all of them is a vector, from which the points are straight-line code.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr

from torch_tvm import tir
from torch_tvm.schedules.cpu.convolution.winograd_transform import VectorCode
from torch_tvm.schedules.cpu.register_transpose import transpose_registers
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import const, static_sizes
from torch_tvm.workloads.rearrangement import Rearrangement
from torch_tvm.workloads.winograd import Matrix

TAPS = 9


class WinogradWeights:
    """``[OC, IC, 3, 3]`` to ``[points, OC / lanes, IC, lanes]``, a square of channels at a time."""

    name = "winograd-weights"

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        steps = dict(getattr(Rearrangement.from_attr(func.attrs), "steps", ()))
        if "winograd" not in steps:
            raise Refusal("no transform of Winograd weights")
        source, target = (param for param in func.params if isinstance(param.ty, tirx.BufferType))
        lanes = cpu.lanes(str(source.dtype))
        sizes = static_sizes([*source.shape[:2], target.shape[-1]])
        if sizes is None or sizes[0] % lanes or sizes[1] % lanes or sizes[2] != lanes:
            raise Refusal(f"the channels fill no squares of {lanes}")
        kernel = _Kernel(source, target, steps["winograd"], lanes)
        tasks = sizes[0] // lanes * (sizes[1] // lanes)
        body = tir.loop("task", tasks, kernel.square, kind="parallel" if cpu.cores > 1 else "serial")
        return func.with_body(tir.sequence(kernel.view, body)).without_attr(Rearrangement.ATTRIBUTE)


class _Kernel:
    def __init__(self, source: tirx.Buffer, target: tirx.Buffer, matrix: Matrix, lanes: int) -> None:
        self.source, self.target, self.matrix, self.lanes = source, target, matrix, lanes
        self.size, self.dtype = len(matrix), str(source.dtype)
        self.channels = int(source.shape[1])
        self.flat = tirx.decl_buffer((tir.elements(source.shape),), self.dtype, f"{source.name}_flat")
        self.view = tirx.DeclBuffer(self.flat, data=source.data)

    def square(self, task: Expr) -> tirx.Stmt:
        """``lanes`` output channels by ``lanes`` input channels."""
        blocks, lanes = const(self.channels // self.lanes), const(self.lanes)
        block, bound_block = tir.bind_index("block", task // blocks)
        first, bound_first = tir.bind_index("first", task % blocks * lanes)
        taps = tirx.decl_buffer([const(TAPS * self.lanes), lanes], self.dtype, "taps")
        half = tirx.decl_buffer([const(3 * self.size * self.lanes)], self.dtype, "half", scope="local")
        row = lambda out: ((block * lanes + out) * const(self.channels) + first) * const(TAPS)

        def turned(part: Expr) -> tirx.Stmt:
            load = lambda out, lane: tirx.BufferLoad(self.flat, [row(const(out)) + part * lanes + lane])
            store = lambda tap, lane, value: tirx.BufferStore(taps, value, [part * lanes + const(tap), lane])
            return transpose_registers(self.lanes, self.dtype, load, store)

        return tir.sequence(
            bound_block,
            bound_first,
            tirx.AllocBuffer(taps),
            tirx.AllocBuffer(half),
            tir.loop("part", TAPS, turned),
            tir.loop("channel", self.lanes, lambda channel: self._filters(taps, half, block, first, channel)),
        )

    def _filters(self, taps: tirx.Buffer, half: tirx.Buffer, block: Expr, first: Expr, channel: Expr) -> tirx.Stmt:
        """The points of the filters that read one input channel, down their columns and then across."""
        code = VectorCode(self.lanes, self.dtype)
        tap = lambda k: tir.load(taps, [channel * const(TAPS) + const(k), 0], self.lanes)
        for j in range(3):
            values = [code.bind(f"g{i}", tap(3 * i + j)) for i in range(3)]
            for r, value in enumerate(code.transform(self.matrix, values)):
                code.stmts.append(tir.store(half, value, [const((3 * r + j) * self.lanes)], self.lanes))

        def across(r: Expr) -> tirx.Stmt:
            row = VectorCode(self.lanes, self.dtype)
            place = lambda j: [(r * const(3) + const(j)) * const(self.lanes)]
            values = [row.bind(f"h{j}", tir.load(half, place(j), self.lanes)) for j in range(3)]
            for s, value in enumerate(row.transform(self.matrix, values)):
                point = r * const(self.size) + const(s)
                row.stmts.append(tir.store(self.target, value, [point, block, first + channel, 0], self.lanes))
            return tir.sequence(*row.stmts)

        return tir.sequence(*code.stmts, tir.loop("r", self.size, across))
