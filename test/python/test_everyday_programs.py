"""Programs as people write them: each compiles whole through every importer, and its results are eager's.

``LEFT`` says which ops of a program may run in PyTorch; none may because of a bug of ours.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import _pytree as pytree

import torch_tvm

r = torch.randn
Case = tuple[Any, tuple[torch.Tensor, ...]]
CASES: dict[str, Case] = {}
LEFT: dict[str, set[str]] = {}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 4e-2}


def case(*arguments: torch.Tensor, left: str = "") -> Callable[[Any], Any]:
    """Register a function, or a class of a module, with its arguments."""

    def add(program: Any) -> Any:
        CASES[program.__name__] = (program, arguments)
        LEFT[program.__name__] = set(left.split())
        return program

    return add


def compare(ours: Any, eager: Any) -> None:
    left, right = pytree.tree_leaves(ours), pytree.tree_leaves(eager)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        if not isinstance(b, torch.Tensor):
            assert a == b
            continue
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        bound = TOLERANCE.get(b.dtype, 0.0)
        torch.testing.assert_close(a, b, rtol=bound, atol=bound, equal_nan=True)


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments: torch.Tensor) -> Any:
        return self.function(*arguments)


def compiled(program: Any, arguments: tuple[torch.Tensor, ...], frontend: str) -> Any:
    module = program.eval() if isinstance(program, nn.Module) else Function(program)
    if frontend == "torchscript":
        module = torch.jit.trace(module, arguments, check_trace=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch_tvm.FallbackWarning)
        return torch_tvm.compile(module, arguments, frontend=frontend)


def check(name: str, frontend: str) -> None:
    program, arguments = CASES[name]
    torch.manual_seed(0)
    program = program() if isinstance(program, type) else program
    with torch.no_grad():
        if isinstance(program, nn.Module):
            program.eval()
        call = compiled(copy.deepcopy(program), arguments, frontend)
        for _ in range(2):
            own = tuple(a.clone() for a in arguments)
            compare(call(*(a.clone() for a in own)), program(*own))
            arguments = tuple(a.flip(0) if a.dim() else a for a in arguments)
    reasons = [item.reason for item in call.report.fallbacks]
    assert not any("bug" in reason for reason in reasons), reasons
    assert {item.op.removeprefix("torch.aten.") for item in call.report.fallbacks} <= LEFT[name]


# -- networks ----------------------------------------------------------------------------------------------


@case(r(2, 3, 8, 8))
class DropoutInPlace(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 4, 3),
            nn.Dropout2d(0.2, inplace=True),
            nn.Flatten(),
            nn.Dropout(0.2, inplace=True),
            nn.Linear(144, 5),
            nn.Hardswish(inplace=True),
            nn.Dropout(0.2, inplace=True),
        )


class RepVggBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.wide_norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.point, self.point_norm = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.identity = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.wide_norm(self.wide(x)) + self.point_norm(self.point(x))
        return F.relu(y + self.identity(x))


@case(r(2, 4, 6, 6))
class RepVgg(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(RepVggBlock(), RepVggBlock())
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)


@case(r(2, 4, 6, 6))
class NormsThatMeet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.table, self.conv = nn.Parameter(r(2, 4, 6, 6)), nn.Conv2d(4, 4, 1)
        self.a.running_mean.normal_()

    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        return self.b(self.a(x)), self.a(self.table) + x, self.b(y + self.conv(x * 2)) * 3, self.a(self.b(y))


@case(r(2, 8, 8))
def shifted_window_mask(x: torch.Tensor) -> torch.Tensor:
    mask, number = x.new_zeros((8, 8)), 0
    for rows in (slice(0, -4), slice(-4, -2), slice(-2, None)):
        for columns in (slice(0, -4), slice(-4, -2), slice(-2, None)):
            mask[rows, columns] = number
            number += 1
    windows = mask.view(2, 4, 2, 4).permute(0, 2, 1, 3).reshape(4, 16)
    mask = windows.unsqueeze(1) - windows.unsqueeze(2)
    return x.sum() + mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)


@case(r(4, 6), r(4, 6) > 0, left="as_strided as_strided_scatter __lshift__.Scalar")
def written_in_place(x: torch.Tensor, mask: torch.Tensor) -> Any:
    """Forms without a namesake: ``dropout_(self)``, ``__iand__``, and one without any functional form."""
    y, chosen, bits = x * 1, mask.clone(), torch.arange(4) + x.size(0)
    F.dropout(y[:, :3], 0.5, False, True).mul_(2)
    chosen &= mask.flip(1)
    bits <<= 1
    return y, chosen, bits


@case(r(4, 6))
def filled_diagonals(x: torch.Tensor) -> Any:
    return x.clone().fill_diagonal_(0.5), x.T.clone().fill_diagonal_(2, wrap=True)


# -- dtypes ------------------------------------------------------------------------------------------------


@case(r(2, 8, 5).double())
def norms_of_float64(x: torch.Tensor) -> Any:
    w = torch.arange(1.0, 6.0).double()
    return (
        F.layer_norm(x, (5,)),
        F.layer_norm(x, (5,), w, w * 2),
        F.group_norm(x, 2),
        F.instance_norm(x),
        F.rms_norm(x, (5,), w),
        F.batch_norm(x, x[0, :, 0] * 0, x[0, :, 0] * 0 + 2),
    )


@case(r(4, 8), r(3).bfloat16())
def rms_norm_over_all_dimensions(x: torch.Tensor, y: torch.Tensor) -> Any:
    return F.rms_norm(x, (4, 8)), F.rms_norm(x, (4, 8), x + 1, 0.1), F.rms_norm(y, (3,))


@case(r(1, 2, 8, 8).bfloat16(), torch.randint(0, 4, (4, 8)), left="scatter_reduce.two")
def bfloat16_choices(x: torch.Tensor, index: torch.Tensor) -> Any:
    rows = x[0, :, :2].reshape(4, 8)
    return (
        torch.where(x > 0, x, torch.zeros_like(x)),
        F.max_pool2d(x, 2, return_indices=True),
        F.adaptive_max_pool2d(x, 2, return_indices=True),
        *(rows.scatter_reduce(0, index, rows * 2, how) for how in ("amax", "amin", "mean")),
    )


@case(r(4, 8) > 0, r(4, 8) > 0, torch.randint(0, 4, (4, 8)))
def truth_values(x: torch.Tensor, y: torch.Tensor, index: torch.Tensor) -> Any:
    return torch.heaviside(x, y), x.scatter(0, index, y), x.clamp(min=0, max=1)


# -- sizes of zero -----------------------------------------------------------------------------------------


@case(r(3, 0, 4))
class RecurrentOfNothing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTM(4, 5, bidirectional=True), nn.GRU(4, 5)

    def forward(self, x: torch.Tensor) -> Any:
        return self.lstm(x), self.gru(x)


@case(r(0, 3, 16, 16))
class ConvolutionsOfNothing(nn.Sequential):
    def __init__(self) -> None:
        convolution = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        super().__init__(*convolution, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))


@case(r(3, 0), r(2, 3), torch.zeros(0, dtype=torch.long))
def parts_of_nothing(x: torch.Tensor, y: torch.Tensor, index: torch.Tensor) -> Any:
    return (
        x.tensor_split(2, 1),
        x.tensor_split(2, 0),
        x.repeat(2, 2),
        y.repeat(0, 2),
        F.adaptive_avg_pool1d(x.T, 2),
        torch.cat([y, x.T]),
        x.sum(1),
        x @ x.T,
        F.mse_loss(x, x),
        y[index],
        y.index_add(0, index, x.T),
        torch.tril_indices(0, 0),
        F.pad(x, (1, 1), value=2.0),
        x.nonzero(),
    )


@case(r(3, 4), torch.zeros(4, dtype=torch.bool), left="index.Tensor")
def nothing_chosen(x: torch.Tensor, mask: torch.Tensor) -> Any:
    return x[:, mask], x[:, torch.zeros(4, dtype=torch.bool)], x[mask[:3]]


# -- ops that run in PyTorch ---------------------------------------------------------------------------------


@case(r(5), left="where nonzero_numpy gradient.scalarint gradient.array hsplit.int")
def lists_of_one(x: torch.Tensor) -> Any:
    return torch.where(x > 0), (x > 0).nonzero(as_tuple=True), torch.gradient(x), torch.hsplit(x, 1)


COMPLEX = "abs view_as_real einsum split.Tensor cat unbind.int mul.Scalar mul.Tensor bmm permute mm view select.int"


@case(torch.randn(3, 4, dtype=torch.complex64), left=COMPLEX)
def lists_of_complex_numbers(x: torch.Tensor) -> Any:
    return (
        torch.einsum("ij,kj->ik", x, x).abs(),
        [torch.view_as_real(part) for part in x.split(2, 1)],
        torch.view_as_real(torch.cat(x.unbind(0))),
    )


@case(torch.tensor([1, 2, 3, 4, 0]), r(6, 4), left="embedding_bag.padding_idx")
def bags(index: torch.Tensor, weight: torch.Tensor) -> Any:
    ends = torch.tensor([0, 2, 5])
    return F.embedding_bag(index, weight, ends, include_last_offset=True), F.embedding_bag(index, weight, ends)


# -- what ended the process ----------------------------------------------------------------------------------


@case(r(4))
def parts_that_are_the_operand(x: torch.Tensor) -> Any:
    return torch.real(x), torch.diff(x, n=0), torch.cartesian_prod(x), x.sinh()


@case(torch.tensor(1.5), left="floor_divide remainder.Tensor")
def numbers(x: torch.Tensor) -> Any:
    return x.nonzero(), (x * 0).nonzero(), torch.hstack([x, x * 2])


LAZY_CANNOT = {
    **dict.fromkeys(("nothing_chosen", "lists_of_one", "parts_of_nothing", "numbers"), "a shape depends on data"),
    "filled_diagonals": "it writes through as_strided there, which PyTorch refuses",
}


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
@pytest.mark.parametrize("name", CASES)
def test_program(name: str, frontend: str) -> None:
    if frontend == "lazy" and name in LAZY_CANNOT:
        pytest.skip(LAZY_CANNOT[name])
    check(name, frontend)


def _largest(x: torch.Tensor):
    return torch.max(x, dim=1)


def _sorted(x: torch.Tensor):
    found = torch.sort(x)
    return [found, torch.topk(x, 5)], found.values


@pytest.mark.parametrize("function", [_largest, _sorted])
def test_scripted_result_with_names(function: Callable[..., Any]) -> None:
    """TorchScript gives what an op returns under names as a plain tuple."""
    script, x = torch.jit.script(function), r(4, 5)
    ours, eager = torch_tvm.compile(script, (x,))(x), script(x)
    assert pytree.tree_structure(ours) == pytree.tree_structure(eager)
    compare(ours, eager)


@pytest.mark.parametrize("columns", [7, 64, 512])
def test_product_of_a_batch_of_one(columns: int) -> None:
    """Such an operand looks like a panel of packed weights, of a width that no panel has."""
    a, b = r(1, 16, 16), r(1, 16, columns)
    target = {"kind": "llvm", "mcpu": "haswell", "num-cores": 8}
    compare(torch_tvm.compile(Function(torch.bmm), (a, b), target=target, fallback=False)(a, b), a @ b)


# -- autocast --------------------------------------------------------------------------------------------------


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(36, 8)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.linear(F.relu(self.norm(self.conv(x))).flatten(1))
        return y, (y @ y.T).softmax(-1)


class MixedWithin(Mixed):
    def forward(self, x: torch.Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, weights = super().forward(x)
        return y.float() @ self.linear.weight, weights


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("around", [True, False])
@pytest.mark.parametrize("frontend", ["fx", "torchscript"])
def test_autocast(frontend: str, around: bool, training: bool) -> None:
    x, module = r(2, 3, 5, 5), (Mixed if around else MixedWithin)().train(training)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=around):
        program = module
        if frontend == "torchscript":
            program = torch.jit.trace(module, (x,), check_trace=False)
        call = torch_tvm.compile(program, (x,), frontend=frontend, fallback=False)
        compare(call(x), module(x))


class Projected(nn.Module):
    """Products that are compiled, and one that runs in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("...i,ji->...j", self.linear(x), self.linear(x))


def test_exported_before_autocast() -> None:
    """An exported program is what its ops are called for: under autocast they convert."""
    x, module = r(5, 4), Projected()
    with torch.no_grad():
        exported = torch.export.export(module, (x,))
        outside, unconverted = torch_tvm.compile(exported, (x,)), module(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside, eager = torch_tvm.compile(exported, (x,)), exported.module()(x)
            compare(inside(x), eager)
            compare(outside(x), unconverted)
        compare(inside(x), eager)


def test_scripted_before_autocast() -> None:
    x, scripted = r(5, 4), torch.jit.script(Projected())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(torch_tvm.ImportFailed, match="autocast would convert operands"):
            torch_tvm.compile(scripted, (x,))
        torch_tvm.compile(torch.jit.script(nn.ReLU()), (x,), fallback=False)


def test_autocast_on_the_lazy_device() -> None:
    with pytest.raises(torch_tvm.ImportFailed, match="the lazy device does not know autocast") as caught:
        torch_tvm.compile(MixedWithin().eval(), (r(2, 3, 5, 5),), frontend="lazy")
    assert "test_everyday_programs.py" in str(caught.value) and "import_fx" in str(caught.value)


# -- dtypes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
def test_bool_within_bounds(frontend: str) -> None:
    def program(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> Any:
        return x.clamp(min=low), x.clamp(max=high[:1]), x.clamp(low.int(), high.int())

    arguments = tuple(torch.tensor([number >> bit & 1 for number in range(8)]).bool() for bit in range(3))
    call = compiled(program, arguments, frontend)
    assert not call.report.fallbacks
    compare(call(*arguments), program(*arguments))


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
def test_kth_of_one_number(frontend: str) -> None:
    def program(x: torch.Tensor) -> Any:
        return tuple(torch.kthvalue(x, 1)) + tuple(torch.kthvalue(-x, 1, 0, True))

    for x in (torch.tensor(3.0), torch.tensor(7)):
        compare(compiled(program, (x,), frontend)(x), program(x))


# -- masks of transformers -------------------------------------------------------------------------------------


class Decoded(nn.Module):
    """Whether its mask is the causal one is a question about data, which ``nn.Transformer`` asks for speed."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, 1)

    def forward(self, x: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor, padding: torch.Tensor) -> Any:
        return self.decoder(x, memory, tgt_mask=mask, memory_key_padding_mask=padding)


class Encoded(nn.Module):
    """TorchScript's reason to take no short cut is one of two texts, chosen at run time."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, padding: torch.Tensor) -> Any:
        return self.encoder(x, mask=mask, src_key_padding_mask=padding)


class Attended(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, padding: torch.Tensor) -> Any:
        mixed = self.attention(x, x, x, attn_mask=mask, key_padding_mask=padding, need_weights=False)[0]
        averaged = self.attention(x, x, x, attn_mask=mask)
        each = self.attention(x, x, x, key_padding_mask=padding, average_attn_weights=False)
        return mixed, averaged, each


CAUSAL = nn.Transformer.generate_square_subsequent_mask(4)
PADDING = torch.tensor([[False, False, False, True], [False, False, True, True]])
MASKED: dict[type[nn.Module], list[tuple[torch.Tensor, ...]]] = {
    Decoded: [(CAUSAL, PADDING), (torch.zeros(4, 4), ~PADDING.flip(1))],
    Encoded: [(CAUSAL.isinf(), PADDING), (CAUSAL.isinf().T, PADDING.flip(1))],
    Attended: [(CAUSAL.isinf(), PADDING), (CAUSAL.isinf().flip(0, 1), PADDING.flip(1))],
}


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy", "torch.compile"])
@pytest.mark.parametrize("kind", MASKED)
def test_masks(kind: type[nn.Module], frontend: str) -> None:
    torch.manual_seed(0)
    module, x = kind().eval(), r(2, 4, 8)
    first, *_ = calls = [(x, *([x.flip(0)] if kind is Decoded else []), *masks) for masks in MASKED[kind]]
    with torch.no_grad():
        if frontend == "torch.compile":
            call = torch.compile(module, backend="torch_tvm")
        else:
            program = torch.jit.script(module) if frontend == "torchscript" else module
            if kind is Encoded and frontend == "lazy":  # PyTorch makes a nested tensor of the padding
                with pytest.raises(torch_tvm.ImportFailed, match="leaves the lazy device"):
                    torch_tvm.compile(program, first, frontend=frontend)
                return
            call = torch_tvm.compile(program, first, frontend=frontend, fallback=False)
        for arguments in calls:
            compare(call(*arguments), module(*arguments))


def test_traced_attention_without_weights() -> None:
    """PyTorch's fused op leaves out a result that is not asked for."""
    torch.manual_seed(0)
    module, arguments = Attended().eval(), (r(2, 4, 8), *MASKED[Attended][0])
    with torch.no_grad():
        compare(compiled(module, arguments, "torchscript")(*arguments), module(*arguments))


def test_sequence_to_sequence() -> None:
    class Translated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)

        def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            mask = nn.Transformer.generate_square_subsequent_mask(target.size(1))
            return self.transformer(source, target, tgt_mask=mask)

    module, arguments = Translated().eval(), (r(2, 5, 8), r(2, 4, 8))
    with torch.no_grad():
        compare(torch_tvm.compile(module, arguments, fallback=False)(*arguments), module(*arguments))


def _told(x: torch.Tensor) -> torch.Tensor:
    why = "above" if bool(x.sum() > 0) else "below"
    if not why:
        return x
    return x + 1 if len(why) > 0 else x


def _told_by_text(x: torch.Tensor) -> torch.Tensor:
    why = "above" if bool(x.sum() > 0) else "below"
    return x + 1 if why == "below" else x


def test_text_that_run_time_chooses() -> None:
    x = r(3)
    compare(torch_tvm.compile(torch.jit.script(_told), (x,))(x), _told(x))
    with pytest.raises(torch_tvm.ImportFailed, match=r"'aten::eq' of text .* chosen at run time"):
        torch_tvm.compile(torch.jit.script(_told_by_text), (x,))


# -- sizes that are equal only for what a program was exported for ---------------------------------------------


def test_join_of_a_half_and_a_whole_picture() -> None:
    """A U-Net joins ``h`` with ``2 * ((h - 1) // 2 + 1)``: equal for an even ``h``, which no prover of TVM's sees."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Conv2d(16, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1)
            self.out = nn.Conv2d(32, 16, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.relu(self.up(x))
            z = F.interpolate(self.down(y), scale_factor=2.0)
            z = self.up(z) + self.down.bias[:, None, None]
            return self.out(torch.cat([z, y], 1)).relu()

    module, x = Net().eval(), r(1, 16, 8, 12)
    height, width = torch.export.Dim("h", min=2, max=16), torch.export.Dim("w", min=2, max=16)
    with torch.no_grad():
        call = torch_tvm.compile(module, (x,), dynamic_shapes=({2: 2 * height, 3: 2 * width},), fallback=False)
        for sizes in ((8, 12), (4, 20)):
            x = r(1, 16, *sizes)
            compare(call(x), module(x))
