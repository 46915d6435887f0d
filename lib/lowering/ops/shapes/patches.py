"""Images as columns of their patches, and sums of such columns back into images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.shapes.padding import constant_pad_nd
from torch_tvm.lowering.ops.shapes.views import reshape, same_size, squeeze_at, unsqueeze_at
from torch_tvm.lowering.registry import Size, Tensor, lowers
from torch_tvm.tir import SizeLike, as_size, ceil_div, product

Expr: TypeAlias = relax.Expr


class _Patches:
    """Where the patches of an image lie: element ``k`` of patch ``o`` is at pixel
    ``o * stride + k * dilation - padding``.
    """

    def __init__(
        self,
        b: Builder,
        size: Sequence[SizeLike],
        kernel: Sequence[int],
        dilation: Sequence[int],
        padding: Sequence[int],
        stride: Sequence[int],
    ) -> None:
        self.size, self.kernel, self.dilation = list(size), list(kernel), list(dilation)
        self.padding, self.stride = list(padding), list(stride)
        parts = (self.size, self.kernel, self.dilation, self.padding, self.stride)
        if any(len(part) != 2 for part in parts):
            b.unsupported("patches of other than two dimensions")
        if min(*self.kernel, *self.dilation, *self.stride) < 1 or min(self.padding) < 0:
            b.unsupported("a kernel, dilation or stride below 1, or a negative padding")
        self.counts = [
            (s + 2 * p - d * (k - 1) - 1) // step + 1
            for s, k, d, p, step in zip(self.size, self.kernel, self.dilation, self.padding, self.stride, strict=True)
        ]
        if any(isinstance(count, int) and count < 1 for count in self.counts):
            b.unsupported("no patch fits into the image")
        for count in self.counts:
            b.expect(as_size(count) >= 1, "no patch fits into the image")


def _batched(b: Builder, x: Expr, rank: int) -> tuple[Expr, bool]:
    if b.rank(x) not in (rank - 1, rank):
        b.unsupported(f"an input of rank {b.rank(x)}")
    return (x, True) if b.rank(x) == rank else (unsqueeze_at(b, x, 0), False)


@lowers("torch.aten.im2col")
def im2col(
    b: Builder, x: Tensor, kernel_size: list[int], dilation: list[int], padding: list[int], stride: list[int]
) -> Expr:
    """aten::im2col(Tensor self, int[2] kernel_size, int[2] dilation, int[2] padding, int[2] stride) -> Tensor"""
    patches = _Patches(b, b.shape(x)[-2:], kernel_size, dilation, padding, stride)
    value, batched = _batched(b, x, 4)
    batch, channels = b.shape(value)[:2]
    b.expect(as_size(channels) >= 1, "an image without channels")
    kernel, (step_h, step_w), (gap_h, gap_w) = patches.kernel, patches.stride, patches.dilation
    if any(patches.padding):
        (above, left) = patches.padding
        value = constant_pad_nd(b, value, [left, left, above, above], 0)

    def columns(data: te.Tensor, counts: list[Any]) -> te.Tensor:
        shape = [*data.shape[:2], *kernel, *(as_size(count) for count in counts)]
        element = lambda n, c, kh, kw, h, w: data(n, c, h * step_h + kh * gap_h, w * step_w + kw * gap_w)
        return te.compute(shape, element, name="columns")

    result = b.te(columns, value, list(patches.counts))
    result = reshape(b, result, [batch, channels * product(kernel), product(patches.counts)])
    return result if batched else squeeze_at(b, result, 0)


@lowers("torch.aten.col2im")
def col2im(
    b: Builder,
    x: Tensor,
    output_size: list[Size],
    kernel_size: list[int],
    dilation: list[int],
    padding: list[int],
    stride: list[int],
) -> Expr:
    """aten::col2im(Tensor self, SymInt[2] output_size, int[2] kernel_size, int[2] dilation, int[2] padding,
    int[2] stride) -> Tensor

    Each pixel sums the elements of the patches that cover it: without dilation as many as strides fit into a kernel,
    else one candidate for each element of the kernel.
    """
    patches = _Patches(b, output_size, kernel_size, dilation, padding, stride)
    value, batched = _batched(b, x, 3)
    batch, rows, places = b.shape(value)
    area = product(patches.kernel)
    if not isinstance(rows, int) or rows % area or not same_size(places, product(patches.counts)):
        b.unsupported("columns that do not fit the image")
    dtype = b.dtype(x)
    split = reshape(b, value, [batch, rows // area, *patches.kernel, *patches.counts])

    def image(columns: te.Tensor, size: list[Any]) -> te.Tensor:
        counts = columns.shape[4:]
        candidates = [
            ceil_div(k, s) if d == 1 else k
            for k, s, d in zip(patches.kernel, patches.stride, patches.dilation, strict=True)
        ]
        axes = [te.reduce_axis((0, count), name="tap") for count in candidates]

        def element(n: Any, c: Any, *pixel: Any) -> Any:
            found = [_covering(patches, axis, pixel[axis], axes[axis], counts[axis]) for axis in range(2)]
            inside = tirx.all(*(condition for _, _, condition in found))
            elements, places = [e for e, _, _ in found], [p for _, p, _ in found]
            return te.sum(tirx.Select(inside, columns(n, c, *elements, *places), tirx.const(0, dtype)), axis=axes)

        return te.compute([*columns.shape[:2], *(as_size(s) for s in size)], element, name="image")

    result = b.te(image, split, list(patches.size))
    return result if batched else squeeze_at(b, result, 0)


def _covering(patches: _Patches, axis: int, pixel: Any, tap: Any, count: Any) -> tuple[Any, Any, Any]:
    """Element and place of candidate ``tap`` for ``pixel``, both within bounds, and whether it is one."""
    stride, kernel, dilation = patches.stride[axis], patches.kernel[axis], patches.dilation[axis]
    at = pixel + patches.padding[axis]
    if dilation == 1:
        place = tirx.floordiv(at, stride) - tap
        element = at - place * stride
        is_one = tirx.all(place >= 0, place < count, element < kernel)
        element = tirx.min(element, kernel - 1)
    else:
        rest = at - tap * dilation
        place, element = tirx.floordiv(rest, stride), tap
        is_one = tirx.all(rest >= 0, tirx.EQ(tirx.floormod(rest, stride), tirx.const(0, "int64")), place < count)
    return element, tirx.max(tirx.min(place, count - 1), 0), is_one
