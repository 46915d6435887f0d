"""Small networks, one for each kind of layer that people build with."""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-def"
import torch
import torch.nn.functional as F
from torch import nn

from torch_tvm.tools.e2e.case import case


def _network(name, spec, make, **options):
    """A case whose module ``make()`` builds."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = make()

        def forward(self, x):
            return self.body(x)

    case(spec, name=name, **options)(Network)


_network("Conv2dModule", "2x3x8x8", lambda: nn.Conv2d(3, 8, 3))
_network("Conv2dPaddedStridedModule", "2x3x9x9", lambda: nn.Conv2d(3, 8, 3, stride=2, padding=1))
_network("Conv2dDilatedModule", "1x3x9x9", lambda: nn.Conv2d(3, 4, 3, dilation=2, bias=False))
_network("Conv2dGroupedModule", "1x8x6x6", lambda: nn.Conv2d(8, 16, 3, groups=4))
_network("Conv2dDepthwiseModule", "1x8x6x6", lambda: nn.Conv2d(8, 8, 3, groups=8, padding="same"))
_network("Conv2dReflectModule", "1x3x6x6", lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"))
_network("Conv2dNormModule", "2x3x8x8", lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.SiLU()))
_network("Conv1dModule", "2x3x16", lambda: nn.Conv1d(3, 8, 5, stride=2))
_network("Conv3dModule", "1x2x5x6x6", lambda: nn.Conv3d(2, 4, 3))
_network("ConvTranspose2dModule", "1x4x5x5", lambda: nn.ConvTranspose2d(4, 3, 3, 2, output_padding=1))
_network("ConvTranspose1dModule", "1x4x7", lambda: nn.ConvTranspose1d(4, 3, 4, 2, padding=1))
_network("LinearModule", "3x8", lambda: nn.Linear(8, 5))
_network("LinearNoBiasModule", "2x3x8", lambda: nn.Linear(8, 5, bias=False))
_network("LinearVectorModule", "8", lambda: nn.Linear(8, 5))
_network("MlpModule", "3x8", lambda: nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4), nn.Softmax(-1)))
_network("BatchNorm1dModule", "4x6", lambda: nn.BatchNorm1d(6))
_network("LayerNormModule", "2x3x8", lambda: nn.LayerNorm(8))
_network("GroupNormModule", "2x8x4x4", lambda: nn.GroupNorm(4, 8))
_network("InstanceNormModule", "2x3x6x6", lambda: nn.InstanceNorm2d(3, affine=True))
_network("RmsNormModule", "2x3x8", lambda: nn.RMSNorm(8))
_network("MaxPool2dModule", "1x3x8x8", lambda: nn.MaxPool2d(3, 2, 1))
_network("MaxPool2dCeilModule", "1x3x7x7", lambda: nn.MaxPool2d(2, ceil_mode=True))
_network("AvgPool2dModule", "1x3x8x8", lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False))
_network("AdaptivePoolModule", "1x3x9x7", lambda: nn.AdaptiveAvgPool2d((3, 2)))
_network("UpsampleModule", "1x3x4x4", lambda: nn.Upsample(scale_factor=2, mode="bilinear"))
_network("PixelShuffleModule", "1x8x3x3", lambda: nn.PixelShuffle(2))
_network("EmbeddingModule", "2x5:i64", lambda: nn.Embedding(10, 6, padding_idx=0))
_network("LstmModule", "4x2x3", lambda: nn.LSTM(3, 5, num_layers=2, bidirectional=True))
_network("GruModule", "2x4x3", lambda: nn.GRU(3, 5, batch_first=True))
_network("RnnModule", "4x2x3", lambda: nn.RNN(3, 5, nonlinearity="relu"))
_network("EncoderLayerModule", "2x5x8", lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
_network("PReluModule", "2x4x3", lambda: nn.PReLU(4))
_network("UnflattenModule", "2x12", lambda: nn.Unflatten(1, (3, 4)))

for _name in (
    "ReLU", "GELU", "SiLU", "Mish", "ELU", "SELU", "Hardswish", "Hardsigmoid", "Softplus", "Sigmoid", "Tanh",
    "LeakyReLU",
    "LogSigmoid", "Softsign", "Hardtanh", "ReLU6", "CELU", "Tanhshrink",
):  # fmt: skip
    _network(f"{_name}Module", "3x7", getattr(nn, _name))


@case("2x3x8x8")
class ResidualBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        x = self.stem(x)
        return torch.relu(x + self.two(torch.relu(self.norm(self.one(x)))))


@case("2x8x4x4")
class SqueezeAndExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


@case("2x6x8")
class CausalAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))


@case("1x4x8x8")
class TwoScales(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        small = F.interpolate(self.a(x), size=x.shape[-2:], mode="nearest")
        return {"both": self.b(torch.cat([x, small], 1)), "small": small}


@case("2x5", "2x5")
def several_results_in_a_nest(x, y):
    return {"sum": x + y, "pair": (x - y, [x * y])}


@case("3x4", "4:i64")
def a_loss(x, y):
    return F.cross_entropy(x.T, y % 3), F.mse_loss(x, x * 2), F.smooth_l1_loss(x, x + 1)


@case("3x4:f16")
def half_precision(x):
    return torch.softmax(x, -1), x @ x.T, x.mean()


@case("3x4:bf16")
def bfloat16(x):
    return torch.softmax(x, -1), x @ x.T, F.gelu(x)


@case("3x4:f64")
def double_precision(x):
    return torch.softmax(x, -1), x @ x.T, x.std()


@case("0x4")
def no_rows(x):
    return x.sum(0), x * 2, torch.cat([x, x])


@case(":f32")
def no_dimensions(x):
    return x * 2, x.reshape(1), x.sin().exp()


@case("4x4")
def einsum_and_norm(x):
    return torch.einsum("ij,jk->ik", x, x), torch.linalg.vector_norm(x), x.norm(dim=0)
