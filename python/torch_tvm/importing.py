"""The public importers: a PyTorch program becomes one canonical Torch dialect module."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from torch_tvm.dialect.module import TorchModule
from torch_tvm.driver.examples import check_inputs
from torch_tvm.exclusive import exclusive
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.support.errors import ImportFailed, damaged
from torch_tvm.support.files import read_text
from torch_tvm.support.sandbox import crash_of


@exclusive(exports=True)
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

    check_inputs(program, example_args)
    return canonicalize(importer(program, example_args, dynamic_shapes=dynamic_shapes))


@exclusive(exports=False)
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

    check_inputs(program, example_args)
    return canonicalize(importer(program, example_args, method=method))


@exclusive(exports=False)
def import_lazy(program: Callable[..., Any], example_args: Sequence[Any]) -> TorchModule:
    """Run a function or module once on the lazy device and import the graph that this records.

    Raises :class:`ImportFailed` for an op that leaves the graph, with its name and line.

    >>> import torch, torch_tvm
    >>> tm = torch_tvm.import_lazy(lambda x: x * 2, (torch.tensor([-1.0, 2.0]),))
    >>> tm(torch.tensor([1.0, 2.0]))
    tensor([2., 4.])
    """
    from torch_tvm.importers.lazy import import_lazy as importer

    check_inputs(program, example_args)
    return canonicalize(importer(program, example_args))


@exclusive(exports=False)
def parse(text_or_path: str | os.PathLike[str] | bytes, *, allow_ops: Iterable[str] = ()) -> TorchModule:
    """Read a module from text or from the path of a file.

    Torch dialect text and bytecode (``.mlir``, ``.mlirbc``) read back as they were printed. A ``.ts`` file with the
    text of a TorchScript graph whose inputs have complete types (``Float(2, 3)``), and a ``.ltc`` file with a
    dump of pending lazy tensors, are imported. A module from a file runs ops of PyTorch that touch nothing but their
    operands; ``allow_ops=["my_ns::scale"]`` admits ops of your own in the interpreter and in PyTorch. Raises
    :class:`ImportFailed` at the line and column of malformed text.

    >>> import torch, torch_tvm
    >>> tm = torch_tvm.import_fx(torch.nn.ReLU(), (torch.tensor([-1.0, 2.0]),))
    >>> torch_tvm.parse(str(tm))(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    from torch_tvm.dialect.parse import admitted_ops
    from torch_tvm.dialect.parse import parse as parse_dialect

    source = os.fspath(text_or_path) if isinstance(text_or_path, (str, os.PathLike)) else ""
    if not is_graph_file(source):
        return parse_dialect(text_or_path, allow_ops=allow_ops)
    admitted = admitted_ops(allow_ops)
    module = read_graph_file(source, canonicalize)
    module.admitted = admitted
    return module


_GRAPHS = {".ltc": "importer: lazy", ".ts": "importer: torchscript"}


def is_graph_file(path: str) -> bool:
    """Whether the file's name says that it holds the text of a graph of PyTorch's."""
    return os.path.splitext(path)[1] in _GRAPHS


def read_graph_file(path: str, finish: Callable[[TorchModule], TorchModule] = lambda module: module) -> TorchModule:
    """The module of a ``.ts`` or ``.ltc`` file after ``finish``; :class:`ImportFailed` for one that is damaged.

    It is read in a child process first: PyTorch's parser trusts what it reads.
    """
    extension = os.path.splitext(path)[1]
    stage = _GRAPHS[extension]
    if extension == ".ltc":
        from torch_tvm.importers.lazy.dump import read_dump as reader
    else:
        from torch_tvm.importers.torchscript.text import read_graph as reader
    text = read_text(path, stage=stage)
    with damaged(path, stage):
        failure = crash_of(lambda: finish(reader(text, path)))
        if failure is not None:
            raise ImportFailed(f"{path}: the file is damaged: PyTorch cannot read it ({failure})", stage=stage)
        return finish(reader(text, path))
