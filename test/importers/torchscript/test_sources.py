"""Where TorchScript comes from: files, traces, frozen and optimised modules, bare graphs."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

from torch_tvm.dialect.module import TensorSpec
from torch_tvm.importers.torchscript import import_graph, import_torchscript

zoo: Any = sys.modules["torchscript_module_zoo"]


@pytest.mark.parametrize("kind", ["script", "trace"])
def test_saved_file(tmp_path: Any, kind: str) -> None:
    model = zoo.ConvNet().eval()
    x = torch.randn(2, 3, 6, 6)
    program = torch.jit.script(model) if kind == "script" else torch.jit.trace(model, (x,))
    path = tmp_path / "model.pt"
    program.save(str(path))
    for source in (path, str(path)):
        module = import_torchscript(source, (x,))
        with torch.no_grad():
            torch.testing.assert_close(module(x), model(x))
    assert "conv.weight" in module.weights


def test_trace_brings_its_own_shapes() -> None:
    model = zoo.Affine().eval()
    x = torch.randn(4, 3)
    module = import_torchscript(torch.jit.trace(model, (x,)))
    with torch.no_grad():
        torch.testing.assert_close(module(x), model(x))


def test_trace_with_nested_inputs() -> None:
    class Nested(nn.Module):
        def forward(self, pair: tuple[torch.Tensor, torch.Tensor], d: dict[str, torch.Tensor]) -> Any:
            return {"sum": pair[0] + d["a"]}, [pair[1] * 2]

    args = ((torch.randn(2), torch.randn(3)), {"a": torch.randn(2)})
    traced = torch.jit.trace(Nested(), args, strict=False)
    module = import_torchscript(traced, args)
    (first, second), (want_first, want_second) = module(*args), traced(*args)
    torch.testing.assert_close(first["sum"], want_first["sum"])
    torch.testing.assert_close(second[0], want_second[0])


OPTIMISED = {
    "conv_bn": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Hardswish()),
        (1, 3, 5, 5),
    ),
    "grouped": (
        nn.Sequential(nn.Conv2d(4, 8, 3, groups=2, stride=2), nn.ReLU6(), nn.AvgPool2d(2)),
        (2, 4, 9, 9),
    ),
    "linear": (nn.Sequential(nn.Flatten(), nn.Linear(6, 3), nn.Tanh()), (2, 2, 3)),
}


@pytest.mark.parametrize("name", OPTIMISED)
def test_optimize_for_inference_is_undone(name: str) -> None:
    model, shape = OPTIMISED[name]
    model = model.eval()
    x = torch.randn(shape)
    optimised = torch.jit.optimize_for_inference(torch.jit.script(model))
    module = import_torchscript(optimised, (x,))
    assert "mkldnn" not in module.asm().replace("_mkldnn>", "").replace('_mkldnn"', "")
    with torch.no_grad():
        torch.testing.assert_close(module(x), model(x), rtol=1e-4, atol=1e-5)


def test_graph_text() -> None:
    graph = torch._C.parse_ir(
        """graph(%a : Tensor, %b : Tensor, %s : Tensor):
  %alpha : Scalar = aten::ScalarImplicit(%s)
  %sum : Tensor = aten::add(%a, %b, %alpha)
  %gelu : str = prim::Constant[value="none"]()
  %out : Tensor = aten::gelu(%sum, %gelu)
  return (%out, %sum)"""
    )
    module = import_graph(graph, (TensorSpec((3,)), TensorSpec((3,)), 2), ["a", "b", "s"])
    a, b = torch.randn(3), torch.randn(3)
    out, total = module(a, b, 2)
    torch.testing.assert_close(total, a + 2 * b)
    torch.testing.assert_close(out, torch.nn.functional.gelu(a + 2 * b))
    assert "torch.constant.int 2" in module.asm(), "a lifted scalar is folded"


def test_python_function_and_module_are_scripted() -> None:
    def double(x: torch.Tensor, times: int = 2) -> torch.Tensor:
        for _ in range(times):
            x = x + x
        return x

    x = torch.randn(3)
    torch.testing.assert_close(import_torchscript(double, (x,))(x), x * 4)
    module = import_torchscript(double, (x, 5))
    torch.testing.assert_close(module(x, 3), x * 8)


def test_two_results_of_one_conversion_are_the_same_text() -> None:
    scripted = torch.jit.script(zoo.ConvNet().eval())
    args = (torch.randn(2, 3, 6, 6),)
    assert import_torchscript(scripted, args).asm() == import_torchscript(scripted, args).asm()
