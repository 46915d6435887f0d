"""Small programs of tensors with unknown sizes: each is right, or raises, by its sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 16)
Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class Program:
    """A function of tensors and their shapes; ``"n"`` and ``"m"`` are sizes known at the call."""

    function: Callable[..., Any]
    shapes: tuple[Shape, ...]

    def __str__(self) -> str:
        return self.function.__name__

    def calls(self) -> list[dict[str, int]]:
        """The sizes to call it with."""
        if any("m" in shape for shape in self.shapes):
            return [{"n": n, "m": m} for n in (0, 1, 3, 4, 8) for m in (0, 1, 2, 3, 4)]
        return [{"n": n, "m": 0} for n in SIZES]

    def arguments(self, sizes: dict[str, int]) -> tuple[Tensor, ...]:
        """Tensors of these sizes."""
        generator = torch.Generator().manual_seed(sizes["n"] * 100 + sizes["m"])
        shapes = [[s if isinstance(s, int) else sizes[s] for s in shape] for shape in self.shapes]
        return tuple(torch.randn(shape, generator=generator) for shape in shapes)


PROGRAMS: list[Program] = []


def program(*shapes: Shape) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function of tensors of these shapes."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        PROGRAMS.append(Program(function, shapes))
        return function

    return register


# -- slices and elements -----------------------------------------------------------------------------------


@program(("n",))
def slice_front(x: Tensor) -> Tensor:
    return x[2:5]


@program((2, "n"))
def slice_one(x: Tensor) -> Tensor:
    return x[:, :1] * 2 + x[:, -1:]


@program(("n",))
def slice_end(x: Tensor) -> Tensor:
    return x[-3:] * 2


@program(("n", 3))
def slice_middle(x: Tensor) -> Tensor:
    return x[1:-1]


@program(("n",))
def slice_steps(x: Tensor) -> Tensor:
    return x[1::3] + 1


@program((2, "n"))
def slice_half(x: Tensor) -> Tensor:
    return x[:, : x.shape[1] // 2]


@program(("n",))
def slice_sum(x: Tensor) -> Tensor:
    return x[2:5].sum() + x[:3].sum()


@program(("n",))
def slice_add(x: Tensor) -> Tensor:
    return x[1:] - x[:-1]


@program(("n",))
def slice_assign(x: Tensor) -> Tensor:
    y = x.clone()
    y[2:4] = 1.0
    return y


@program(("n",))
def slice_assign_tensor(x: Tensor) -> Tensor:
    y = x.clone()
    y[1:3] = torch.ones(2)
    return y


@program(("n",))
def element(x: Tensor) -> Tensor:
    return x[5] + 0


@program(("n",))
def element_back(x: Tensor) -> Tensor:
    return x[-3] + 0


@program((3, "n"))
def element_column(x: Tensor) -> Tensor:
    return x[:, 1] * 2


@program(("n",))
def element_assign(x: Tensor) -> Tensor:
    y = x.clone()
    y[4] = 1.0
    return y


@program(("n",))
def narrow(x: Tensor) -> Tensor:
    return x.narrow(0, 1, 3) * 2


@program(("n", 2))
def select(x: Tensor) -> Tensor:
    return x.select(0, 2) + 1


@program((2, "n"))
def split_all(x: Tensor) -> list[Tensor]:
    return x.split([1, 3], 1)


@program((2, "n"))
def split_two(x: Tensor) -> Tensor:
    a, b = x.split(2, 1)
    return a + 2 * b


@program((2, "n"))
def chunk_two(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return a * 2 + b


@program((2, "n"))
def chunk_gate(x: Tensor) -> Tensor:
    return F.glu(x, 1)


@program(("n", 2))
def unbind_three(x: Tensor) -> Tensor:
    a, b, c = x.unbind(0)
    return a + b * c


@program(("n",))
def unfold(x: Tensor) -> Tensor:
    return x.unfold(0, 3, 2) + 0


@program(("n", "n"))
def diagonal(x: Tensor) -> Tensor:
    return x.diagonal(1) * 2


@program(("n",))
def index_list(x: Tensor) -> Tensor:
    return x[[0, 2, 4]]


@program(("n", 2))
def index_select(x: Tensor) -> Tensor:
    return x.index_select(0, torch.tensor([0, 3]))


# -- reshapes ----------------------------------------------------------------------------------------------


@program(("n",))
def view_pairs(x: Tensor) -> Tensor:
    return x.view(-1, 2) + 0


@program(("n", 2))
def view_fours(x: Tensor) -> Tensor:
    return x.reshape(-1, 4) * 2


@program(("n",))
def view_sevens(x: Tensor) -> Tensor:
    return x.view(-1, 7) + 1


@program(("n",))
def view_fixed(x: Tensor) -> Tensor:
    return x.view(2, 2) + 1


@program((2, "n"))
def view_swapped(x: Tensor) -> Tensor:
    return x.reshape(x.shape[1], 2) + 1


@program((2, "n"))
def view_heads(x: Tensor) -> Tensor:
    return x.view(2, 4, x.shape[1] // 4) + 1


@program((2, "n"))
def view_heads_inferred(x: Tensor) -> Tensor:
    return x.view(2, 4, -1).transpose(0, 1) * 2


@program((2, "n", 3))
def flatten(x: Tensor) -> Tensor:
    return x.flatten(1) * 2


@program((2, "n"))
def unflatten(x: Tensor) -> Tensor:
    return x.unflatten(1, (2, -1)) + 0


@program((2, "n"))
def squeeze(x: Tensor) -> Tensor:
    return x.unsqueeze(0).squeeze(0) + 1


@program(("n",))
def expand_one(x: Tensor) -> Tensor:
    return x.unsqueeze(1).expand(-1, 3) * 2


@program(("n", 1))
def expand_to_three(x: Tensor) -> Tensor:
    return x.expand(3, 2) * 2


@program(("n",))
def repeat(x: Tensor) -> Tensor:
    return x.repeat(2, 2)


@program((2, "n"))
def pixel_shuffle(x: Tensor) -> Tensor:
    return F.pixel_shuffle(x.view(1, 2, -1, 1).transpose(1, 2), 2)


@program((1, 1, "n", 4))
def pixel_unshuffle(x: Tensor) -> Tensor:
    return F.pixel_unshuffle(x, 2)


# -- broadcasting and products -------------------------------------------------------------------------------


@program(("n",), ("m",))
def add_two(x: Tensor, y: Tensor) -> Tensor:
    return x + y


@program(("n", 3), ("m", 3))
def add_rows(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(0)


@program(("n",))
def add_four(x: Tensor) -> Tensor:
    return x + torch.ones(4)


@program(("n", 3))
def add_outer(x: Tensor) -> Tensor:
    return x.unsqueeze(0) - x.unsqueeze(1)


@program(("n",), ("m",))
def where_two(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(x > 0, x, y)


@program((2, "n"), ("m", 3))
def matmul_inner(x: Tensor, y: Tensor) -> Tensor:
    return x @ y


@program((2, "n"))
def matmul_four(x: Tensor) -> Tensor:
    return x @ torch.ones(4, 3)


@program(("n",), ("m",))
def dot(x: Tensor, y: Tensor) -> Tensor:
    return x @ y


@program((2, "n"))
def linear(x: Tensor) -> Tensor:
    return F.linear(x, torch.ones(3, 4), torch.ones(3))


@program(("n", 2, 3), ("m", 3, 2))
def bmm(x: Tensor, y: Tensor) -> Tensor:
    return torch.bmm(x, y)


@program(("n", 2, 3), ("m", 3, 2))
def matmul_batches(x: Tensor, y: Tensor) -> Tensor:
    return x @ y


@program((2, "n", 4), (2, "m", 4))
def attention(x: Tensor, y: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, y, y)


# -- joining -------------------------------------------------------------------------------------------------


@program(("n", 2), ("m", 2))
def cat_rows(x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([x, y], 0)


@program(("n", 2), ("m", 3))
def cat_columns(x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([x, y], 1)


@program(("n",), ("m",))
def stack(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([x, y])


# -- windows -------------------------------------------------------------------------------------------------


@program((1, 2, "n"))
def conv1d(x: Tensor) -> Tensor:
    return F.conv1d(x, torch.ones(3, 2, 3))


@program((1, 2, "n"))
def conv1d_strided(x: Tensor) -> Tensor:
    return F.conv1d(x, torch.ones(2, 2, 4), stride=2, padding=1)


@program((1, "n", 5))
def conv1d_channels(x: Tensor) -> Tensor:
    return F.conv1d(x, torch.ones(2, 4, 3))


@program((1, 1, "n", "n"))
def conv2d(x: Tensor) -> Tensor:
    return F.conv2d(x, torch.ones(1, 1, 3, 3), dilation=2)


@program((1, 2, "n"))
def conv_transpose1d(x: Tensor) -> Tensor:
    return F.conv_transpose1d(x, torch.ones(2, 1, 3), stride=2)


@program((1, 1, "n", 5))
def max_pool2d(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)


@program((2, "n"))
def max_pool1d(x: Tensor) -> Tensor:
    return F.max_pool1d(x, 3, 2, 1)


@program((1, 2, "n"))
def avg_pool1d(x: Tensor) -> Tensor:
    return F.avg_pool1d(x, 4, stride=1, padding=1)


@program((1, 2, "n"))
def adaptive_avg_pool1d(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool1d(x, 3)


@program((1, 2, "n"))
def pad_zeros(x: Tensor) -> Tensor:
    return F.pad(x, (2, -3))


@program(("n", 3))
def pad_rows(x: Tensor) -> Tensor:
    return F.pad(x, (1, 0, 2, 1))


@program((1, 2, "n"))
def pad_reflect(x: Tensor) -> Tensor:
    return F.pad(x, (3, 2), mode="reflect")


@program((1, 2, "n"))
def pad_circular(x: Tensor) -> Tensor:
    return F.pad(x, (3, 1), mode="circular")


@program((1, 2, "n"))
def pad_replicate(x: Tensor) -> Tensor:
    return F.pad(x, (2, 1), mode="replicate")


@program((1, 2, "n"))
def interpolate(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="linear")


@program(("n", 1, 3))
def interpolate_batch(x: Tensor) -> Tensor:
    return F.interpolate(x, size=5) + F.interpolate(x, scale_factor=1.7)


@program((1, 1, "n"))
def interpolate_uneven(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=1.7, mode="linear")


@program(("n", 4, 6))
def col2im(x: Tensor) -> Tensor:
    return F.fold(x, (4, 3), 2)


@program((1, 1, "n", 4))
def im2col(x: Tensor) -> Tensor:
    return F.unfold(x, 3)


# -- reductions, orders, norms ---------------------------------------------------------------------------------


@program(("n",))
def topk(x: Tensor) -> Tensor:
    return x.topk(3)[0]


@program((2, "n"))
def kthvalue(x: Tensor) -> Tensor:
    return x.kthvalue(2)[0]


@program(("n",))
def maximum(x: Tensor) -> Tensor:
    return x.max()


@program((2, "n"))
def amax(x: Tensor) -> Tensor:
    return x.amax(1)


@program((2, "n"))
def argmax(x: Tensor) -> Tensor:
    return x.argmax(1)


@program(("n", 2))
def max_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    a, b = x.max(0)
    return a, b


@program(("n",))
def mean(x: Tensor) -> Tensor:
    return x.mean()


@program(("n", 3))
def var(x: Tensor) -> Tensor:
    return x.var(0)


@program((2, "n"))
def softmax(x: Tensor) -> Tensor:
    return x.softmax(1)


@program((2, "n"))
def layer_norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, (4,))


@program((2, "n", 3))
def group_norm(x: Tensor) -> Tensor:
    return F.group_norm(x, 2)


@program(("n", 4, 3))
def batch_norm_rows(x: Tensor) -> Tensor:
    return F.batch_norm(x, torch.zeros(4), torch.ones(4))


@program((2, "n", 3))
def batch_norm_channels(x: Tensor) -> Tensor:
    return F.batch_norm(x, torch.zeros(4), torch.ones(4))


@program((2, "n"))
def sort(x: Tensor) -> Tensor:
    return x.sort(1)[0]


@program(("n",))
def cumsum(x: Tensor) -> Tensor:
    return x.cumsum(0)


@program(("n", 2))
def roll(x: Tensor) -> Tensor:
    return x.roll(2, 0)


@program(("n",))
def flip(x: Tensor) -> Tensor:
    return x.flip(0)


@program(("n", "m"))
def tril(x: Tensor) -> Tensor:
    return x.tril(-1)


@program(("n",), ("m",))
def mse_loss(x: Tensor, y: Tensor) -> Tensor:
    return ((x - y) ** 2).mean()


@program(("n", 3), ("m", 3))
def cdist(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y)


@program(("n",))
def item(x: Tensor) -> Tensor:
    return torch.ones(2) * x.item()


@program(("n",))
def branch_on_size(x: Tensor) -> Tensor:
    if x.shape[0] > 3:
        return x[3:] * 2
    return x + 1


__all__ = ["PROGRAMS", "SIZES", "Program"]


# -- what PyTorch takes apart, of unknown sizes ----------------------------------------------------------------


@program(("n", "m"))
def shifted_spectrum(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.fft.fftshift(x), torch.fft.ifftshift(x, dim=(0,))


@program(("n", 3))
def distances_of_pairs(x: Tensor) -> Tensor:
    return torch.pdist(x)


@program(("n", 2), ("n", "m"))
def bilinear(x: Tensor, y: Tensor) -> Tensor:
    return F.bilinear(x, y, torch.ones(3, x.size(1), y.size(1)))


@program(("n", "m"))
def margins(x: Tensor) -> Tensor:
    return F.multi_margin_loss(x, torch.zeros(x.size(0), dtype=torch.int64), reduction="none")


@program(("n", "m"))
def entropy_of_probabilities(x: Tensor) -> Tensor:
    return F.cross_entropy(x, torch.softmax(x, 1), label_smoothing=0.1)


@program(("n", "m"))
def entropy_of_classes(x: Tensor) -> Tensor:
    labels = torch.zeros(x.size(0), dtype=torch.int64)
    return F.cross_entropy(x, labels, label_smoothing=0.1, reduction="none")


@program((2, "n", "m"))
def instance_norm(x: Tensor) -> Tensor:
    return F.instance_norm(x) if x.size(2) > 1 else x


@program(("n",))
def one_hot_of_any_classes(x: Tensor) -> Tensor:
    return F.one_hot((x * x * 3).to(torch.int64))


@program((7, 3), ("n", "m"))
def bags_of_one_length(table: Tensor, x: Tensor) -> Tensor:
    return F.embedding_bag((x * x).to(torch.int64).clamp(0, 6), table, mode="max")


# -- sizes as numbers ------------------------------------------------------------------------------------------


@program(("n", "m"))
def rolled_by_size(x: Tensor) -> Tensor:
    return x.roll(x.size(0) // 2, 0).roll(-x.size(1), 1)


@program(("n", "m"))
def spectrum(x: Tensor) -> Tensor:
    return torch.view_as_real(torch.fft.rfft(x))


@program(("n", "m"))
def shifted_bits_of_sizes(x: Tensor) -> Tensor:
    return x * ((x.size(0) << 2) + (x.size(1) >> 1))


@program(("n", "m"))
def half_of_the_largest(x: Tensor) -> Tensor:
    return x.topk((x.size(1) + 1) // 2, 1)[0]


@program(("n", "m"))
def norm_of_size(x: Tensor) -> Tensor:
    return torch.norm(x, float(x.size(1)), dim=0)


@program(("n", "m"), (3, "m"))
def sum_of_scaled_products(x: Tensor, y: Tensor) -> Tensor:
    return torch.addmm(torch.ones(x.size(0), 3), x, y.t(), beta=x.size(0), alpha=x.size(1))


@program(("n", "m"))
def corrected_by_size(x: Tensor) -> Tensor:
    return x.std(dim=[1], correction=x.size(0))


@program(("n", "m"))
def steps_of_size(x: Tensor) -> Tensor:
    return torch.arange(0, x.size(0) * x.size(1), x.size(1) + 1)


# -- ops that ask in vain whether there is anything --------------------------------------------------------------


@program(("n", "m"))
def elements_at(x: Tensor) -> Tensor:
    return x[x > 0].sum() + x[:, torch.zeros(2, dtype=torch.int64)].sum() if x.size(1) > 0 else x.sum()


@program(("n", "m"), ("n",))
def a_column_is_written(x: Tensor, y: Tensor) -> Tensor:
    return torch.select_scatter(x, y, 1, 0)


@program(("n", "m"), ("m", "n"))
def view_as(x: Tensor, y: Tensor) -> Tensor:
    return x.view_as(y) + y
