"""Numbers of a program that a dtype cannot hold: some kernels make infinities of them or let them wrap, others raise.

Fake tensors have no kernels. So PyTorch's kernel is asked, on small tensors, where there is such a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from torch_tvm.dialect.emitter import dialect_name
from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.size_probe import may_crash
from torch_tvm.support.errors import ImportFailed

_NUMBERS = ("number", "float", "Optional[number]", "Optional[float]")
_RAISES = "without overflow"


def check_numbers(overload: torch._ops.OpOverload, bound: dict[str, Any], metas: Sequence[Any]) -> None:
    """Refuse a call for which the kernel raises because a dtype cannot hold a number.

    ``bound`` has the arguments by name, with something that has a ``meta`` for each tensor.
    """
    numbers = [a.name for a in overload._schema.arguments if str(a.type) in _NUMBERS and _is_known(bound.get(a.name))]
    if not numbers:
        return
    tensors = [leaf.meta for leaf in pytree.tree_leaves(bound) if hasattr(leaf, "meta")]
    dtypes = {t.dtype for t in [*tensors, *pytree.tree_leaves(list(metas))] if isinstance(t, torch.Tensor)}
    beyond = [name for name in numbers if not all(_holds(dtype, bound[name]) for dtype in dtypes)]
    is_random = torch.Tag.nondeterministic_seeded in overload.tags
    if not beyond or is_random or may_crash(overload._schema.name):
        return
    try:
        with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
            overload(**{name: _small(name, value) for name, value in bound.items()})
    except RuntimeError as error:
        if _RAISES in str(error):
            raise ImportFailed(
                f"{' and '.join(f'{name} = {bound[name]}' for name in beyond)}: {str(error).splitlines()[0]}",
                subject=dialect_name(overload),
                advice="give a number that the dtype of the tensor holds, or convert the tensor first",
            ) from None
    except (TypeError, ValueError, IndexError, NotImplementedError):
        return  # something is too small for this op


def _is_known(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _holds(dtype: torch.dtype, value: float) -> bool:
    """Whether a dtype holds a number, up to rounding."""
    if dtype == torch.bool:
        return True
    if dtype.is_floating_point or dtype.is_complex:
        return not math.isfinite(value) or abs(value) <= torch.finfo(dtype).max
    return math.isfinite(value) and torch.iinfo(dtype).min <= value <= torch.iinfo(dtype).max


def _small(name: str, item: Any) -> Any:
    """An argument with no size above two: of one element, kernels take other ways."""
    if hasattr(item, "meta"):
        return torch.zeros([_at_most_two(size) for size in item.meta.shape], dtype=item.meta.dtype)
    if isinstance(item, (list, tuple)):
        return [_at_most_two(each) if name == "size" else _small(name, each) for each in item]
    return 1 if isinstance(item, (ir.Value, torch.SymInt)) else item


def _at_most_two(size: Any) -> int:
    return min(size, 2) if isinstance(size, int) else 2
