"""Names that come from files are never run as code."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest
import torch

import torch_tvm
from torch_tvm.codegen.opencl.expressions import function_name
from torch_tvm.runtime.opencl.devices import why_no_device
from torch_tvm.support.errors import InternalError, InvalidInput

ROOT = Path(__file__).parent.parent.parent
_SOURCES = ("python", "importers", "lib", "tools")
_CALLERS = {"lib/runtime/module.py", "lib/runtime/opencl/program.py"}
"""``exec`` of the generated caller, whose names are numbered by us and whose keys of dictionaries are literals, and of
the host program for OpenCL, whose names have no character but letters, digits and ``_``."""
_TARGETS = ["llvm", *([] if why_no_device() else ["opencl"])]

_BOUND = """func.func @main(%a: !torch.vtensor<[?],f32>, %b: !torch.vtensor<[?],f32>) -> !torch.vtensor<[?],f32> {{
  %s = torch.symbolic_int "{name}" {{min_val = 1, max_val = 100}} : !torch.int
  torch.bind_symbolic_shape %a, [%s], affine_map<()[s0] -> (s0)> : !torch.vtensor<[?],f32>
  torch.bind_symbolic_shape %b, [%s], affine_map<()[s0] -> (s0 * 2)> : !torch.vtensor<[?],f32>
  %r = torch.aten.relu %a : !torch.vtensor<[?],f32> -> !torch.vtensor<[?],f32>
  return %r : !torch.vtensor<[?],f32>
}}
"""


@pytest.mark.parametrize("target", _TARGETS)
@pytest.mark.parametrize(
    "name",
    [
        "__import__('os').mkdir('made')",
        "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen'][0](['mkdir', 'made'])",
        "x\\n\\nimport os; os.mkdir('made')",
        "1 if open('made', 'w') else 2",
        "",
        "s0 + 1",
        "def",
    ],
)
def test_the_name_of_a_symbol_is_no_code(
    name: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    compiled = torch_tvm.compile(torch_tvm.parse(_BOUND.format(name=name)), target=target)
    x = torch.tensor([-1.0, 2.0])
    assert compiled(x, torch.randn(4)).tolist() == [0.0, 2.0]
    with pytest.raises(InvalidInput, match=r"(?s)argument .1., dimension 0: expected .* = 4 with"):
        compiled(x, torch.randn(3))
    repr(compiled), str(compiled.report)
    assert not os.listdir(tmp_path)


def test_a_function_of_an_opencl_program_has_a_name() -> None:
    with pytest.raises(InternalError, match="is no name of a function"):
        function_name("f(): import os\n")


def test_nothing_else_runs_code() -> None:
    found = set()
    for folder in _SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                function = node.func if isinstance(node, ast.Call) else None
                if isinstance(function, ast.Name) and function.id in ("eval", "exec"):
                    found.add(str(path.relative_to(ROOT)))
    assert found == _CALLERS
