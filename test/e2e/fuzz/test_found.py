"""Programs that random search found, as small as they get, against eager PyTorch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from programs import Input, Line, Program
from runner import check

# An importer with a question mark may refuse; what runs in PyTorch has its numbers all the same.
ALL = "fx torchscript lazy dynamo"

FOUND = [
    # TVM fills nothing: it divides by the number of elements.
    (ALL, "return (a0 != a0).to(torch.bfloat16), torch.zeros_like(a0, dtype=torch.bfloat16)", ["float32[2,0]"]),
    # TVM binds no vectors of bools, as names of a branch are.
    (ALL, "v = torch.where(a0 > -1, a0, a0.masked_fill(a0 > 0, -1))\nreturn torch.block_diag(v, torch.arange(4))",
     ["bfloat16[4]"]),
    ("fx", "return torch.cat([a0, a0, a1 < a1]), torch.cat([a1, a1, a0 == a0]).int()",
     ["float16[6,6]", "float64[6,6]"]),
    # TVM's LiftTransformParams took a weight for unused that only a returned tuple has.
    ("torchscript", "if a0.numel() > 25:\n    a0.mul_(2)\nreturn torch.linspace(0, 1, 5)", ["int8[4,?,?]"]),
    ("torchscript", "v = a0\nwhile bool(v.sum() < 8):\n    v = v + 1\nreturn v, torch.ones(2, 3) * 2", ["float32[3]"]),
    # The schemas of these views tell none: AOTAutograd and the lazy device lost what is written to them.
    (ALL, """v, w = a0.unsafe_chunk(2, 0)[0], torch.unsafe_split(a0, 1, 1)[-1]
v.add_(1)
w.mul_(2)
a0.unsafe_split_with_sizes([1, 3], 0)[1].sub_(3)
return v, w, a0 * 1""", ["float32[4,3]"]),
    # Eager fills expanded tensors; AOTAutograd and the lazy device lose that.
    ("fx torchscript lazy? dynamo?", """v = a0 * 2
w = v.expand(2, 4, 3)
w.fill_(float("nan"))
w[1, :, :1].fill_(1)
x = v[:, :1].expand(4, 3)
x[1:, 1:].t().zero_()
return v, w, x, v.sum()""", ["float32[4,3]"]),
    (ALL, "v = a0 * 2\nw = v.expand(2, 3)\nw.select(0, 1).add_(1)\nreturn v, w", ["int8[3]"]),
    ("fx torchscript dynamo?", "a0.t().fill_(2)\nreturn a0 * 1", ["float32[4,3]"]),
    # Numbers become those of the dtype: -1 is 255 to uint8; TVM divides no vectors of bools.
    ("fx", """i = torch.zeros(1, 3, dtype=torch.int64)
