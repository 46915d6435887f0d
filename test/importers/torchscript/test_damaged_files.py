"""Saved files that PyTorch loads although they are damaged."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import torch_tvm
from torch_tvm import ImportFailed


class Net(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu() + 1


@pytest.mark.parametrize("read", [torch_tvm.import_torchscript, torch_tvm.compile])
def test_lines_that_are_no_text(read: Callable[..., Any], tmp_path: Path) -> None:
    """PyTorch decodes a source line when it is asked for one, and raises UnicodeDecodeError then."""
    torch.jit.script(Net()).save(str(tmp_path / "good.pt"))
    with zipfile.ZipFile(tmp_path / "good.pt") as good, zipfile.ZipFile(tmp_path / "bad.pt", "w") as bad:
        for entry in good.infolist():
            data = good.read(entry)
            bad.writestr(entry.filename, data.replace(b"relu", b"rel\xf4") if "debug_pkl" in entry.filename else data)
    with pytest.raises(ImportFailed, match="its file is damaged"):
        read(str(tmp_path / "bad.pt"), (torch.ones(2),))
