"""Corrections of fake results whose dtype or shape is not what PyTorch's kernels give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses.fake_impls import op_implementations_dict, register_op_impl

aten = torch.ops.aten
Bound = dict[str, Any]


def _running_statistics(bound: Bound, metas: Sequence[Any]) -> list[Any]:
    """New statistics have the dtype of the old ones; fake tensors say float32 for those of half precision."""
    old = (bound["running_mean"].meta, bound["running_var"].meta)
    new = [torch.empty_like(meta, dtype=kept.dtype) for meta, kept in zip(metas[3:], old, strict=True)]
    return [*metas[:3], *new]


def _losses_of_one_row(bound: Bound, metas: Sequence[Any]) -> list[Any]:
    """The loss of a vector is a number; fake tensors say that it is a vector where ``reduction`` is none."""
    loss = metas[0]
    if bound["self"].meta.dim() < 2:
        loss = torch.empty_like(loss, memory_format=torch.contiguous_format).resize_(())
    return [loss, *metas[1:]]


CORRECTIONS: dict[str, Callable[[Bound, Sequence[Any]], list[Any]]] = {
    "aten::_native_batch_norm_legit_functional": _running_statistics,
    "aten::multilabel_margin_loss": _losses_of_one_row,
    "aten::multilabel_margin_loss_forward": _losses_of_one_row,
}


def _least_squares(
    mode: Any,
    func: Any,
    x: torch.Tensor,
    y: torch.Tensor,
    rcond: float | None = None,
    *,
    driver: str | None = None,
) -> tuple[torch.Tensor, ...]:
    """``linalg_lstsq`` of matrices of full rank, on which the shape of its residuals depends."""
    rows, columns = x.shape[-2:]
    is_vector = y.dim() == 1 or (y.dim() == x.dim() - 1 and y.shape == x.shape[:-1])
    batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-1] if is_vector else y.shape[:-2])
    width = [] if is_vector else [y.shape[-1]]
    real = x.dtype.to_real() if x.dtype.is_complex else x.dtype
    driver = driver or "gelsy"
    has_residuals = rows > columns and driver != "gelsy"
    has_values = driver in ("gelsd", "gelss")
    shapes: list[tuple[Any, torch.dtype]] = [
        ((*batch, columns, *width), x.dtype),
        ((*batch, *width) if has_residuals else (0,), real),
        ((0,) if driver == "gels" else x.shape[:-2], torch.int64),
        ((*x.shape[:-2], min(rows, columns)) if has_values else (0,), real),
    ]
    with mode:
        return tuple(torch.empty(shape, dtype=dtype, device="cpu") for shape, dtype in shapes)


def _alignments(
    mode: Any,
    func: Any,
    scores: torch.Tensor,
    labels: torch.Tensor,
    times: Any,
    counts: Any,
    *_: Any,
    **__: Any,
) -> tuple[torch.Tensor, ...]:
    """``_ctc_loss`` and its table, which is as wide as the longest labels where tensors have the lengths."""
    time, batch = scores.shape[:2]
    longest = labels.shape[-1] if isinstance(counts, torch.Tensor) else max(counts)
    with mode:
        shapes = ((batch,), (batch, time, 2 * longest + 1))
        return tuple(torch.empty(shape, dtype=scores.dtype, device="cpu") for shape in shapes)


def _grouped(
    mode: Any,
    func: Any,
    x: torch.Tensor,
    y: torch.Tensor,
    offs: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Any:
    """``_grouped_mm`` on the CPU, whose kernel takes every dtype."""
    if x.device.type != "cpu":
        return NotImplemented
    groups = list((x if offs is None else offs).shape[:1]) if x.dim() == y.dim() else []
    with mode:
        return torch.empty([*groups, x.shape[-2], y.shape[-1]], dtype=out_dtype or x.dtype, device="cpu")


def _quantized_and_mask(mode: Any, func: Any, x: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, ...]:
    """Fake quantisation, and where it does not clamp."""
    with mode:
        return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)


def _from_the_front(known: Callable[..., Any], place: int) -> Callable[..., Any]:
    """``known``, that takes a dimension counted from the end, operand ``place`` after the tensor, for another."""

    def counted(mode: Any, func: Any, x: torch.Tensor, *given: Any, **named: Any) -> Any:
        front = lambda dim: dim + x.dim() if dim is not None and dim < 0 else dim
        places = [front(each) if index == place else each for index, each in enumerate(given)]
        if "dim" in named:
            named["dim"] = front(named["dim"])
        return known(mode, func, x, *places, **named)

    return counted


for _overload, _place in ((aten.unique_dim.default, 0), (aten.unique_consecutive.default, 2)):
    op_implementations_dict[_overload] = _from_the_front(op_implementations_dict[_overload], _place)
for _overload in (
    aten.fake_quantize_per_tensor_affine_cachemask.default,
    aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default,
    aten.fake_quantize_per_channel_affine_cachemask.default,
):
    if _overload not in op_implementations_dict:
        register_op_impl(_overload)(_quantized_and_mask)
for _overload in (aten._ctc_loss.default, aten._ctc_loss.Tensor):
    if _overload not in op_implementations_dict:
        register_op_impl(_overload)(_alignments)
if aten._grouped_mm.default not in op_implementations_dict:
    register_op_impl(aten._grouped_mm.default)(_grouped)
if aten.linalg_lstsq.default not in op_implementations_dict:
    register_op_impl(aten.linalg_lstsq.default)(_least_squares)
