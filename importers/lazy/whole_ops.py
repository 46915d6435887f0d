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
ATTENTION = "aten::scaled_dot_product_attention"
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
    """A context in which ops without a lazy kernel are noted in ``calls``, not run."""

    def __init__(self) -> None:
        self.calls: list[WholeOp] = []

    def __enter__(self) -> WholeOps:
        self._library = torch.library.Library("aten", "IMPL")
        self._others: dict[str, Any] = {}
        for name in _names():
            namespace, _, rest = name.partition("::")
            library = self._library
            if namespace != "aten":
                library = self._others.setdefault(namespace, torch.library.Library(namespace, "IMPL"))
            library.impl(rest, self._kernel(name), "Lazy")
        self._library.impl(ATTENTION.partition("::")[2], self._attention, "AutogradLazy")
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
        if name in _READS:
            raise ImportFailed(
                "the program reads a value of a tensor, which only run time knows",
                subject=subject, location=place, advice="import the scripted program (import_torchscript)",
            )  # fmt: skip
        if torch.Tag.nondeterministic_seeded in overload.tags:
            raise random_op(subject, place)
        metas = self._metas(overload, args, kwargs, subject, place)
        flat, spec = pytree.tree_flatten(metas)
        results = [device.like(meta) for meta in flat]
        data = [device.data_of([result])[0][0] for result in results]
        is_list = isinstance(metas, list)
        self.calls.append(WholeOp(overload, args, kwargs, data, is_list, place))
        return pytree.tree_unflatten(results, spec)

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

    def _attention(self, *args: Any, **kwargs: Any) -> Any:
        """Attention whole; where gradients are needed, in ops that have them."""
        tensors = [item for item in pytree.tree_leaves((args, kwargs)) if isinstance(item, torch.Tensor)]
        overload = torch.ops.aten.scaled_dot_product_attention.default
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return _differentiable_attention(*args, **kwargs)
        for tensor in tensors:
            device.sync(tensor)
        plain = pytree.tree_map(_unwrapped, (args, kwargs))
        return self._note(overload, *plain)


def random_op(subject: str, place: SourceLocation | None) -> ImportFailed:
    """The refusal of an op that draws random numbers."""
    return ImportFailed(
        "the program draws random numbers, and a captured graph would draw the same ones on every call",
        subject=subject,
        location=place,
        advice="call .eval() on the module, or pass the random tensor as an argument",
    )


def _unwrapped(item: Any) -> Any:
    if isinstance(item, torch.Tensor) and torch._is_functional_tensor(item):
        return torch._from_functional_tensor(item)
    return item


def _differentiable_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> torch.Tensor:  # fmt: skip
    """Attention as its definition says: ``[…, L, E], […, S, E], […, S, V] -> […, L, V]``."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        is_flag = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(attn_mask == 0, float("-inf")) if is_flag else scores + attn_mask
    weights = torch.softmax(scores, -1)
    return torch.dropout(weights, dropout_p, True) @ value if dropout_p > 0 else weights @ value


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
