"""A batch norm's shape that is known without its decomposition is the one that the decomposition finds."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch._decomp import decomposition_table
from torch.utils import _pytree as pytree

from torch_tvm.importers.fx import export
from torch_tvm.importers.fx.quick_fakes import quick_batch_norms

_OP = torch.ops.aten._native_batch_norm_legit_no_training.default
IMAGE = torch.randn(2, 3, 4, 5)
NORMS = {
    "images": (torch.nn.BatchNorm2d(3), IMAGE),
    "channels last": (torch.nn.BatchNorm2d(3), IMAGE.to(memory_format=torch.channels_last)),
    "expanded": (torch.nn.BatchNorm2d(3), torch.randn(2, 3, 1, 1).expand(2, 3, 4, 5)),
    "rows": (torch.nn.BatchNorm1d(3), torch.randn(7, 3)),
    "volumes": (torch.nn.BatchNorm3d(3), torch.randn(2, 3, 4, 5, 6)),
    "one channel": (torch.nn.BatchNorm2d(1), torch.randn(2, 1, 4, 5)),
    "nothing": (torch.nn.BatchNorm2d(3), torch.randn(0, 3, 4, 5)),
    "double": (torch.nn.BatchNorm1d(3).double(), torch.randn(7, 3).double()),
    "bfloat16": (torch.nn.BatchNorm2d(3).bfloat16(), IMAGE.bfloat16()),
    "bfloat16 by float weights": (torch.nn.BatchNorm2d(3), IMAGE.bfloat16()),
    "no weights": (torch.nn.BatchNorm2d(3, affine=False), IMAGE),
    "no statistics": (torch.nn.BatchNorm2d(3, track_running_stats=False), IMAGE),
}


def _exported(norm: torch.nn.Module, x: torch.Tensor) -> list[Any]:
    nodes = export.export(norm.eval(), (x,)).graph.nodes
    values = [(str(node.target), pytree.tree_leaves(node.meta.get("val"))) for node in nodes]
    return [
        (name, [(v.shape, v.stride(), v.dtype) for v in leaves if isinstance(v, torch.Tensor)])
        for name, leaves in values
    ]


@pytest.mark.parametrize("name", NORMS)
def test_it_is_what_pytorch_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = _exported(*NORMS[name])
    monkeypatch.setattr(export, "quick_batch_norms", contextlib.nullcontext)
    assert quick == _exported(*NORMS[name])


def test_pytorch_has_its_decomposition_again() -> None:
    original = decomposition_table[_OP]
    with pytest.raises(KeyError), quick_batch_norms():
        assert decomposition_table[_OP] is not original
        raise KeyError
    assert decomposition_table[_OP] is original


def test_usual_norms_run_no_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the decomposition ran")

    refuse.__module__ = decomposition_table[_OP].__module__
    refuse.__name__ = decomposition_table[_OP].__name__
    monkeypatch.setitem(decomposition_table, _OP, refuse)
    norm, x = (
        torch.nn.BatchNorm2d(3),
        torch.randn(2, 3, 6, 7),
    )  # of no other test: fake tensors keep what they found
    with pytest.raises(AssertionError, match="the decomposition ran"):
        torch._decomp.decomposition_table[_OP](x)
    _exported(norm, x)
