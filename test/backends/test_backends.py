"""From a target to its backend: folders by kind, GPUs without one, and kinds that nobody makes code for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
import tvm

import torch_tvm
from torch_tvm.backends import Backend, backend_named, backend_of
from torch_tvm.backends.registry import kinds
from torch_tvm.support.errors import InvalidInput

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_each_folder_is_the_backend_of_its_kind(kind: str) -> None:
    backend = backend_named(kind)
    assert isinstance(backend, Backend) and backend.kind == kind
    assert backend.rules() and backend.graph_passes(tvm.target.Target({"kind": "llvm"}), "default")


def test_a_gpu_without_a_folder_is_one_like_all_others() -> None:
    backend = backend_of(tvm.target.Target({"kind": "webgpu"}))
    assert backend.rules() == backend_of(tvm.target.Target({"kind": "opencl"})).rules()
    assert backend_of(tvm.target.Target({"kind": "webgpu"})) is backend


def test_a_kind_that_nobody_makes_code_for() -> None:
    with pytest.raises(InvalidInput, match=r"(?s)no backend makes code for 'hexagon'.*known: .*llvm"):
        torch_tvm.compile(torch.nn.ReLU(), (torch.ones(2),), target={"kind": "hexagon"})


def test_nobody_else_asks_for_the_kind_of_a_target() -> None:
    """Comparisons with ``target.kind`` belong to a backend; naming the kind in a message is fine."""
    found = []
    for folder in ("lib", "python/torch_tvm", "tools", "importers"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Compare):
                    continue
                sides = [node.left, *node.comparators]
                names = [ast.unparse(side) for side in sides]
                constants = [side for side in sides if isinstance(side, ast.Constant)]
                if constants and any(name.endswith("kind.name") for name in names):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []
