"""The report: which of the user's lines a kernel comes from, memory, and its forms: text, JSON, a page."""

from __future__ import annotations

import json
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import nn

import torch_tvm
from torch_tvm.reporting import origins
from torch_tvm.reporting.report import FallbackOp, Report


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))  # stem
        x = x.mean((2, 3))  # pool
        return torch.softmax(self.head(x), -1)  # head


LINES = {
    found.group(1): f"{__file__}:{number}"
    for number, line in enumerate(Path(__file__).read_text().splitlines(), 1)
    if (found := re.search(r"  # (stem|pool|head)$", line))
}


@pytest.fixture(scope="module")
def compiled() -> torch_tvm.CompiledModule:
    return torch_tvm.compile(Net().eval(), (torch.randn(1, 3, 8, 8),))


def test_kernels_have_the_lines_that_they_come_from(compiled: torch_tvm.CompiledModule) -> None:
    report: Report = compiled.report
    assert report.unexplained == ""
    by_rule = {kernel.rule: kernel for kernel in report.kernels if kernel.origin.calls}
    convolution, product = by_rule["direct-convolution"], by_rule["matmul"]
    assert [report.ops[i].name for i in convolution.origin.ops] == [
        "aten.conv2d",
        "aten.batch_norm",
        "aten.relu",
    ]
    assert [place.split(" ")[0] for place in report.places(convolution)] == [LINES["stem"]]
    assert report.places(convolution) == [f"{LINES['stem']} (stem.0, stem.1)"]
    assert report.places(product) == [f"{LINES['head']} (head)"]
    ((name, before, after),) = convolution.origin.packed
    assert (name, before) == ("stem.0.weight", "float32[16, 3, 3, 3]") and after != before
    used = {report.ops[i].name for kernel in report.kernels for i in kernel.origin.ops}
    assert {"aten.mean.dim", "aten.softmax.int", "aten.linear"} <= used
    assert LINES["head"] in str(report)


def test_memory_is_that_of_the_tensors(compiled: torch_tvm.CompiledModule) -> None:
    memory = compiled.report.memory
    assert memory.weights == sum(t.numel() * 4 for t in compiled.state_dict().values())
    assert memory.made and memory.peak and 4 * 16 * 36 <= memory.peak <= memory.made
    varying = torch_tvm.compile(nn.ReLU(), (torch_tvm.TensorSpec((None,), torch.float32),), frontend="torchscript")
    assert varying.report.memory.peak is None and "memory: weights" in str(varying.report)


def test_json_has_all_of_it_and_files_keep_it(compiled: torch_tvm.CompiledModule, tmp_path: Path) -> None:
    again = Report.from_dict(json.loads(json.dumps(compiled.report.to_dict())))
    for name in ("kernels", "ops", "memory", "fallbacks", "seconds", "target"):
        assert getattr(again, name) == getattr(compiled.report, name)
    compiled.save(tmp_path / "net.ttvm")
    loaded = torch_tvm.load(tmp_path / "net.ttvm")
    assert loaded.report.kernels == compiled.report.kernels and loaded.report.html() == compiled.report.html()


class Balance(HTMLParser):
    """Tags that are open, and what a page would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "line", "circle", "polyline"):
            self.open.append(tag)
        named = dict(attrs)
        if tag in ("script", "img", "link", "iframe") or "src" in named or "onclick" in named:
            self.loads.append(tag)
        if not (named.get("href") or "#").startswith("#"):
            self.loads.append(str(named["href"]))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "circle", "polyline"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: str) -> Balance:
    found = Balance()
    found.feed(page)
    assert found.open == [] and found.loads == []
    return found


def test_the_page_needs_nothing_and_escapes_all_text() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("<b>", nn.Linear(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svdvals(getattr(self, "<b>")(x))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch_tvm.FallbackWarning)
        module = torch_tvm.compile(Odd().eval(), (torch.randn(3, 4),))
    module.report.fallbacks.append(FallbackOp("ns.<i>", "a&b.py:1", "", "no <kernel>"))
    page = module.report.html(title="<script>alert(1)</script>")
    found = parsed(page)
    assert "<script" not in page and "<b>.weight" in found.text and "<script>alert(1)" in found.text
    assert "aten.linalg_svdvals" in found.text and "no <kernel>" in found.text and "None: all of" not in found.text


def test_a_benchmark_adds_shares_and_the_roofline() -> None:
    module = torch_tvm.compile(nn.Sequential(nn.Linear(64, 64), nn.Softmax(-1)).eval(), (torch.randn(8, 64),))
    assert "<svg" not in module.report.html()
    measured = module.benchmark(torch.randn(8, 64), runs=1)
    assert module.report.benchmark is measured
    page = module.report.html()
    assert "<svg" in page and "of what the machine allows" in parsed(page).text
    json.dumps(module.report.to_dict())


def test_what_cannot_be_explained_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(origins, "origins_of", broken)
    module = torch_tvm.compile(nn.ReLU(), (torch.ones(2),))
    assert module(torch.tensor([-1.0, 1.0])).tolist() == [0, 1]
    assert "not explained: a bug of torch_tvm: KeyError: 'oops'" in str(module.report)