v = [torch.remainder(a0, -1), torch.fmod(a0, -3), a0 // -3, torch.div(a0, 300, rounding_mode="trunc")]
w = [a1.scatter(0, i, -1), F.pad(a1, (1, 2), value=2.5), a0.scatter(0, i, -1), a0.index_fill(0, i[0, :1], -2)]
x = [torch.remainder(a1, -3), a1 // -3, torch.fmod(a1, 2)]
return v[0], v[1], v[2], v[3], w[0], w[1], w[2], w[3], x[0], x[1], x[2]""", ["uint8[4,3]", "bool[4,3]"]),
    # What lies between windows stays; the lazy device and AOTAutograd set it to zero.
    ("fx torchscript lazy? dynamo?", "v = a0.unfold(1, 1, 2)\nv.exp_()\nreturn v, a0 * 1", ["float32[6,3]"]),
    # AOTAutograd loses the write to an argument of shape [] and float64.
    ("fx torchscript lazy dynamo?", "a0.mul_(2)\nreturn a0 + 1", ["float64[]"]),
    # With unknown sizes AOTAutograd takes the offset of what is returned, which was that of the new value.
    ("dynamo", "a0.transpose(0, 1).mul_(3)\nreturn a0.expand_as(a0), a0[1:]", ["float32[?,4,1]:offset"]),
    # As many pieces as an unknown size says.
    ("torchscript", """v = a0.split(2, 1)
n = len(v) * 100 + len(a0.unbind(0))
for each in a0.unbind(1):
    each.add_(n)
w = a1.unsafe_split(2)[-1]
x, y = torch.stack(a0.unbind(1), 1), torch.cat(a0.unbind(1))
return v[-1], v[0], w * 1, torch.cat(a0.split(2, 1), 1), x, y, a1.unbind()[1], a2.split(2, 2)[-1]""",
     ["float32[4,?]", "float32[?]", "float32[3,0,?]"]),
    ("torchscript", """v = a0.chunk(3, 1)
w = a0.unsafe_chunk(2, 0)[-1] * len(v)
x, y = a0.tensor_split(3, 1)[1], torch.take_along_dim(a0, torch.argsort(a0, dim=1, stable=True), 1)
return v[-1] * 1, v[1] * 1, w, x + 1, y, torch.lerp(a1, a1, a0), torch.addcmul(a1, a1, a0, value=1.5)""",
     ["float32[4,?]", "float32[?]"]),
    # torch-mlir leaves out all tensors without elements.
    ("fx dynamo", "return torch.cat([a0, a0, a0.double()])", ["float32[0,?]"]),
    # torch-mlir takes 3.14159 for pi.
    (ALL, "return torch.rad2deg(a0), torch.deg2rad(a0), torch.rad2deg(a1)", ["float64[3]", "int8[3]"]),
    # A bool beside bools is no 1, and a number may stand before a tensor; scripts of PyTorch make numbers of both.
    ("fx lazy dynamo", """v, w = a0 > 0, a1 * 2
return v * True, v + True, v & True, torch.where(v, v, True), True * w, 2 // a0, 2.5 // w, torch.pow(w, True)""",
     ["float32[3]", "int64[3]"]),
    # torch.tensor(0.5) is a number to the lazy device.
    ("fx torchscript lazy? dynamo", "return (a0 > 0) * torch.tensor(0.5, dtype=torch.float64)", ["float32[3]"]),
    # Sizes that PyTorch finds at run time, joined with those of an argument: TVM mixed the two up and lost a buffer.
    ("dynamo", """v = a0.float()
w = torch.stack([v.gather(1, torch.argsort(v, dim=1, stable=True)), a0], 0)
return w.round().int()""", ["bfloat16[2,?,2,4]"]),
    ("fx torchscript dynamo", "v = a0 * 2\nreturn torch.where(v == v, 1, torch.floor(a1)), v < v, a2 >= a2",
     ["int64[8,6]", "int64[]", "int8[2,0]"]),
    ("fx torchscript", "v = torch.ceil(a0)\nreturn a0 < v, a0 == v, v.sum((0,), dtype=torch.float64)", ["int64[?,4]"]),
    # The lazy device says that the result has the shape of the tensor.
    ("fx lazy dynamo", """v = a0.masked_fill(a1 > 0, 2)
if v.dim() == 2:
    return v + 1, a1.masked_fill(a0 > 0, 1)
return v - 1, a1.masked_fill(a0 > 0, a0.sum().int())""", ["float32[3]", "int32[4,3]"]),
    ("fx torchscript dynamo", "return a0.index_put((torch.tensor([0, 0]),), a0[0], accumulate=True) * 1",
     ["bfloat16[?,0]"]),
    # After dynamo's break two arguments share memory; AOTAutograd takes their offsets for constants.
    ("fx dynamo?", "v = a0[a1 % 3, a1 % 3]\na0[-1::2].sub_(3)\nreturn v * 1", ["int64[3,8,4]", "int64[]"]),
    # The real parts are a view, and no longer complex.
    (ALL, """v = torch.fft.rfft(a0)
w = v.real
return w * 1, torch.real(v) + w, v.imag - 1""", ["float32[3,4]"]),
    ("torchscript", "return (a0 > 0) + 1, a0.int() - 0.5, torch.fft.rfft(a0, dim=1).abs()", ["float32[3,?]"]),
    ("fx lazy", """i = torch.zeros(1, dtype=torch.int64)
v = a1.scatter(0, i, a0), a1.scatter_add(0, i, a0), a1.scatter_reduce(0, i, a0, "amax")
return v[0], v[1], v[2], a0.scatter(0, i[0], a1)""", ["int64[]", "int64[3]"]),
    # A number is no 0-d tensor: the latter has its say in the dtype.
    (ALL, "return a0 * 1j, 2j + a1, (a0 == a0) * 1j, a2 / (1 + 2j)", ["float32[3]", "float64[2]", "int32[2]"]),
    # Dropout outside training is its operand; AOTAutograd copies that.
    (ALL, """v, w = F.dropout(a0, 0.5, False), F.dropout(a0, p=0.0)
a0[a0 > 0] = 1.5
return v, w, torch.dropout(a0, 0.1, train=False)""", ["float32[4,3]"]),
    # Equal numbers of bfloat16 are equal only when they are rounded.
    (ALL, """v = a0 / 3
return (3 / a0).min(-1)[1], v.argmax(0), v > a0 * 0.335, (a0 * 1.7 + 300).floor(), (a0 * 1.01) // 0.25, \
    v.topk(9, -1)[0]""", ["bfloat16[60,80]"]),
    # Four unknown sizes, all of them large at a time, have more bytes than there are addresses.
    ("torchscript?", "return torch.polar(a0, a0)", ["float32[?,?,?,?]"]),
    ("fx? torchscript? lazy? dynamo?", "torch.add(a1, a1, out=a0)\nreturn a1 * 2", ["bfloat16[0,17]", "float32[7,8]"]),
    ("torchscript", "return a0 >> 3, a0 << 70, a0 | 300, a2 & 15, a2 >> 4, a0 >> a2, a1 | a1, a1 ^ a0",
     ["int64[4,3]", "bool[4,3]", "uint8[4,3]"]),
    ("fx lazy dynamo", """v = a0 + 0
v <<= 2
v |= a1
v ^= 1
return v, a0 >> 3, a0 << 70, 5 ^ a0, a0 | 300, a1 ^ 2, a1 | True, a2 & 15, a2 >> 4, a0 >> a2, a1 | a1, a1 ^ a0""",
     ["int64[4,3]", "bool[4,3]", "uint8[4,3]"]),
    (ALL, """v = torch.tensor([3e9, -3e9, 70000.0, -300.0, float("nan"), float("inf")]) + a0
return v.short(), v.to(torch.int8), v.to(torch.uint8), v.double().short(), v.to(torch.bfloat16).int()""",
["float32[1]"]),
    # TVM's simplifier takes x - x for 0 and x + y - y for x, whatever x is and the sum was rounded to.
    (ALL, """v = a0.masked_fill(a0 > 0, float("inf"))
w, x = (v + 1) - (v + 1), a1.to(torch.bfloat16)
return w + v, (v * 2 - v * 2) == 0, (v - v).sum(), F.mse_loss(v, v), F.huber_loss(v, v, reduction="none"), \\
    v.exp() - v.exp(), (x - x) * 2, (a1 + 1e8) - 1e8, a1 - (a1 + 1e8), F.pairwise_distance(v, v)""",
     ["float32[4,3]", "float64[4,3]"]),
    # What is returned was a view of what has another shape by then.
    ("dynamo", "v = torch.isnan(a0)\nw = v.detach()\nv.unsqueeze_(0)\nreturn w", ["float32[2,4,4]:transposed"]),
]  # fmt: skip


