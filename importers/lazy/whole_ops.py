"""Ops that the lazy device would run eagerly in the middle of a capture stay in the graph as whole ops.

While :class:`WholeOps` is active every op without a lazy kernel of its own returns new device data that
stands for its result and is noted with its arguments and the user's line; the program goes on with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from torch_tvm.importers.lazy import device
from torch_tvm.importers.lazy.places import user_place
from torch_tvm.support.errors import ImportFailed, SourceLocation

IMPORTER = "lazy"
# Composite ops whose parts say less than they do, or have no lazy kernel.
COMPOSITES = (
    "aten::scaled_dot_product_attention", "aten::adaptive_avg_pool1d", "aten::adaptive_avg_pool2d",
    "aten::adaptive_avg_pool3d", "aten::lstm.input", "aten::gru.input", "aten::rnn_tanh.input",
    "aten::rnn_relu.input",
)  # fmt: skip
_READS = ("aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal", "aten::_copy_from")
_FOREIGN = ("prim", "prims", "profiler", "inductor", "static_runtime", "debugprims", "rngprims", "_")


@dataclass
class WholeOp:
    """One noted call. ``args`` and ``results`` hold lazy tensors; ``data`` the numbers of the results' data."""

    overload: torch._ops.OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    data: list[int]
    is_list: bool
    place: SourceLocation


class WholeOps:
    """A context in which ops without a lazy kernel are noted in ``calls``, not run.

    ``opaque`` holds the numbers of the device data that only run time knows; a value that depends on none of
    them can be read during the run.
    """

    def __init__(self) -> None:
        self.calls: list[WholeOp] = []
        self.opaque: set[int] = set()

    def __enter__(self) -> WholeOps:
        self._library = torch.library.Library("aten", "IMPL")
        self._others: dict[str, Any] = {}
        for name in _names():
            namespace, _, rest = name.partition("::")
            library = self._library
            if namespace != "aten":
                library = self._others.setdefault(namespace, torch.library.Library(namespace, "IMPL"))
            library.impl(rest, self._kernel(name), "Lazy")
        for name in COMPOSITES:
            self._library.impl(name.partition("::")[2], self._composite(name), "AutogradLazy")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library._destroy()
        for library in self._others.values():
            library._destroy()

    def _kernel(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._note(_overload(name), args, kwargs)

    def _note(self, overload: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        place = user_place(sys._getframe(2), IMPORTER)
        name = overload._schema.name
        subject = f"torch.{name.replace('::', '.')}"
        if name == "aten::_local_scalar_dense":
            value = self._constant(args[0])
            if value is not None:
                return value
        if name in _READS:
            raise ImportFailed(
                "the program reads a value of a tensor, which only run time knows",
                subject=subject, location=place, advice="import the scripted program (import_torchscript)",
            )  # fmt: skip
        if torch.Tag.nondeterministic_seeded in overload.tags and _draws(overload, args, kwargs):
            raise random_op(subject, place)
        metas = self._metas(overload, args, kwargs, subject, place)
        flat, spec = pytree.tree_flatten(metas)
        results = [device.like(meta) for meta in flat]
        data = [device.data_of([result])[0][0] for result in results]
        is_list = isinstance(metas, list)
        self.calls.append(WholeOp(overload, args, kwargs, data, is_list, place))
        return pytree.tree_unflatten(results, spec)

    def _constant(self, tensor: torch.Tensor) -> Any:
        """The number in a tensor that depends on constants only, else ``None``."""
        from torch_tvm.importers.lazy.assembly import constant_value

        found = constant_value(tensor, self.calls, self.opaque)
        return None if found is None else found.item()

    def _metas(
        self, overload: torch._ops.OpOverload, args: Any, kwargs: Any, subject: str, place: SourceLocation
    ) -> Any:
        def described(item: Any) -> Any:
            if isinstance(item, torch.Tensor):
                return torch.empty(item.shape, dtype=item.dtype)
            return torch.device("cpu") if isinstance(item, torch.device) else item

        try:
            with FakeTensorMode():
                fake_args, fake_kwargs = pytree.tree_map(described, (args, kwargs))
                metas = overload(*fake_args, **fake_kwargs)
        except Exception as error:
            problem = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ImportFailed(
                f"this op leaves the lazy device, and the shape of its result is not known: {problem}",
                subject=subject,
                location=place,
            ) from error
        leaves = pytree.tree_leaves(metas)
        if not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
            raise ImportFailed("this op leaves the lazy device", subject=subject, location=place)
        return metas

    def _composite(self, name: str) -> Callable[..., Any]:
        """A kernel that notes a composite op, or decomposes it where gradients are needed."""
        overload = _overload(name)

        def kernel(*args: Any, **kwargs: Any) -> Any:
            tensors = [item for item in pytree.tree_leaves((args, kwargs)) if isinstance(item, torch.Tensor)]
            if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
                return overload.decompose(*args, **kwargs)
            for tensor in tensors:
                device.sync(tensor)
            return self._note(overload, *pytree.tree_map(_unwrapped, (args, kwargs)))

        return kernel


def random_op(subject: str, place: SourceLocation | None) -> ImportFailed:
    """The refusal of an op that draws random numbers."""
    return ImportFailed(
        "the program draws random numbers, and a captured graph would draw the same ones on every call",
        subject=subject,
        location=place,
        advice="call .eval() on the module, or pass the random tensor as an argument",
    )


def _draws(overload: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the arguments let a random op be random: a dropout of probability 0 is not."""
    names = [argument.name for argument in overload._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if "dropout_p" in names:
        return bool(given.get("dropout_p", 0.0))
    if "dropout" in names and "train" in names:
        return bool(given["dropout"]) and bool(given["train"])
    return True


def _unwrapped(item: Any) -> Any:
    if isinstance(item, torch.Tensor) and torch._is_functional_tensor(item):
        return torch._from_functional_tensor(item)
    return item


@lru_cache(maxsize=1)
def _names() -> tuple[str, ...]:
    """Ops that return new tensors and have neither a lazy kernel nor a decomposition above it."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    found = []
    for name in torch._C._dispatch_get_all_op_names():
        qualified, _, overload = name.partition(".")
        if qualified.partition("::")[0] in _FOREIGN or has(name, "Lazy"):
            continue
        if has(name, "CompositeImplicitAutograd"):
            continue
        try:
            schema = torch._C._get_schema(qualified, overload)
        except RuntimeError:
            continue
        if schema.is_mutable or any(result.alias_info is not None for result in schema.returns):
            continue
        found.append(name)
    return tuple(found)


@lru_cache(maxsize=4096)
def _overload(name: str) -> torch._ops.OpOverload:
    qualified, _, overload = name.partition(".")
    namespace, _, short = qualified.partition("::")
    packet = getattr(getattr(torch.ops, namespace), short)
    found: torch._ops.OpOverload = getattr(packet, overload or "default")
    return found
