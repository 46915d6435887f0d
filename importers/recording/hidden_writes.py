"""Ops whose writes their schema does not tell (norms that keep running statistics), or that only other ops can say.

And one whose dtype PyTorch itself tells wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch_tvm.aten.dtypes import dtype_name
from torch_tvm.importers.recording.interface import Recording
from torch_tvm.support.errors import ImportFailed

aten = torch.ops.aten
Bound = dict[str, Any]
Handler = Callable[[Recording, Bound], list[Any] | None]


def _batch_norm(r: Recording, bound: Bound) -> list[Any] | None:
    """The functional form gives the new statistics as results; a batch of nothing leaves the old ones."""
    mean, var = bound["running_mean"], bound["running_var"]
    if bound["training"] is not True or mean is None or var is None:
        return None
    x, weight, bias = bound["input"], bound["weight"], bound["bias"]
    if x.meta.dim() < 2:
        raise ImportFailed(
            "the input has no channels",
            subject="torch.aten.batch_norm",
            advice="pass it as (batch, channels)",
        )
    if _is_known_zero(x.meta.shape) and "cudnn_enabled" in bound:
        rest = bound["momentum"], bound["eps"], False
        return [r.run(aten.batch_norm.default, x, weight, bias, None, None, True, *rest)]
    op = aten._native_batch_norm_legit_functional.default
    out, batch_mean, batch_scale, new_mean, new_var = r.run(
        op, x, weight, bias, mean, var, True, bound["momentum"], bound["eps"]
    )
    r.write(mean, r.read(new_mean))
    r.write(var, r.read(new_var))
    return [out, batch_mean, batch_scale]


def _is_known_zero(sizes: Sequence[Any]) -> bool:
    """Whether one of some sizes is 0, and known to be."""
    return any(isinstance(size, int) and size == 0 for size in sizes)


def _instance_norm(r: Recording, bound: Bound) -> list[Any] | None:
    """Running statistics move towards the batch's mean of those of the instances."""
    mean, var = bound["running_mean"], bound["running_var"]
    if bound["use_input_stats"] is not True or mean is None or var is None:
        return None
    x, momentum = bound["input"], bound["momentum"]
    kept = [x, bound["weight"], bound["bias"], None, None, True, momentum, bound["eps"], False]
    out = r.run(aten.instance_norm.default, *kept)
    if _is_known_zero(x.meta.shape[2:]) and not _is_known_zero(x.meta.shape[:1]):
        return [out]
    dtype = torch.promote_types(mean.meta.dtype, torch.float32)  # a variance may be too large for half precision
    wide = _as(r, x, dtype)
    axes = list(range(2, x.meta.dim()))
    means = r.run(aten.mean.dim, wide, axes)
    variances = r.run(aten.var.correction, wide, axes, correction=1)
    for target, each in ((mean, means), (var, variances)):
        new = r.run(aten.mul.Scalar, r.run(aten.mean.dim, each, [0]), momentum)
        kept = r.run(aten.mul.Scalar, _as(r, target, dtype), 1 - momentum)
        moved = r.run(aten.add.Tensor, kept, new)
        r.write(target, r.read(_as(r, moved, target.meta.dtype)))
    return [out]


def _as(r: Recording, x: Any, dtype: torch.dtype) -> Any:
    return x if x.meta.dtype == dtype else r.run(aten._to_copy.default, x, dtype=dtype)


def _strided_copy(r: Recording, bound: Bound) -> list[Any]:
    return [r.run(aten.clone.default, r.run(aten.as_strided.default, *_strides(bound)))]


def _strided_scatter(r: Recording, bound: Bound) -> list[Any]:
    """A copy of all of the memory, written in the part that the strides tell."""
    x, size, stride, offset = _strides(bound)
    meta = x.meta
    count = meta.untyped_storage().nbytes() // meta.element_size()
    memory = r.run(aten.clone.default, r.run(aten.as_strided.default, x, [count], [1], 0))
    part = r.run(aten.as_strided.default, memory, size, stride, offset)
    r.run(aten.copy_.default, part, bound["src"])
    return [r.run(aten.as_strided.default, memory, meta.shape, meta.stride(), meta.storage_offset())]


