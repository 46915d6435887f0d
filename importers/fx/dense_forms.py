"""Higher-order operators as the ATen ops of the kernel that PyTorch runs them with on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._C import DispatchKey
from torch._guards import detect_fake_mode
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from torch_tvm.aten.functional_forms import dense_copy, written_arguments
from torch_tvm.support.errors import ImportFailed, TorchTvmError, first_line

MOST_STEPS = 1000
"""Items of a scan that is written out: each costs time to compile."""

_KERNEL = DispatchKey.CompositeExplicitAutograd


def has_dense_form(operator: torch._ops.HigherOrderOperator) -> bool:
    """Whether PyTorch has a kernel that calls the operator's functions as often as they are needed."""
    return _KERNEL in operator.py_kernels


def dense_form(node: Node, arguments: Any, metas: Sequence[torch.Tensor]) -> GraphModule:
    """The graph of a call's kernel, as a function of the tensors among its arguments.

    ``arguments`` are the positional ones and those by name; in it, and in their order, ``metas`` are the fake tensors.
    A scan or a map over a known number of items becomes as many calls. Raises :class:`ImportFailed` for a scan over
    more than ``MOST_STEPS`` items, and where PyTorch cannot trace the kernel.
    """
    leaves, spec = pytree.tree_flatten(arguments)
    operator: Any = node.target
    kernel = _OWN.get(operator.name()) or operator.py_kernels[_KERNEL]
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    def call(*tensors: torch.Tensor) -> Any:
        given = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            given[place] = tensor
        args, named = pytree.tree_unflatten(given, spec)
        return kernel(*args, **named)

    mode = detect_fake_mode(list(metas))
    assert mode is not None
    try:
        with mode, torch.no_grad():
            graph = make_fx(call, tracing_mode="real", _allow_non_fake_inputs=True)(*metas)
    except TorchTvmError:
        raise
    except Exception as error:
        problem = first_line(error)
        raise ImportFailed(
            f"PyTorch cannot trace its own kernel: {problem}", subject=f"torch.higher_order.{operator.name()}"
        ) from error
    for each in graph.graph.nodes:
        each.meta |= {key: node.meta[key] for key in _PLACE if key in node.meta}
    return graph


def _scan(
    combine: Callable[..., Any], init: Sequence[Any], xs: Sequence[torch.Tensor], given: Sequence[Any] = ()
) -> tuple[torch.Tensor, ...]:
    """:func:`scanned`, of a length that is worth it."""
    length = xs[0].shape[0]
    if not 0 < length <= MOST_STEPS:
        raise ImportFailed(
            f"a scan over {length} items, which is written out step by step",
            subject="torch.higher_order.scan", advice=f"scan over 1 to {MOST_STEPS} items",
        )  # fmt: skip
    return scanned(combine, init, xs, given)


def scanned(
    combine: Callable[..., Any], init: Sequence[Any], xs: Sequence[torch.Tensor], given: Sequence[Any]
) -> tuple[torch.Tensor, ...]:
    """``scan`` step by step: what is carried at the end, and what each step gives beside it, stacked."""
    carried, rows = list(init), []
    for step in range(xs[0].shape[0]):
        found = list(combine(*carried, *(x.select(0, step) for x in xs), *given))
        carried = found[: len(init)]
        rows.append(found[len(init) :])
    return (*carried, *(torch.stack(column) for column in zip(*rows, strict=True)))


def _functionalized(op: torch._ops.OpOverload, **given: Any) -> tuple[Any, ...]:
    """``auto_functionalized``: the results of an op, and what it leaves in copies of the arguments that it writes.

    PyTorch's copies have the strides of the arguments, which are symbols where sizes are unknown.
    """
    copies = {name: dense_copy(given[name]) for name in written_arguments(op)}
    results = op(**{**given, **copies})
    return (*(results if isinstance(results, tuple) else (results,)), *copies.values())


_OWN: dict[str, Callable[..., Any]] = {"auto_functionalized": _functionalized, "scan": _scan}
"""For operators whose kernel cannot be traced, or is traced as more than it has to be."""
_PLACE = ("stack_trace", "nn_module_stack")

__all__ = ["MOST_STEPS", "dense_form", "has_dense_form", "scanned"]
