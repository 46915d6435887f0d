"""Families of programs that a frontend took with help of PyTorch's own forms of an operator: nothing is left to
PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch._higher_order_ops import associative_scan, scan
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.utils import _pytree as pytree

import torch_tvm
from torch_tvm import ImportFailed

Program = Callable[..., Any]
D = torch.distributions


def r(*sizes: int) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(sum(sizes)))


class Flat(nn.Module):
    """A program as a module whose results are a flat tuple."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program

    def forward(self, *args: Any) -> tuple[torch.Tensor, ...]:
        return tuple(pytree.tree_leaves(self.program(*args)))


def agrees(program: Program, args: Sequence[torch.Tensor], frontend: str) -> None:
    """Compile without PyTorch's ops, call twice after a seed, and compare with eager, and what is left of the
    generator.
    """
    module: Any = Flat(program).eval()
    source = torch.jit.trace(module, tuple(args), check_trace=False) if frontend == "torchscript" else module
    compiled = torch_tvm.compile(source, tuple(args), frontend=frontend, fallback=False)
    for given in (args, [each.flip(0) if each.dim() else each for each in args]):
        torch.manual_seed(3)
        with torch.no_grad():
            expected, state = module(*given), torch.get_rng_state()
        torch.manual_seed(3)
        found = compiled(*given)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
        assert torch.equal(torch.get_rng_state(), state)


# -- higher-order operators ----------------------------------------------------------------------------


def running(xs: torch.Tensor) -> Any:
    return scan(lambda c, x: (c + x, (c * x).sin()), torch.zeros(4), xs)


def mapped(xs: torch.Tensor, y: torch.Tensor) -> Any:
    from torch._higher_order_ops.map import map

    return map(lambda x, y: (x * y).cos(), xs, y)


def recurrence(a: torch.Tensor, x: torch.Tensor) -> Any:
    join = lambda left, right: (left[0] * right[0], right[0] * left[1] + right[1])
    return associative_scan(join, (a, x), dim=0, combine_mode="generic")


def scored(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, slope: torch.Tensor) -> Any:
    return flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: s * slope[h] + (j - i), scale=0.3)


def masked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, 128, 128, device="cpu")
    return flex_attention(q, k, v, block_mask=mask, enable_gqa=True)


def of_each_row(x: torch.Tensor) -> Any:
    return torch.vmap(lambda a: (a * a).sum() + a[0])(x), torch.vmap(torch.dot)(x, x)


def gradients(x: torch.Tensor) -> Any:
    return torch.func.grad(lambda a: (a.sin() ** 2).sum())(x), torch.func.jacrev(lambda a: a.sin() * a.sum())(x)


HIGHER_ORDER = [
    (running, [r(6, 4)]),
    (mapped, [r(6, 4), r(4)]),
    (recurrence, [r(6, 4), r(6, 4)]),
    (scored, [r(1, 2, 128, 16), r(1, 2, 128, 16), r(1, 2, 128, 16), r(2)]),
    (masked, [r(1, 4, 128, 16), r(1, 2, 128, 16), r(1, 2, 128, 16)]),
    (of_each_row, [r(5, 4)]),
    (gradients, [r(5)]),
]


@pytest.mark.parametrize(("program", "args"), [pytest.param(*each, id=each[0].__name__) for each in HIGHER_ORDER])
def test_higher_order_operators(program: Program, args: list[torch.Tensor]) -> None:
    agrees(program, args, "fx")


# -- random numbers and distributions ------------------------------------------------------------------


def draws(x: torch.Tensor) -> Any:
    drawn = torch.randn(3, 4) * torch.rand_like(x), torch.randint(0, 9, (3,)), torch.randperm(5)
    filled = torch.empty(3).uniform_(-1, 1), torch.zeros(3).exponential_(), torch.zeros(4).normal_(2, 3)
    return drawn, filled, torch.bernoulli(x.sigmoid()), torch.normal(0.0, 2.0, (3,)), x + torch.rand(4)


def skipping(x: torch.Tensor) -> Any:
    torch.rand(2)  # which nobody reads, and which moves the generator
    return x * torch.rand(4)


def dropouts(x: torch.Tensor) -> Any:
    F = nn.functional
    return (
        F.dropout(x, 0.4, True),
        F.alpha_dropout(x, 0.3, True),
        F.dropout1d(x, 0.5, True),
        F.dropout(x, 0.4),
    )


