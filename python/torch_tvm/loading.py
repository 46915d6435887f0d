"""``torch_tvm.load``: a compiled module from a file, without a compiler."""

from __future__ import annotations

import os
from typing import Any

from torch_tvm.artifact.load import read
from torch_tvm.reporting.report import Report
from torch_tvm.runtime.module import CompiledModule


def load(path: str | os.PathLike[str], *, expect_sha256: str | None = None) -> CompiledModule:
    """Read a module that :meth:`CompiledModule.save` wrote; it is called as the one that was saved.

    Nothing is compiled, and neither TVM's compiler nor MLIR is imported. Weights are mapped from the file, which has to
    stay as it is while the module lives. ``expect_sha256`` is the SHA-256 that the whole file has to have.

    The file holds native code, and loading runs it: take one only from someone whom you trust. Raises
    :class:`InvalidInput` for a file that is none, that is damaged, or that is for another machine.

    >>> import tempfile, torch, torch_tvm
    >>> compiled = torch_tvm.compile(torch.nn.ReLU(), (torch.tensor([-1.0, 2.0]),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     compiled.save(f"{folder}/relu.ttvm")
    ...     loaded = torch_tvm.load(f"{folder}/relu.ttvm")
    >>> loaded(torch.tensor([3.0, -4.0]))
    tensor([3., 0.])
    """
    return load_with_sample(path, expect_sha256=expect_sha256)[0]


def load_with_sample(
    path: str | os.PathLike[str], *, expect_sha256: str | None = None
) -> tuple[CompiledModule, tuple[tuple[Any, ...], Any] | None]:
    """As :func:`load`, with the arguments that were kept (``sample_args``) and their results, or ``None``."""
    loaded = read(path, expect_sha256)
    loaded.module.report = Report.from_dict(loaded.report)
    return loaded.module, loaded.sample


__all__ = ["load", "load_with_sample"]
