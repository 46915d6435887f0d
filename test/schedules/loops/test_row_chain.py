"""Softmax and normalisation, over contiguous and other axes, with odd, symbolic and empty sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tvm import relax

from ..kernel_cases import Case, run

R = relax.op
NORM = ((6, 9, 33), (33,), (33,))


def softmax(shape, axis: int, dtype=torch.float32, symbols=()) -> Case:
    name = f"softmax {shape} {axis} {dtype} {symbols}"
    body = lambda x: R.nn.softmax(x, axis)
    return Case(name, body, lambda x: x.softmax(axis), (shape,), (dtype,), symbols)


CASES = [
    *(softmax(shape, -1) for shape in ((1, 1), (3, 7), (5, 16), (4, 5, 197), (2, 1000))),
    *(softmax(shape, axis) for shape, axis in (((5, 7), 0), ((2, 21, 5, 6), 1), ((3, 40, 37), 1))),
    *(softmax((7, 133), -1, dtype) for dtype in (torch.float16, torch.bfloat16, torch.float64)),
    *(softmax(s, a, symbols=(("n", "m"),)) for s in ((5, 33), (301, 201), (0, 7)) for a in (-1, 0)),
    softmax((5, 0), -1),
    softmax((0, 5), -1),
    Case("log softmax", lambda x: R.nn.log_softmax(x, -1), lambda x: x.log_softmax(-1), ((17, 133),)),
    Case("layer norm", lambda x, g, b: R.nn.layer_norm(x, g, b, axes=[-1]),
         lambda x, g, b: F.layer_norm(x, (33,), g, b), NORM, rule="row_chain"),
    Case("layer norm symbolic", lambda x, g, b: R.nn.layer_norm(x, g, b, axes=[-1]),
         lambda x, g, b: F.layer_norm(x, (33,), g, b), NORM, symbols=(("n", "m", None),)),
    Case("residual", lambda x, y, g, b: R.nn.layer_norm(R.add(x, y), g, b, axes=[-1]),
         lambda x, y, g, b: F.layer_norm(x + y, (33,), g, b), (NORM[0], *NORM)),
    Case("rms norm", lambda x, g: R.nn.rms_norm(x, g, axes=[-1]),
         lambda x, g: F.rms_norm(x, (33,), g, 1e-5), NORM[:2]),
    Case("group norm",
         lambda x, g, b: R.nn.group_norm(x, g, b, num_groups=4, channel_axis=1, axes=[2, 3]),
         lambda x, g, b: F.group_norm(x, 4, g, b), ((2, 16, 7, 5), (16,), (16,))),
    Case("instance norm",
         lambda x, g, b: R.nn.group_norm(x, g, b, num_groups=5, channel_axis=1, axes=[2, 3]),
         lambda x, g, b: F.instance_norm(x, weight=g, bias=b), ((2, 5, 7, 8), (5,), (5,))),
    Case("std", lambda x: R.std(x, [1]), lambda x: x.std(1, correction=0), ((17, 133),)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_matches_eager(case: Case) -> None:
    run(case)


def test_batch_norm_at_inference_is_elementwise() -> None:
    body = lambda x, g, b, m, v: R.nn.batch_norm(x, g, b, m, v, axis=1, training=False)[0]
    eager = lambda x, g, b, m, v: F.batch_norm(x, m, v, g, b)
    case = Case("batch norm", body, eager, ((2, 5, 7, 8), (5,), (5,), (5,), (5,)), rule="elementwise")
    inputs = case.inputs()
    run(case, [*inputs[:4], inputs[4].abs()])


@pytest.mark.parametrize("axis", [0, 1])
def test_masked_rows(axis: int) -> None:
    """Minus infinity gives exactly 0, a row of it NaN, as in eager; NaN stays in its row."""
    x = torch.randn(40, 40)
    x[torch.rand(40, 40) < 0.3] = -torch.inf
    x.select(1 - axis, 3).fill_(-torch.inf)
    x[5, 7] = torch.nan
    x[11, 13] = torch.inf
    run(softmax((40, 40), axis), [x])
