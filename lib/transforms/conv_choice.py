"""Which kernel a convolution gets: algorithm, layouts, and the reasons to leave it alone."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import relax, tirx
from tvm.ir import Expr

from torch_tvm.schedules.conv_workload import ConvWorkload
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal

KERNEL_PATTERN = 4
"""FuseOps' pattern of a kernel that takes elementwise consumers into its epilogue."""

LAYOUTS = {1: ("NCW", "OIW", "IOW"), 2: ("NCHW", "OIHW", "IOHW"), 3: ("NCDHW", "OIDHW", "IODHW")}


@dataclass(frozen=True)
class Convolution:
    """A Relax convolution: what its kernel computes, whatever the layout."""

    in_channels: int
    out_channels: int
    groups: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    dtype: str
    out_spatial: tuple[Expr, ...]


def read_convolution(call: relax.Call) -> Convolution:
    """The parameters of ``relax.nn.conv{1,2,3}d(_transpose)``. Raises :class:`Refusal`."""
    attrs, (data, weight) = call.attrs, call.args
    transposed = "transpose" in call.op.name
    shapes = [arg.ty.shape and list(arg.ty.shape) for arg in (data, weight)]
    if any(shape is None for shape in shapes) or call.ty.shape is None:
        raise Refusal("a shape is unknown")
    rank = len(shapes[0]) - 2
    data_layout, kernel_layout, transposed_layout = LAYOUTS[rank]
    expected = transposed_layout if transposed else kernel_layout
    if str(attrs.data_layout) != data_layout or str(attrs.kernel_layout) != expected:
        raise Refusal(f"layout {attrs.data_layout} with {attrs.kernel_layout}")
    dtype = str(data.ty.dtype)
    if dtype not in ("float32", "float64"):
        raise Refusal(f"dtype {dtype}")
    if str(weight.ty.dtype) != dtype or str(call.ty.dtype) != dtype:
        raise Refusal("data, weight and result differ in dtype")
    sizes = [*shapes[1], shapes[0][1]]
    if not all(isinstance(size, tirx.IntImm) for size in sizes):
        raise Refusal("the weight's shape is not constant")
    groups = int(attrs.groups)
    if transposed:
        in_channels, out_channels = int(shapes[1][0]), int(shapes[1][1]) * groups
    else:
        in_channels, out_channels = int(shapes[1][1]) * groups, int(shapes[1][0])
    kernel = tuple(int(size) for size in shapes[1][2:])
    if min(in_channels, out_channels, *kernel) < 1:
        raise Refusal("an axis of size 0")
    return Convolution(
        in_channels=in_channels,
        out_channels=out_channels,
        groups=groups,
        kernel=kernel,
        strides=tuple(int(s) for s in attrs.strides),
        padding=tuple(int(p) for p in list(attrs.padding)[:rank]),
        dilation=tuple(int(d) for d in attrs.dilation),
        transposed=transposed,
        dtype=dtype,
        out_spatial=tuple(list(call.ty.shape)[2:]),
    )


def choose_convolution(conv: Convolution, cpu: CpuModel, is_blocked: bool, accuracy: str) -> ConvWorkload:
    """The kernel for ``conv``; ``is_blocked`` says whether its data is in blocked layout already."""
    lanes = cpu.lanes(conv.dtype)
    is_depthwise = (
        conv.groups == conv.in_channels == conv.out_channels and conv.groups > 1 and not conv.transposed
    )
    outputs = conv.out_channels // conv.groups
    out_lanes = lanes if conv.groups == 1 or outputs % lanes == 0 or is_depthwise else 1
    needs_blocks = is_depthwise or is_blocked or conv.in_channels > 2 * lanes
    return ConvWorkload(
        algorithm="depthwise" if is_depthwise else "direct",
        in_channels=conv.in_channels,
        out_channels=conv.out_channels,
        groups=conv.groups,
        kernel=conv.kernel,
        strides=conv.strides,
        padding=conv.padding,
        dilation=conv.dilation,
        lanes=lanes,
        data_lanes=lanes if needs_blocks else 1,
        out_lanes=out_lanes,
        transposed=conv.transposed,
    )
