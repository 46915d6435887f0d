"""Programs that write through views: each view op with an in-place op, of an argument, a fresh tensor and a buffer.

They are text, so that they can be scripted. One module runs many of them, each on tensors of its own, and returns
what every alias shows afterwards.
"""

from __future__ import annotations

import importlib.util
import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

VIEWS = (
    "b.view(6, 4)",
    "b.reshape(3, 8)",
    "b.t()",
    "b.T",
    "b.mT",
    "b.mH",
    "b.H",
    "b.adjoint()",
    "b.transpose(-1, -2)",
    "b.permute(1, 0)",
    "b.view(2, 2, 6).permute(2, 1, 0)",
    "b.movedim(0, 1)",
    "b.swapaxes(0, 1)",
    "b[1]",
    "b[:, -1]",
    "b[1:3]",
    "b[:, 1::2]",
    "b[None, 1:, ..., 2]",
    "b.narrow(1, 2, 3)",
    "b.narrow(1, -3, 2)",
    "b.unsqueeze(1)",
    "b.unsqueeze(0).unsqueeze(2).squeeze([0, 2])",
    "b.unsqueeze(0).squeeze()",
    "b.flatten()",
    "b.ravel()",
    "b.unflatten(1, [2, 3])",
    "b.unsqueeze(0).expand(1, 4, 6)",
    "b.unsqueeze(0).expand_as(b.unsqueeze(0))",
    "b.view_as(b + 1)",
    "b.diagonal()",
    "b.diagonal(1)",
    "torch.linalg.diagonal(b)",
    "b.unfold(1, 2, 2)",
    "b.as_strided([2, 3], [6, 2], 1)",
    "b.detach()",
    "torch.real(b)",
    "torch.conj(b)",
    "torch.positive(b)",
    "b.contiguous()",
    "b.to(torch.float32)",
    "b.type_as(b + 1)",
    "F.dropout(b, 0.5, False)",
    "F.dropout2d(b.unsqueeze(0).unsqueeze(0), 0.3, False)",
    "torch.atleast_1d(b[0])",
    "torch.atleast_2d(b)",
    "torch.atleast_3d(b)",
    "b.split(2, 1)[1]",
    "b.split([1, 2, 1], 0)[1]",
    "b.chunk(3, 1)[2]",
    "b.unbind(1)[2]",
    "torch.tensor_split(b, 4, 1)[1]",
    "torch.hsplit(b, 2)[1]",
    "torch.unsafe_chunk(b, 3, 1)[1]",
    "torch.broadcast_tensors(b, b + 1)[0]",
    "torch.meshgrid(b[0], b[1, :1], indexing='ij')[0]",
    "torch.einsum('ij->ji', b)",
    "b.view(2, 2, 6)[1].t()[2:4]",
    "b.permute(1, 0)[1:5:2].unsqueeze(0)",
    "b.t().reshape(-1)",
    "b.t().contiguous()",
    "b.clone()",
    "b * 1",
)
WRITES = (
    "v.add_(1)",
    "v.mul_(2.5)",
    "v.copy_(v * 3)",
    "v.copy_(torch.tensor(3))",
    "v.fill_(7)",
    "v.zero_()",
    "v.relu_()",
    "v.masked_fill_(v > 0, 2)",
    "v.masked_scatter_(v > 0, v * 2)",
    "v.index_fill_(0, torch.tensor([0]), 5)",
    "v.index_put_([torch.tensor([0, -1])], torch.tensor(9.0))",
    "v.index_add_(0, torch.tensor([0]), v[:1])",
    "v.scatter_(0, torch.zeros_like(v).long(), 6.0)",
    "v.add_(v.detach() * 2, alpha=2)",
    "v.addcmul_(v, v)",
    "v.lerp_(v * 2, 0.5)",
    "v.tanh_().mul_(2)",
    "v.cumsum_(0)",
    "v.eq_(0)",
    "v.gt_(0.25)",
    "v.logical_not_()",
    "v.floor_divide_(2)",
    "v[0] = 4",
    "v[..., 0] += 1",
    "v[v > 0] = -1",
    "v.unbind(0)[0].add_(1)",
    "v.unsqueeze_(0).mul_(2)",
    "v.transpose_(0, -1).add_(1)",
    "v.squeeze_().add_(2)",
    "v.t_().add_(1)",
    "torch.add(v, 1, out=v)",
    "torch.mul(b, 2, out=b)",
    "F.relu(v, inplace=True)",
    "F.dropout(v, 0.5, False, inplace=True)",
)
# The lazy device knows no strides: it takes a copy of a transposed tensor for the tensor itself.
NOT_LAZY = frozenset({"b.as_strided([2, 3], [6, 2], 1)", "b.t().reshape(-1)", "b.t().contiguous()"}) | {
    "torch.unsafe_chunk(b, 3, 1)[1]"
}
KINDS = ("argument", "fresh", "buffer")
_BASES = {"argument": "xs[{0}]", "fresh": "x.clone()", "buffer": "self.b{0}"}
_HEAD = """import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing import List
"""