def _program(text: str, arguments: list[str]) -> Program:
    """``?`` is a size that varies, 3 at first; ``float32[2,3]:expanded`` has a layout."""
    inputs = []
    for index, argument in enumerate(arguments):
        kind, _, layout = argument.partition(":")
        dtype, _, sizes = kind.rstrip("]").partition("[")
        shape = tuple(3 if size == "?" else int(size) for size in sizes.split(",") if size)
        inputs.append(Input(f"a{index}", f"torch.{dtype}", shape, layout or "dense"))
    body, _, results = text.rpartition("return ")
    is_dynamic = any("?" in argument for argument in arguments)
    return Program(tuple(inputs), (), (Line(body.strip()),) if body else (), (results,), 1, dynamic=is_dynamic, size=3)


@pytest.mark.parametrize("frontends, text, arguments", FOUND, ids=[text for _, text, _ in FOUND])
def test_found(frontends: str, text: str, arguments: list[str], tmp_path: Path) -> None:
    for frontend in frontends.split():
        verdict, why = check(_program(text, arguments), frontend.rstrip("?"), tmp_path)
        assert verdict == "same" or (verdict == "refused" and frontend.endswith("?")), (frontend, why)


class Unread(torch.nn.Module):
    """Reads no value of its buffer, and has a constant: nothing of its parameters is packed at a call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("b", torch.zeros(8, 6, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        v = self.b * 2
        return torch.tril(torch.ones(4, 4)) > 0, torch.where(v == v, 1, torch.floor(x))


def test_a_buffer_that_nobody_reads() -> None:
    module, x = Unread(), torch.tensor(3)
    torch._dynamo.reset()
    with torch.no_grad():
        found = torch.compile(module, backend="torch_tvm")(x)
    assert all(map(torch.equal, found, module(x)))