def _strides(bound: Bound) -> list[Any]:
    offset = bound.get("storage_offset")
    x = bound["self"]
    return [x, bound["size"], bound["stride"], x.meta.storage_offset() if offset is None else offset]


def _first(results: list[Any] | None) -> list[Any] | None:
    return None if results is None else results[:1]


def _embedding_renorm(r: Recording, bound: Bound) -> list[Any]:
    """The rows that are looked up are scaled where they are longer than ``max_norm``."""
    weight, limit = bound["self"], bound["max_norm"]
    index = r.run(aten.reshape.default, bound["indices"], [-1])
    rows = r.run(aten.index_select.default, weight, 0, index)
    lengths = r.run(aten.linalg_vector_norm.default, rows, bound["norm_type"], [1], True)
    inverse = r.run(aten.reciprocal.default, r.run(aten.add.Scalar, lengths, 1e-7))
    scaled = r.run(aten.mul.Tensor, rows, r.run(aten.mul.Scalar, inverse, limit))
    limited = r.run(aten.where.self, r.run(aten.gt.Scalar, lengths, limit), scaled, rows)
    r.write(weight, r.read(r.run(aten.index_put.default, weight, [index], limited)))
    return [weight]


def _threshold_backward(r: Recording, bound: Bound) -> None:
    """PyTorch's fake tensors have the dtype of the gradient where its kernel promotes both operands."""
    dtypes = [bound[name].meta.dtype for name in ("grad_output", "self")]
    if dtypes[0] != dtypes[1]:
        names = " and ".join(dtype_name(dtype) for dtype in dtypes)
        raise ImportFailed(
            f"operands of {names}: PyTorch tells another dtype of the result than it gives",
            subject="torch.aten.threshold_backward",
            advice="convert one of them to the dtype of the other",
        )


def _histogramdd(r: Recording, bound: Bound) -> list[Any]:
    """The histogram and its edges, by the ops that make them: a graph of the lazy device has these."""
    x, bins = bound["self"], bound["bins"]
    ends, weight = bound.get("range"), bound.get("weight")
    density = bool(bound.get("density", False))
    if isinstance(bins, list) and bins and not isinstance(bins[0], int):
        parts = aten._histogramdd_from_bin_tensors.default
        return [r.run(parts, x, bins, weight=weight, density=density), bins]
    numbers = [bins] * x.meta.shape[-1] if isinstance(bins, int) else bins
    how = {"range": ends, "weight": weight, "density": density}
    parts = aten._histogramdd_from_bin_cts.default
    return [r.run(parts, x, numbers, **how), r.run(aten._histogramdd_bin_edges.default, x, numbers, **how)]


def _bincount(r: Recording, bound: Bound) -> None:
    """Weighted counts of nothing are integers in eager PyTorch, and have the dtype of the weights
    by its fake tensors.
    """
    size = bound["self"].meta.shape[0]
    if bound.get("weights") is not None and isinstance(size, int) and size == 0:
        raise ImportFailed(
            "weighted counts of nothing: eager PyTorch gives integers, whatever the weights are",
            subject="torch.aten.bincount",
            advice="leave the weights out where there are no numbers",
        )


HANDLERS: dict[str, Handler] = {
    "aten::bincount": _bincount,
    "aten::as_strided_copy": _strided_copy,
    "aten::as_strided_scatter": _strided_scatter,
    "aten::histogramdd": _histogramdd,
    "aten::batch_norm": lambda r, bound: _first(_batch_norm(r, bound)),
    "aten::embedding_renorm_": _embedding_renorm,
    "aten::native_batch_norm": _batch_norm,
    "aten::instance_norm": _instance_norm,
    "aten::threshold_backward": _threshold_backward,
}
