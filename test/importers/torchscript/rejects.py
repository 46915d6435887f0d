"""Programs that cannot be imported: ``REJECTS`` says why, ``# here`` marks the line that the error names."""

# ruff: noqa: UP006, UP035, UP045
from dataclasses import dataclass
from typing import Any, Callable, List, Optional, Tuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reject:
    function: Callable[..., Any]
    args: Tuple[Any, ...]
    message: str
    advice: str


REJECTS: List[Reject] = []


def rejected(message: str, *args: Any, advice: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        REJECTS.append(Reject(function, args, message, advice))
        return function

    return register


X = torch.ones(3)


@rejected("'y' has rank 1 on one path and rank 2 on another", X, advice="give both paths the same rank")
def ranks_differ(x: Tensor) -> Tensor:
    if x.sum() > 0:  # here
        y = x
    else:
        y = x.unsqueeze(0)
    return y


@rejected("'y' is float32 on one path and int64 on another", X, advice="cast both to one dtype")
def dtypes_differ(x: Tensor) -> Tensor:
    if x.sum() > 0:  # here
        y = x
    else:
        y = x.long()
    return y


@rejected("the program returns a value that is None on one run-time path", X)
def optional_at_run_time(x: Tensor) -> Optional[Tensor]:
    y: Optional[Tensor] = None
    if x.sum() > 0:
        y = x
    return y


@rejected("'name' is 'a' on one path and 'b' on another", X)
def text_at_run_time(x: Tensor) -> str:
    if x.sum() > 0:  # here
        name = "a"
    else:
        name = "b"
    return name


@rejected("the program raises for these arguments: ValueError: always", X)
def always_raises(x: Tensor) -> Tensor:
    if x.dim() == 1:
        raise ValueError("always")  # here
    return x


@rejected("torch.aten.add.Tensor: Attempting to broadcast a dimension of length 4", X)
def shapes_do_not_match(x: Tensor) -> Tensor:
    return x + torch.ones(4)  # here


@rejected("list index out of range", X)
def list_index(x: Tensor) -> Tensor:
    xs = [x]
    return xs[2]  # here


@rejected("a list whose length is only known at run time", X, advice="return torch.stack(...)")
def returns_growing_list(x: Tensor) -> List[Tensor]:
    xs: List[Tensor] = []
    for _ in range(int(x.sum())):
        xs.append(x)
    return xs


@rejected("its tensors differ in shape or dtype", X, advice="append tensors of one shape")
def grows_ragged_list(x: Tensor) -> Tensor:
    xs = [x, x[:2]]
    for _ in range(int(x.sum())):  # here
        xs.append(x)
    return torch.cat(xs)


@torch.jit.ignore
def python_code(x: Tensor) -> Tensor:
    return x


@rejected("this calls Python ('python_code')", X, advice="remove torch.jit.ignore")
def calls_python(x: Tensor) -> Tensor:
    return python_code(x)  # here


@torch.jit.script
class Box:
    def __init__(self, value: Tensor):
        self.value = value


@rejected("the program returns an object of class Box", X)
def returns_object(x: Tensor) -> Box:
    return Box(x)


@rejected("the result is torch.float32 and cannot be written to a tensor of torch.int64", X.long())
def writes_fractions(x: Tensor) -> Tensor:
    return x.div_(2)  # here


@rejected("the others have no value", X, advice="create a new tensor")
def resizes(x: Tensor) -> Tensor:
    y = x.clone()
    y.resize_(200)  # here
    return y


@rejected("updated in place, and on one run-time path it is another tensor", X, advice="update a clone of it")
def writes_maybe_alias(x: Tensor) -> Tuple[Tensor, Tensor]:
    if x.sum() > 0:
        y = x
    else:
        y = x * 2
    y.add_(1)  # here
    return x, y


@rejected("has different keys on two run-time paths", X)
def dict_keys_differ(x: Tensor) -> Tensor:
    d = {"a": x}
    if x.sum() > 0:  # here
        d["b"] = x
    return d["a"]


@rejected("'x' has rank 1 on one path and rank 2 on another", X)
def loop_rank_grows(x: Tensor) -> Tensor:
    for _ in range(int(x.sum())):  # here
        x = x.unsqueeze(0)
    return x
