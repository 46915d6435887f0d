"""Ops that the lazy device would run eagerly in the middle of a capture stay in the graph as whole ops.

While :class:`WholeOps` is active every op without a lazy kernel of its own returns new device data that
stands for its result and is noted with its arguments and the user's line; the program goes on with it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from torch_tvm.aten.calls import draws, overload_of
from torch_tvm.aten.decompositions import WITHOUT_QUESTIONS
from torch_tvm.importers.lazy import device
from torch_tvm.importers.lazy.assembly import constant_value
from torch_tvm.importers.lazy.calls import WholeOp
from torch_tvm.importers.recording.aliases import shares_memory
from torch_tvm.importers.tracing.data_dependence import DependsOnData
from torch_tvm.importers.user_code import user_place
from torch_tvm.support.errors import ImportFailed, SourceLocation, first_line

IMPORTER = "lazy"
# Composite ops that the lazy device takes apart: canonical form puts their parts together again.
TAKEN_APART = frozenset(
    "aten::linear aten::matmul aten::conv1d aten::conv2d aten::conv3d aten::conv_transpose1d "
    "aten::conv_transpose2d.input aten::conv_transpose3d.input aten::layer_norm aten::batch_norm aten::softmax.int "
    "aten::log_softmax.int aten::dropout aten::feature_dropout aten::alpha_dropout aten::feature_alpha_dropout "
    "aten::max_pool2d aten::item aten::is_nonzero aten::_batch_norm_impl_index aten::_convolution_mode "
    "aten::to.other aten::type_as aten::atleast_1d aten::atleast_2d aten::atleast_3d aten::sum_to_size "
    "aten::_autocast_to_reduced_precision aten::_autocast_to_full_precision".split()
)
# Of those, the ones that stay whole where they draw numbers, in eager's way.
_DROPOUTS = tuple(f"aten::{kind}dropout" for kind in ("", "feature_", "alpha_", "feature_alpha_"))
# Ops whose lazy kernels run them eagerly, or say them in terms of strides; they are not composite.
_LEAVING = (
    "aten::max_pool3d_with_indices",
    "aten::pixel_shuffle",
    "aten::pixel_unshuffle",
    "aten::native_group_norm",
    "aten::new_empty_strided",
    "aten::linalg_pinv.atol_rtol_tensor",
)
# Ops that give views, of which their schemas say nothing, and the same ops with such schemas.
_UNTOLD = {
    "unsafe_split.Tensor": torch.ops.aten.split.Tensor,
    "unsafe_split_with_sizes": torch.ops.aten.split_with_sizes.default,
    "_unsafe_view": torch.ops.aten.view.default,
}
_READS = ("aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal", "aten::_copy_from")
_FOREIGN = ("prim", "prims", "profiler", "inductor", "static_runtime", "debugprims", "rngprims", "_")


class WholeOps:
    """A context in which ops without a lazy kernel are noted in ``calls``, not run.

    ``opaque`` holds the numbers of the device data that only run time knows; a value that depends on none of
    them can be read during the run.
    """

    def __init__(self, has_gradients: bool = False) -> None:
        self.has_gradients = has_gradients
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
        composites = _composites() if self.has_gradients else (*_composites(), *_LEAVING)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s)Warning only once for all operators.*Overriding")
            self._over_autograd(composites)
            for name in _drawing():
                self._library.impl(name.partition("::")[2], self._kernel(name), "Lazy")
            self._library.impl("empty.memory_format", _zeros, "Lazy")
            self._library.impl("_assert_async.msg", self._assertion, "Lazy")
        return self

    def _over_autograd(self, names: Iterable[str]) -> None:
        self._library.impl("batch_norm", _batch_norm, "AutogradLazy")
        self._library.impl("instance_norm", self._instance_norm, "AutogradLazy")
        for name in (*names, *_DROPOUTS):
            self._library.impl(name.partition("::")[2], self._composite(name), "AutogradLazy")
        if not self.has_gradients:  # a write to one view of several is none that autograd takes
            for name, told in _UNTOLD.items():
                self._library.impl(name, told, "AutogradLazy")
            for name in ("Scalar", "Tensor"):
                self._library.impl(f"masked_fill.{name}", _masked_fill, "AutogradLazy")

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
            raise DependsOnData(
                "the program reads a value of a tensor, which only run time knows",
                subject=subject, location=place, advice="import the scripted program (import_torchscript)",
            )  # fmt: skip
        if kwargs.get("generator") is not None:
            raise ImportFailed(
                "a generator of the program's own is not in the graph",
                subject=subject, location=place, advice="draw from PyTorch's own generator",
            )  # fmt: skip
        metas = self._metas(overload, args, kwargs, subject, place)
        flat, spec = pytree.tree_flatten(metas)
        results = [device.like(meta) for meta in flat]
        data = [device.data_of([result])[0][0] for result in results]
        if draws(overload, args, kwargs):
            self.opaque.update(data)
        is_list = isinstance(metas, list)
        self.calls.append(WholeOp(overload, args, kwargs, data, is_list, place))
        return pytree.tree_unflatten(results, spec)

    def _assertion(self, condition: torch.Tensor, message: str) -> None:
        """An assertion stays in the graph, though it gives nothing."""
        place = user_place(sys._getframe(1), IMPORTER)
        self.calls.append(WholeOp(torch.ops.aten._assert_async.msg, (condition, message), {}, [], False, place))

    def _constant(self, tensor: torch.Tensor) -> Any:
        """The number in a tensor that depends on constants only, else ``None``."""
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
                metas = WITHOUT_QUESTIONS.get(overload, overload)(*fake_args, **fake_kwargs)
        except Exception as error:
            problem = first_line(error)
            raise DependsOnData(
                f"this op leaves the lazy device, and the shape of its result is not known: {problem}",
                subject=subject,
                location=place,
            ) from error
        leaves = pytree.tree_leaves(metas)
        if not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
            raise ImportFailed("this op leaves the lazy device", subject=subject, location=place)
        return metas

    def _instance_norm(self, *args: Any) -> Any:
        """Instance normalisation whose update of the running statistics is a write, as that of a batch norm."""
        x, weight, bias, mean, var, uses_input, momentum, *rest = args
        kernel = self._composite("aten::instance_norm")
        if not uses_input or mean is None or var is None:
            return kernel(*args)
        result = kernel(x, weight, bias, None, None, True, momentum, *rest)
        if 0 in x.shape[2:] and x.shape[0]:
            return result
        axes = list(range(2, x.dim()))
        with torch.no_grad():
            dtype = torch.promote_types(mean.dtype, torch.float32)  # a variance may be too large for half precision
            wide, old_mean, old_var = (tensor.to(dtype) for tensor in (x, mean, var))
            mean.copy_(old_mean * (1 - momentum) + wide.mean(axes).mean(0) * momentum)
            var.copy_(old_var * (1 - momentum) + wide.var(axes, unbiased=True).mean(0) * momentum)
        return result

    def _composite(self, name: str) -> Callable[..., Any]:
        """A kernel that notes a composite op, or decomposes it where gradients are needed."""
        overload = _overload(name)

        def kernel(*args: Any, **kwargs: Any) -> Any:
            tensors = [item for item in pytree.tree_leaves((args, kwargs)) if isinstance(item, torch.Tensor)]
            needs_gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
            if name in _DROPOUTS and not draws(overload, args, kwargs):
                return args[0] if args else kwargs["input"]  # as in eager; the decomposition copies it
            if needs_gradients or _is_view(overload, args, kwargs):
                return overload.decompose(*args, **kwargs)
            for tensor in tensors:
                device.sync(tensor)
            return self._note(overload, *pytree.tree_map(_unwrapped, (args, kwargs)))

        return kernel


def _masked_fill(x: torch.Tensor, mask: torch.Tensor, value: Any) -> torch.Tensor:
    """The lazy device says of the result that it has the shape of ``x``, also where the mask has a larger one."""
    wide = x.expand(torch.broadcast_shapes(x.shape, mask.shape))
    with torch._C._AutoDispatchBelowAutograd():
        return torch.masked_fill(wide, mask, value)


def _batch_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor | None,
    var: torch.Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    *rest: Any,
) -> torch.Tensor:
    """Batch normalisation whose update of the running statistics, which no schema tells, is a write."""
    decompose = torch.ops.aten.batch_norm.default.decompose
    if training and x.numel() == 0:  # the running statistics stay what they are
        mean = var = None
    if not training or mean is None or var is None:
        return decompose(x, weight, bias, mean, var, training, momentum, eps, *rest)
    needs_gradients = any(t is not None and t.requires_grad for t in (x, weight, bias))
    if not (torch.is_grad_enabled() and needs_gradients):
        functional = torch.ops.aten._native_batch_norm_legit_functional.default
        result, _, _, new_mean, new_var = functional(x, weight, bias, mean, var, True, momentum, eps)
    else:
        result = decompose(x, weight, bias, None, None, True, momentum, eps, *rest)
        dims = [axis for axis in range(x.dim()) if axis != 1]
        with torch.no_grad():
            new_mean = mean * (1 - momentum) + x.mean(dims).to(mean.dtype) * momentum
            new_var = var * (1 - momentum) + x.var(dims, unbiased=True).to(var.dtype) * momentum
    with torch.no_grad():
        mean.copy_(new_mean)
        var.copy_(new_var)
    return result


def native_batch_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor | None,
    var: torch.Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    """As :func:`_batch_norm`, for a program that asks for the batch's statistics."""
    if not training or mean is None or var is None:
        return torch.native_batch_norm(x, weight, bias, mean, var, training, momentum, eps)
    functional = torch.ops.aten._native_batch_norm_legit_functional.default
    *results, new_mean, new_var = functional(x, weight, bias, mean, var, True, momentum, eps)
    with torch.no_grad():
        mean.copy_(new_mean)
        var.copy_(new_var)
    return tuple(results)


