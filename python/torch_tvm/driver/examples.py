"""Programs without shapes, and example arguments that compiled code could never be called with, are refused before
anything is imported."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from torch_tvm.aten.dtypes import dtype_name
from torch_tvm.dialect.types import DTYPE_TEXT, TensorSpec
from torch_tvm.runtime.calls.arguments import why_not_called
from torch_tvm.runtime.calls.convention import describe_value
from torch_tvm.support.errors import InvalidInput


def check_inputs(program: Any, arguments: Any) -> None:
    """Raise :class:`InvalidInput` for a lazy module that was never called, and for what
    :func:`check_examples` refuses.
    """
    tensors = itertools.chain(program.parameters(), program.buffers()) if _is_module(program) else ()
    if any(is_lazy(tensor) for tensor in tensors):
        raise InvalidInput(
            "the module has parameters without a shape, which its first call gives them",
            subject=type(program).__name__,
            advice="call the module once before",
        )
    check_examples(arguments)


def _is_module(program: Any) -> bool:
    return isinstance(program, torch.nn.Module) and not isinstance(program, torch.jit.ScriptModule)


def check_examples(arguments: Any) -> None:
    """Raise :class:`InvalidInput` for what is no tuple, and a tensor of a dtype or a kind that kernels do not have."""
    if arguments is not None and not isinstance(arguments, (tuple, list)):
        raise InvalidInput(
            f"expected a tuple of arguments, got {describe_value(arguments)}",
            subject="example_args",
            advice="pass (argument,)",
        )
    leaves, _ = pytree.tree_flatten_with_path(arguments)
    for path, leaf in leaves:
        problem = _problem(leaf)
        if problem:
            raise InvalidInput(
                f"kernels do not read {problem}",
                subject=f"example_args{pytree.keystr(path)}",
                advice="convert it outside of what is compiled, or use torch.compile, which leaves parts to PyTorch",
            )


def _problem(leaf: Any) -> str:
    if isinstance(leaf, torch.Tensor) and why_not_called(leaf):
        return why_not_called(leaf)
    if isinstance(leaf, torch.Tensor) and (leaf.is_nested or leaf.layout != torch.strided or leaf.is_quantized):
        return describe_value(leaf)
    if isinstance(leaf, (torch.Tensor, TensorSpec)) and leaf.dtype not in DTYPE_TEXT:
        return dtype_name(leaf.dtype)
    return ""


__all__ = ["check_examples", "check_inputs"]
