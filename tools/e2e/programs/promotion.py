"""Which dtype results have: pairs of dtypes, numbers beside tensors, tensors without dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torch_tvm.tools.e2e.case import case

_DTYPES = ("bool", "u8", "i8", "i32", "i64", "f16", "bf16", "f32", "f64")
_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "add": torch.add,
    "mul": torch.mul,
    "div": torch.div,
    "where": lambda x, y: torch.where(x > y, x, y),
    "less": torch.lt,
    "maximum": torch.maximum,
}
_NUMBERS = (2, 2.5, True)


def _all_operations(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    return [operation(x, y) for operation in _OPERATIONS.values()]


def _beside(number: Any) -> Callable[[torch.Tensor], list[torch.Tensor]]:
    def with_number(x: torch.Tensor) -> list[torch.Tensor]:
        return [x + number, x * number, x / number, x == number, number + x]

    return with_number


for _first, _left in enumerate(_DTYPES):
    for _right in _DTYPES[_first:]:
        case(f"3x4:{_left}", f"3x4:{_right}", name=f"promotion-{_left}-{_right}")(_all_operations)
        if _left != _right:
            case(f"3:{_left}", f":{_right}", name=f"promotion-{_left}-{_right}-0d")(_all_operations)
    for _number in _NUMBERS:
        _refused = {"torchscript": "PyTorch's tracer has no comparison with a bool"} if _number is True else {}
        case(f"3x4:{_left}", name=f"promotion-{_left}-{_number}", refused=_refused)(_beside(_number))


@case("3:i64", "3:f32")
def sum_of_integers_beside_floats(x, y):  # type: ignore[no-untyped-def]
    return x.sum() + y, x.sum(), x.float().mean(), torch.cat([x, y])


@case("2x3:bool", "2x3:i32")
def reductions_of_narrow_types(x, y):  # type: ignore[no-untyped-def]
    return x.sum(1), x.any(), y.sum(), y.prod(1), y.cumsum(0), y.amax()
