"""Programs whose Python reads numbers of tensors: ``torch.export`` refuses them, and a script has their branches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.export import Dim
from torch.utils import _pytree as pytree

from torch_tvm.aten import autocast
from torch_tvm.dialect import view
from torch_tvm.dialect.module import TensorSpec, TorchModule


def import_scripted(program: Callable[..., Any], examples: Sequence[Any], dynamic_shapes: Any) -> TorchModule:
    """The program by ``torch.jit.script``, with the sizes unknown that ``dynamic_shapes`` calls dynamic.

    Numbers among the arguments are those of the call. Raises whatever stops it: it does not script, its script gives
    other results than Python for the examples (in scripts ``round`` gives a float), cannot be imported, or only for
    some of those sizes.
    """
    from torch_tvm.importers.torchscript.program import as_script, import_torchscript

    if autocast.is_active():
        raise NotImplementedError("casts are not in a script")
    script = as_script(program)
    _check_like_python(program, script, examples)
    specs = _specs(examples, dynamic_shapes)
    module = import_torchscript(script, specs)
    wanted = [spec.shape for spec in specs if isinstance(spec, TensorSpec)]
    found = [kind.shape for value in module.main.arguments if (kind := view.tensor_type(value)) is not None]
    if any(shape not in found for shape in wanted):
        raise NotImplementedError("a size that is dynamic is not so in the script")
    return module


def _check_like_python(program: Callable[..., Any], script: Any, examples: Sequence[Any]) -> None:
    """Run copies of both on copies of the examples: the same structure, types and numbers."""
    runs = []
    for what in (program, script):
        own = copy.deepcopy(what) if isinstance(what, torch.nn.Module) else what  # functions hold nothing
        arguments = copy.deepcopy(tuple(examples))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            runs.append(pytree.tree_flatten((own(*arguments), arguments)))
    (python, structure), (scripted, other) = runs
    if structure != other or list(map(type, python)) != list(map(type, scripted)):
        raise NotImplementedError("the script gives results of other types")
    for expected, found in zip(python, scripted, strict=True):
        if isinstance(expected, (torch.Tensor, int, float)):
            torch.testing.assert_close(found, expected, equal_nan=True)


def _specs(examples: Sequence[Any], dynamic_shapes: Any) -> tuple[Any, ...]:
    """The examples with a ``TensorSpec`` for each that has a dynamic size; ``TypeError`` for other
    forms than a tuple.
    """
    if dynamic_shapes is None:
        return tuple(examples)
    if not isinstance(dynamic_shapes, (tuple, list)) or len(dynamic_shapes) != len(examples):
        raise TypeError("dynamic_shapes is not a tuple of the arguments'")
    return tuple(_spec(example, sizes) for example, sizes in zip(examples, dynamic_shapes, strict=True))


def _spec(example: Any, sizes: Any) -> Any:
    if not sizes:
        return example
    if not isinstance(example, torch.Tensor):
        raise TypeError("dynamic sizes within a structure")
    named = sizes if isinstance(sizes, Mapping) else dict(enumerate(sizes))
    fixed = (None, Dim.STATIC)
    shape = [
        size if named.get(i) in fixed or isinstance(named[i], int) else None for i, size in enumerate(example.shape)
    ]
    return TensorSpec(tuple(shape), example.dtype)


__all__ = ["import_scripted"]
