"""Models by every frontend against eager: a small subset always, all of them with ``-m e2e``."""

from __future__ import annotations

import pytest

from torch_tvm.tools.e2e import Case, cases, run

QUICK: set[Case] = {
    Case(model, frontend, batch)
    for model in (
        "mlp",
        "lenet",
        "unet",
        "lstm",
        "gru",
        "encoder_layer",
        "vit",
        "resnet18_small",
        "mobilenet_v2_small",
    )
    for frontend, batch in (("fx", "dynamic"), ("torchscript", "4"))
} | {Case(model, frontend, "1") for model in ("bert", "gpt2") for frontend in ("fx", "torchscript")}


@pytest.mark.parametrize("case", sorted(QUICK, key=str), ids=lambda c: c.id)
def test_quick(case: Case) -> None:
    run(case)


@pytest.mark.e2e
@pytest.mark.parametrize("case", list(cases()), ids=lambda c: c.id)
def test_all(case: Case) -> None:
    run(case)