def normal(x: torch.Tensor) -> Any:
    d = D.Normal(x, x.abs() + 0.1)
    return d.log_prob(x + 1), d.rsample(), d.entropy()


def others(x: torch.Tensor) -> Any:
    scale = x.abs() + 0.5
    square = scale[:, :3] @ scale[:, :3].T + torch.eye(3)
    found = D.MultivariateNormal(x[:, 0], covariance_matrix=square).log_prob(x[:, 1])
    return found, D.Categorical(logits=x).sample(), D.Geometric(x.sigmoid()).log_prob(scale.round())


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
@pytest.mark.parametrize("program", [draws, dropouts, normal, others], ids=lambda each: each.__name__)
def test_random_numbers(program: Program, frontend: str) -> None:
    agrees(program, [r(3, 4)], frontend)


@pytest.mark.parametrize("frontend", ["fx", "lazy"])
def test_numbers_that_nobody_reads_are_drawn(frontend: str) -> None:
    agrees(skipping, [r(3, 4)], frontend)


@pytest.mark.parametrize("frontend", ["fx", "lazy"])
def test_constraints_of_distributions_are_asserted(frontend: str) -> None:
    x = torch.rand(4) + 0.5
    density = Flat(lambda s: D.Normal(0.0, s, validate_args=True).log_prob(s))  # dynamo turns it off for all
    compiled = torch_tvm.compile(density, (x,), frontend=frontend, fallback=False)
    compiled(x)
    with pytest.raises(RuntimeError, match="does not satisfy its constraint"):
        compiled(-x)


# -- numbers that a program knows until it writes to them ------------------------------------------------


def through_a_view(x: torch.Tensor) -> torch.Tensor:
    n = torch.tensor([1, 2])
    n.view(-1).add_(1)
    return x[: int(n[0])]


def through_an_argument(x: torch.Tensor) -> torch.Tensor:
    n = torch.tensor([1, 2])
    torch.add(n, n, out=n)
    return x[: int(n[0])]


def through_another_dtype(x: torch.Tensor) -> torch.Tensor:
    n = torch.tensor([1, 2])
    n.view(torch.float64).zero_()
    return x * n.tolist()[1]


def through_a_reshape(x: torch.Tensor) -> torch.Tensor:
    n = torch.tensor([1, 2])
    n.reshape(2, 1).mul_(2)
    return x * n[1].item()


@pytest.mark.parametrize("frontend", ["fx", "lazy"])
@pytest.mark.parametrize("program", [through_a_view, through_an_argument, through_another_dtype, through_a_reshape])
def test_numbers_that_are_written_to_are_known_no_more(program: Program, frontend: str) -> None:
    x = r(6)
    try:
        compiled = torch_tvm.compile(Flat(program), (x,), frontend=frontend)
    except ImportFailed:  # torch.export has no size that depends on data for a slice
        assert frontend == "fx" and program in (through_a_view, through_an_argument)
        return
    (found,) = compiled(x)
    torch.testing.assert_close(found, program(x))


# -- packed sequences of known lengths -------------------------------------------------------------------

RNN = nn.utils.rnn


class PackedLstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(4, 5, num_layers=2, bidirectional=True)

    def forward(self, x: torch.Tensor) -> Any:
        packed = RNN.pack_padded_sequence(x, torch.tensor([6, 4, 4, 1]))
        output, (h, c) = self.layer(packed)
        padded, lengths = RNN.pad_packed_sequence(output, total_length=7)
        return padded, h, c, lengths, packed.data, packed.batch_sizes


class PackedGru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(4, 5, batch_first=True, bidirectional=True, bias=False)

    def forward(self, x: torch.Tensor) -> Any:
        packed = RNN.pack_padded_sequence(x, torch.tensor([3, 6, 1]), batch_first=True, enforce_sorted=False)
        output, h = self.layer(packed)
        padded, lengths = RNN.pad_packed_sequence(output, batch_first=True, padding_value=-1.0)
        return padded, h, lengths


class PackedRnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.RNN(4, 5, nonlinearity="relu")

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> Any:
        output, last = self.layer(RNN.pack_padded_sequence(x, torch.tensor([6, 2])), h)
        return RNN.pad_packed_sequence(output)[0], last


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
@pytest.mark.parametrize(
    ("module", "args"),
    [(PackedLstm, [r(6, 4, 4)]), (PackedGru, [r(3, 6, 4)]), (PackedRnn, [r(6, 2, 4), r(1, 2, 5)])],
)
def test_packed_sequences(module: type[nn.Module], args: list[torch.Tensor], frontend: str) -> None:
    torch.manual_seed(0)
    agrees(module(), args, frontend)


def test_packed_sequences_of_computed_lengths_are_refused() -> None:
    def program(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return RNN.pack_padded_sequence(x, lengths)[0]

    with pytest.raises(torch_tvm.ImportFailed, match="where their lengths are known"):
        torch_tvm.import_torchscript(torch.jit.script(program), (r(6, 2, 4), torch.tensor([6, 2])))


def test_lengths_that_do_not_fall_are_an_error() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        return RNN.pack_padded_sequence(x, torch.tensor([2, 6]))[0]

    with pytest.raises(torch_tvm.ImportFailed, match="must fall"):
        torch_tvm.import_torchscript(torch.jit.script(program), (r(6, 2, 4),))


# -- encoders with a padding mask --------------------------------------------------------------------------


class Encoder(nn.Module):
    def __init__(self, norm: nn.Module | None) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, norm=norm)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return self.encoder(x, src_key_padding_mask=padding)


LAST = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()
AMIDST = torch.tensor([[0, 1, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()


@pytest.mark.parametrize("norm", [None, nn.LayerNorm(8)], ids=["plain", "norm"])
@pytest.mark.parametrize("frontend", ["fx", "script", "trace", "lazy"])
def test_padding_becomes_zeros_where_eager_packs(frontend: str, norm: nn.Module | None) -> None:
    torch.manual_seed(0)
    module: Any = Encoder(norm).eval()
    x = r(2, 5, 8)
    with torch.no_grad():
        source = torch.jit.script(module) if frontend == "script" else module
        source = torch.jit.trace(module, (x, LAST)) if frontend == "trace" else source
        via = "torchscript" if frontend in ("script", "trace") else frontend
        compiled = torch_tvm.compile(source, (x, LAST), frontend=via, fallback=False)
        for padding in (LAST, AMIDST) if frontend != "trace" else (LAST,):
            torch.testing.assert_close(compiled(x, padding), module(x, padding), rtol=1e-4, atol=1e-5)


def test_channels_are_quantised_as_eager_does() -> None:
    scale, zero = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0, 3, -2], dtype=torch.int32)
    agrees(lambda x: torch.fake_quantize_per_channel_affine(x * 9, scale, zero, 0, -128, 127), [r(3, 4)], "fx")


def test_shifts_of_tensors_and_numbers() -> None:
    shifts = lambda x, n: (x << 2, x << n, 3 << n, x >> 1, x >> n)
    agrees(shifts, [torch.arange(6), torch.tensor([0, 1, 2, 3, 2, 1])], "fx")


# -- numbers of tensors -----------------------------------------------------------------------------------

NUMBERS: list[Program] = [
    lambda a, b: int(a) + int(b),
    lambda a, b: int(a) // int(b),
    lambda a, b: int(a) == int(b),
    lambda a, b: float(a) // float(b),
    lambda a, b: float(a) >= int(b),
    lambda a, b: (bool(a), bool(float(b))),
    lambda a, b: (math.sqrt(float(a) ** 2), math.floor(float(b)), abs(int(a))),
    lambda a, b: torch.full((2,), int(a)) * float(b),
]


@pytest.mark.parametrize("frontend", ["fx", "lazy"])
@pytest.mark.parametrize("number", range(len(NUMBERS)))
def test_numbers(number: int, frontend: str) -> None:
    """``int(x)`` and ``float(x)``, which torch.export takes for constants unless dynamo traces them."""
    program = NUMBERS[number]
    calls = [(torch.tensor(a), torch.tensor(b, dtype=torch.float64)) for a, b in ((7, 2.5), (-3, 2.0), (2, 2.0))]
    compiled = torch_tvm.compile(program, calls[0], frontend=frontend, fallback=False)
    for args in calls:
        found, expected = pytree.tree_leaves(compiled(*args)), pytree.tree_leaves(program(*args))
        assert [type(each) for each in found] == [type(each) for each in expected]
        assert all(map(torch.equal, *([torch.as_tensor(v) for v in each] for each in (found, expected))))
