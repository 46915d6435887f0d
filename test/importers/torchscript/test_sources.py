"""Where TorchScript comes from: files, traces, frozen and optimised modules, bare graphs."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

from torch_tvm.dialect.module import TensorSpec
from torch_tvm.importers.torchscript import import_graph, import_torchscript
from torch_tvm.importers.torchscript.text import read_graph
from torch_tvm.support.errors import ImportFailed, InvalidInput

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


def test_a_profiled_call_brings_its_shapes() -> None:
    model = zoo.Affine().eval()
    scripted, x = torch.jit.script(model), torch.randn(4, 3)
    with torch.no_grad():
        scripted(x)
        module = import_torchscript(scripted)
        torch.testing.assert_close(module(x + 1), model(x + 1))


def test_a_profile_of_a_loop_and_a_run_time_number() -> None:
    def repeated(x: torch.Tensor, n: int) -> torch.Tensor:
        for i in range(n):
            x = x + i
        return x

    scripted = torch.jit.script(repeated)
    scripted(torch.ones(2, 3), 2)
    module = import_torchscript(scripted)
    torch.testing.assert_close(module(torch.ones(2, 3), 5), repeated(torch.ones(2, 3), 5))


def test_the_profile_of_another_program_is_not_used() -> None:
    first, second = torch.jit.script(zoo.Affine().eval()), torch.jit.script(nn.Linear(3, 4))
    with torch.no_grad():
        second(torch.randn(2, 3))
    with pytest.raises(InvalidInput, match="argument 'x' of type Tensor has no known shape"):
        import_torchscript(first)


def test_a_number_that_the_import_needs_has_no_value_in_a_profile() -> None:
    def folded(x: torch.Tensor, n: int) -> torch.Tensor:
        return (x + 1).transpose(0, n)

    scripted = torch.jit.script(folded)
    scripted(torch.ones(2, 3), 1)
    with pytest.raises(InvalidInput, match="the import needs the value of argument 'n'"):
        import_torchscript(scripted)


def test_a_trace_keeps_inputs_of_any_nesting() -> None:
    class Sum(nn.Module):
        def forward(self, d: dict[str, torch.Tensor]) -> torch.Tensor:
            return d["a"] + d["b"]

    d = {"a": torch.randn(2), "b": torch.randn(2)}
    module = import_torchscript(torch.jit.trace(Sum(), (d,)))
    torch.testing.assert_close(module(d), d["a"] + d["b"])


def test_hooks_of_the_module_and_of_a_submodule() -> None:
    model, x = zoo.Hooked(), torch.randn(2, 3)
    with torch.no_grad():
        torch.testing.assert_close(import_torchscript(torch.jit.script(model), (x,))(x), model(x))


@pytest.mark.parametrize(
    ("data", "name", "advice"),
    [
        (b"", "empty.pt", "save the module with torch.jit.save"),
        (b"PK\x03\x04", "cut.pt", "save the module with torch.jit.save"),
        (b"{}", "model.pt2", "pass torch.export.load(path)"),
    ],
)
def test_files_of_another_kind(tmp_path: Any, data: bytes, name: str, advice: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ImportFailed) as caught:
        import_torchscript(path, (torch.ones(2),))
    lines = str(caught.value).splitlines()
    assert "not a TorchScript file" in lines[0] and "miniz" not in lines[0]
    assert lines[1:] == ["  in importer: torchscript", f"  {advice}"]


def test_a_folder_and_weights_without_values(tmp_path: Any) -> None:
    with pytest.raises(InvalidInput, match="is a directory"):
        import_torchscript(tmp_path, (torch.ones(2),))
    with pytest.raises(ImportFailed, match="'weight' is on the meta device"):
        import_torchscript(torch.jit.script(nn.Linear(2, 2, device="meta")), (torch.ones(1, 2),))


GRAPH = """graph(%x : Float(2, 3)):
  %1 : int = prim::Constant[value=1]()
  %y : Tensor = aten::add(%x, %x, %1)
  return (%y)
"""


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("aten::add(%x, %x, %1)", "aten::frobnicate(%x)", "g.ts:3:17: no such op: aten::frobnicate"),
        ("aten::add(%x, %x, %1)", "aten::add(%x)", r"g.ts:3:17: aten::add does not take \(Tensor\)"),
        ("%x, %x, %1", "%x, %z, %1", "g.ts:3:3[0-9]: Cannot find a variable with name 'z'"),
        ("value=1", "value=z", "g.ts:2:14: constant literal not supported"),
        ("Float(2, 3)", "__torch__.M", "g.ts:1:.*\n.*\n.*\n.*\n  a graph of a module has no weights"),
    ],
)
def test_graph_text_with_an_error_names_line_and_column(before: str, after: str, message: str) -> None:
    assert read_graph(GRAPH, "g.ts")(torch.ones(2, 3)).sum() == 12
    with pytest.raises(ImportFailed, match=message):
        read_graph(GRAPH.replace(before, after), "g.ts")
