"""The lazy device's text form, and TorchScript graphs as text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import torch_tvm
from torch_tvm import ImportFailed, InvalidInput
from torch_tvm.importers.lazy import device

DUMP = """IR {
  %0 = [Long[]] lazy_tensors::device_data(), device=CPU0, NodeType=N5torch4lazy10DeviceDataE
  %1 = [Float[2,3]] lazy_tensors::device_data(), device=CPU0, NodeType=N5torch4lazy10DeviceDataE
  %2 = [Float[2,3]] aten::mul(%1, %0), NodeType=N5torch4lazy9MulTensorE
  %3 = [Float[2], Long[2]] aten::max(%2), num_outputs=2, dim=1, keepdim=0, ROOT=1
}
"""


def parsed(text: str, tmp_path: Path, name: str = "graph.ltc") -> torch_tvm.TorchModule:
    path = tmp_path / name
    path.write_text(text)
    return torch_tvm.parse(path)


def test_a_dump_reads_back(tmp_path: Path) -> None:
    module = parsed(DUMP, tmp_path)
    x = torch.randn(2, 3)
    torch.testing.assert_close(module(torch.tensor(2), x), tuple((x * 2).max(1)))


def _convolution(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
    y = torch.conv2d(x, w, b, padding=1)
    y = torch.cat([y, y], 1).relu()
    values, places = y.sum([2, 3]).max(1)
    norm = torch.nn.functional.layer_norm(y, (8,))
    return [values, places, norm[:, 1:3].permute(0, 2, 3, 1), y.mean(1, True).to(torch.float64), y.tril(-1)]


def _scalars(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
    return [x.clamp(-0.5, 2), torch.add(x, x, alpha=3), x**2, x.masked_fill(x > 0, 1.5), x.repeat(1, 1, 2, 1)]


@pytest.mark.parametrize("function", [_convolution, _scalars])
def test_dumps_of_the_device_agree_with_eager(function: Callable[..., Any], tmp_path: Path) -> None:
    device.start()
    given = (torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3), torch.randn(4))
    with torch.no_grad():
        roots = function(*(tensor.to("lazy") for tensor in given))
    for root in roots:
        device.sync(root)
    module = parsed(torch._C._lazy._get_tensors_text(roots), tmp_path)
    data = {tuple(value.shape): value for _, value in device.data_of(roots) if value.dim()}
    numbers = iter([value for _, value in device.data_of(roots) if not value.dim()])
    kinds = [str(kind) for kind in module.main.type.inputs]
    shapes = [tuple(int(s) for s in kind.split("<[")[1].split("]")[0].split(",") if s) for kind in kinds]
    scalars = {str(value.dtype): value for value in numbers}
    if len(scalars) < sum(not shape for shape in shapes):
        pytest.skip("several numbers: a dump does not say which is which")
    args = [data[shape] if shape else next(iter(scalars.values())) for shape in shapes]
    torch.testing.assert_close(list(module(*args)), function(*given))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[Float[2,3]] aten", "[Float[2,3] aten", r"graph.ltc:4:20: expected"),
        ("aten::mul", "aten::nosuch", r"graph.ltc:4:\d+: no such op: aten::nosuch"),
        ("[Long[]]", "[Lung[]]", r"graph.ltc:2:9: no such dtype: Lung"),
        ("(%1, %0)", "(%1, %7)", r"graph.ltc:4:\d+: %7 is not defined"),
        ("dim=1", "dim=x", r"graph.ltc:5:\d+: no form of aten::max"),
        (
            "[Float[2], Long[2]]",
            "[Float[3], Long[2]]",
            r"graph.ltc:5:\d+: the text declares .*\[3\].*gives .*\[2\]",
        ),
        ("}\n", "", r"expected '}'"),
    ],
)
def test_bad_text_gives_line_and_column(before: str, after: str, message: str, tmp_path: Path) -> None:
    assert before in DUMP
    with pytest.raises(ImportFailed, match=message):
        parsed(DUMP.replace(before, after), tmp_path)


def test_files_of_the_device_have_more_around_the_graph(tmp_path: Path) -> None:
    text = f"[ScheduleSyncTensorsGraph]\nHashes: (1, 2)\n\n## BEGIN_GRAPH\n{DUMP}\n## END_GRAPH\n"
    assert len(parsed(text, tmp_path).main.type.inputs) == 2
    with pytest.raises(InvalidInput, match="2 graphs"):
        parsed(text + text, tmp_path)
    with pytest.raises(ImportFailed, match=r"graph.ltc:8:\d+: no such op"):
        parsed(text.replace("aten::mul", "aten::nosuch"), tmp_path)
    with pytest.raises(InvalidInput, match="no graph"):
        parsed("nothing\n", tmp_path)


GRAPH = """graph(%x : Float(2, 3, strides=[3, 1], requires_grad=0, device=cpu), %n : int):
  %1 : int = prim::Constant[value=1]()
  %2 : Tensor = aten::add(%x, %n, %1)
  %3 : Tensor = aten::relu(%2)
  return (%3)
"""


def test_a_graph_reads_back(tmp_path: Path) -> None:
    module, x = parsed(GRAPH, tmp_path, "graph.ts"), torch.randn(2, 3)
    torch.testing.assert_close(module(x, 2), (x + 2).relu())


def test_a_bad_graph_gives_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match=r"graph.ts:4:\d+: "):
        parsed(GRAPH.replace("relu(%2)", "relu(%9)"), tmp_path, "graph.ts")
    with pytest.raises(InvalidInput, match=r"%x.*no known shape"):
        parsed(
            GRAPH.replace("Float(2, 3, strides=[3, 1], requires_grad=0, device=cpu)", "Tensor"),
            tmp_path,
            "graph.ts",
        )