class Program(NamedTuple):
    view: str
    write: str
    kind: str


def load(source: str, path: Path) -> ModuleType:
    """The module with this source, which scripting can read again."""
    path.write_text(_HEAD + source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def module_of(programs: Sequence[Program], path: Path) -> type[torch.nn.Module]:
    """A module class that runs the programs; its arguments are those of :func:`arguments`."""
    lines = ["class Programs(nn.Module):", "    def __init__(self):", "        super().__init__()"]
    for k, program in enumerate(programs):
        if program.kind == "buffer":
            initial = f"torch.linspace(-1, 1, 24).view(4, 6) + {k} * 0.01"
            lines.append(f"        self.register_buffer('b{k}', {initial})")
    lines += ["    def forward(self, x: Tensor, xs: List[Tensor]):", "        r: List[Tensor] = []"]
    for k, (view, write, kind) in enumerate(programs):
        body = [f"b = {_BASES[kind].format(k)}", "u = b.view(-1)[3:]", "w = b.t()", f"v = {view}", write]
        body += [f"r.append({shown})" for shown in ("v * 1", "b * 1", "u * 1", "w[1] + 0")]
        lines += ["        " + line for line in body]
    found: type[torch.nn.Module] = load("\n".join([*lines, "        return r"]), path).Programs
    return found


def arguments(count: int, seed: int) -> tuple[Any, ...]:
    """A tensor, and one for each program."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(4, 6, generator=generator) for _ in range(count + 1)]
    return tensors[0], tensors[1:]


def restrides(write: str) -> bool:
    """Whether it gives the object another shape, which a caller's tensor or a buffer must not get."""
    return any(name in write for name in ("unsqueeze_", "transpose_", "squeeze_", "t_()"))


def valid(programs: Sequence[Program], path: Path) -> list[Program]:
    """Those that eager runs, twice."""
    found = []
    for k, program in enumerate(programs):
        if restrides(program.write) and program.kind != "fresh":
            continue
        module = module_of([program], path.with_name(f"{path.stem}_{k}.py"))()
        try:
            module(*arguments(1, 0))
            module(*arguments(1, 1))
        except (RuntimeError, IndexError):
            continue
        found.append(program)
    return found


def each_once(path: Path) -> list[Program]:
    """Every view and every write at least once."""
    kinds = itertools.cycle(KINDS)
    some = [Program(view, write, next(kinds)) for view, write in zip(VIEWS, itertools.cycle(WRITES), strict=False)]
    some += [Program(view, write, "fresh") for write, view in zip(WRITES, itertools.cycle(VIEWS[8:]), strict=False)]
    return valid(some, path)


def sample(count: int, seed: int, path: Path) -> list[Program]:
    """``count`` of all combinations, and those of them that eager runs."""
    every = [Program(*each) for each in itertools.product(VIEWS, WRITES, KINDS)]
    return valid(random.Random(seed).sample(every, count), path)
