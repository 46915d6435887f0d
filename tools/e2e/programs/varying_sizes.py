"""One compiled program, several sizes."""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-def"
import torch
import torch.nn.functional as F
from torch import nn

from torch_tvm.tools.e2e.case import case

_SIZES = (5, 2, 9, 16)
_VIA = ("fx", "torchscript", "dynamo")


def _varies(*specs, **more):
    return case(*specs, sizes=_SIZES, **{"frontends": _VIA, **more})


@_varies("nx4")
def rows_that_vary(x):
    return torch.relu(x) + 1


@_varies("nx4", "n")
def two_arguments_that_vary_together(x, y):
    return x * y[:, None]


@_varies("nx4")
def reductions_over_a_size_that_varies(x):
    return x.sum(0), x.mean(0), x.amax(0), x.var(0), x.argmax(0)


@_varies("2xnx8")
def softmax_over_a_size_that_varies(x):
    return torch.softmax(x, 1), torch.log_softmax(x, -1)


@_varies("nx4", "4xn")
def products_that_vary(x, y):
    return x @ y, y @ x


@_varies("1x2xnx8")
def attention_over_a_size_that_varies(x):
    return F.scaled_dot_product_attention(x, x, x, is_causal=False)


@_varies("nx6")
def views_that_vary(x):
    return x.reshape(-1, 3), x.flatten(), x.t(), x.unsqueeze(0).expand(2, -1, -1)


@case("nx4", sizes=(5, 3, 9), frontends=_VIA)  # torch.export asks for 3: the slices of fewer rows have a size of 1
def slices_that_vary(x):
    return x[1:], x[:-1], x[::2], x[-1]


@_varies("nx4", "3x4")
def concatenation_with_a_size_that_varies(x, y):
    return torch.cat([x, y, x])


@_varies("n")
def positions_of_a_size_that_varies(x):
    return torch.arange(x.shape[0]) * 2, torch.zeros(x.shape[0]), x.shape[0] * x


@_varies("nxn")
def masks_of_a_size_that_varies(x):
    return torch.tril(x), x + torch.ones(x.shape[0], x.shape[0]).triu(1)


@_varies("n:i64")
class EmbeddingThatVaries(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, x):
        return self.table(x).mean(0)


@_varies("nx3x8x8")
class ImagesThatVary(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))

    def forward(self, x):
        return self.body(x).flatten(1)


@_varies("1x3xnxn")
class ConvolutionOfAnyImage(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return F.adaptive_avg_pool2d(torch.relu(self.conv(x)), 1)


@_varies("nx5x4")
class EncoderThatVaries(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, x):
        return self.layer(x)


@_varies("nx2x3", refused={"fx": "torch.export fixes the length of a recurrence"})
class RecurrenceThatVaries(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4)

    def forward(self, x):
        return self.lstm(x)[0]


@_varies("nx4")
def sorting_what_varies(x):
    return torch.sort(x, 0)[0], torch.topk(x, 2, 0)[0], x.cumsum(0)


@_varies("nx4", "nx4:bool")
def masks_that_vary(x, mask):
    return torch.where(mask, x, 0.0), x.masked_fill(mask, -1.0).sum()


@_varies("2x3xn")
def resizing_what_varies(x):
    return F.interpolate(x, scale_factor=2.0, mode="nearest"), F.pad(x, (1, 2))


@_varies("nx4")
def norms_of_what_varies(x):
    return F.layer_norm(x, (4,)), F.normalize(x, dim=0)
