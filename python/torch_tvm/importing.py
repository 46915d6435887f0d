"""The public importers: a PyTorch program becomes one canonical Torch dialect module."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch_tvm.dialect.module import TorchModule
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.support.files import read_text


def import_fx(
    program: torch.nn.Module | torch.export.ExportedProgram | Callable[..., Any],
    example_args: Sequence[Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> TorchModule:
    """Import a ``GraphModule``, an ``ExportedProgram``, or an ``nn.Module`` or a function (exported for you).

    ``example_args`` are the positional arguments to export with, ``dynamic_shapes`` as in
    ``torch.export.export``. Parameters are not copied, nor are the tensors that a function finds outside of its
    arguments. Raises :class:`ImportFailed` at the user's line.

    >>> import torch, torch_tvm
    >>> tm = torch_tvm.import_fx(torch.nn.ReLU(), (torch.tensor([-1.0, 2.0]),))
    >>> tm(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    from torch_tvm.importers.fx import import_fx as importer

    return canonicalize(importer(program, example_args, dynamic_shapes=dynamic_shapes))


def import_torchscript(
    program: torch.jit.ScriptModule | torch.jit.ScriptFunction | torch.nn.Module | str | os.PathLike[str],
    example_args: Sequence[Any] | None = None,
    *,
    method: str = "forward",
) -> TorchModule:
    """Import a scripted or traced module or function, an ``nn.Module`` (scripted for you), or a saved ``.pt`` file.

    ``example_args`` are tensors, or ``torch_tvm.TensorSpec(shape, dtype)`` where ``None`` is an unknown size. Without
    them the shapes of a trace are used, or those of a call of the scripted program just before, which PyTorch
    profiled. ``method`` is the method of a module to import.
    Raises :class:`ImportFailed` at the user's line.

    >>> import torch, torch_tvm
    >>> tm = torch_tvm.import_torchscript(torch.nn.ReLU(), (torch_tvm.TensorSpec((None,), torch.float32),))
    >>> tm(torch.tensor([-1.0, 2.0, 3.0]))
    tensor([0., 2., 3.])
    """
    from torch_tvm.importers.torchscript import import_torchscript as importer

    return canonicalize(importer(program, example_args, method=method))


def import_lazy(program: Callable[..., Any], example_args: Sequence[Any]) -> TorchModule:
    """Run a function or module once on the lazy device and import the graph that this records.

    Raises :class:`ImportFailed` for an op that leaves the graph, with its name and line.

    >>> import torch, torch_tvm
    >>> tm = torch_tvm.import_lazy(lambda x: x * 2, (torch.tensor([-1.0, 2.0]),))
    >>> tm(torch.tensor([1.0, 2.0]))
    tensor([2., 4.])
    """
    from torch_tvm.importers.lazy import import_lazy as importer

    return canonicalize(importer(program, example_args))


def parse(text_or_path: str | os.PathLike[str] | bytes) -> TorchModule:
    """Read a module from text or from the path of a file.

    Torch dialect text and bytecode (``.mlir``, ``.mlirbc``) read back as they were printed. A ``.ts`` file with the
    text of a TorchScript graph whose inputs have complete types (``Float(2, 3)``), and a ``.ltc`` file with a
    dump of pending lazy tensors, are imported. Raises :class:`ImportFailed` at the line and column of malformed text.

    >>> import torch, torch_tvm
    >>> tm = torch_tvm.import_fx(torch.nn.ReLU(), (torch.tensor([-1.0, 2.0]),))
    >>> torch_tvm.parse(str(tm))(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    from torch_tvm.dialect.parse import parse as parse_dialect

    if isinstance(text_or_path, bytes):
        return parse_dialect(text_or_path)
    extension = os.path.splitext(os.fspath(text_or_path))[1]
    if extension == ".ltc":
        from torch_tvm.importers.lazy.dump import read_dump

        return canonicalize(
            read_dump(read_text(text_or_path, stage="importer: lazy"), os.fspath(text_or_path))
        )
    if extension == ".ts":
        from torch_tvm.importers.torchscript.text import read_graph

        text = read_text(text_or_path, stage="importer: torchscript")
        return canonicalize(read_graph(text, os.fspath(text_or_path)))
    return parse_dialect(text_or_path)