def _zeros(size: Sequence[int], *, dtype: torch.dtype | None = None, **_: Any) -> torch.Tensor:
    """Memory that nobody filled is zeros in canonical form; the device's own would be a constant of chance."""
    return device.like(torch.empty(size, dtype=dtype, device="meta"))


def random_op(subject: str, place: SourceLocation | None) -> ImportFailed:
    """The refusal of an op that draws random numbers where the graph does not hold it."""
    return ImportFailed(
        "the program draws random numbers outside of the graph, which would have the same ones on every call",
        subject=subject,
        location=place,
        advice="call .eval() on the module, or pass the random tensor as an argument",
    )


def _is_view(overload: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a composite op gives its argument's memory back, which no schema tells (``atleast_2d``, ``einsum``)."""

    def described(item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            return torch.empty(item.shape, dtype=item.dtype, device="meta")
        return torch.device("meta") if isinstance(item, torch.device) else item

    given, named = pytree.tree_map(described, (args, kwargs))
    try:
        with torch.no_grad():
            result = overload(*given, **named)
    except Exception:  # what it cannot say without values is no view
        return False
    held = [item for item in pytree.tree_leaves((given, named)) if isinstance(item, torch.Tensor)]
    return isinstance(result, torch.Tensor) and any(shares_memory(item, result) for item in held)


def _unwrapped(item: Any) -> Any:
    if isinstance(item, torch.Tensor) and torch._is_functional_tensor(item):
        return torch._from_functional_tensor(item)
    return item


@lru_cache(maxsize=1)
def _names() -> tuple[str, ...]:
    """Ops that return new tensors and have neither a lazy kernel nor a decomposition above it."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return tuple(name for name in _functional() if not has(name, "Lazy") and not has(name, "CompositeImplicitAutograd"))


@lru_cache(maxsize=1)
def _drawing() -> tuple[str, ...]:
    """Ops that draw numbers and have a lazy kernel: it would draw in an order of its own."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return tuple(
        name
        for name in _functional()
        if has(name, "Lazy") and torch.Tag.nondeterministic_seeded in _overload(name).tags
    )


@lru_cache(maxsize=1)
def _composites() -> tuple[str, ...]:
    """ATen ops that are decomposed above the lazy device, and are told whole to what follows."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return tuple(
        name
        for name in _functional()
        if name.startswith("aten::")
        and has(name, "CompositeImplicitAutograd")
        and name not in TAKEN_APART
        and name != "aten::instance_norm"
        and all(str(result.type) == "Tensor" for result in _overload(name)._schema.returns)
        and "backward" not in name
    )


@lru_cache(maxsize=1)
def _functional() -> tuple[str, ...]:
    """Names of the ops that neither write nor alias their arguments."""
    found = []
    for name in torch._C._dispatch_get_all_op_names():
        qualified, _, overload = name.partition(".")
        if qualified.partition("::")[0] in _FOREIGN:
            continue
        try:
            schema = torch._C._get_schema(qualified, overload)
        except RuntimeError:
            continue
        is_alias = any(result.alias_info is not None for result in schema.returns)
        if schema.returns and not schema.is_mutable and not is_alias:
            found.append(name)
    return tuple(found)


@lru_cache(maxsize=4096)
def _overload(name: str) -> torch._ops.OpOverload:
    found = overload_of(name)
    assert found is not None, name
    return found
