"""Models by every frontend against eager: a small subset always, all of them with ``-m e2e``."""

from __future__ import annotations

import pytest

from torch_tvm.tools.e2e import Case
from torch_tvm.tools.e2e.models import model_cases
from torch_tvm.tools.e2e.running import run

MODELS = {case.name: case for case in model_cases(small=False)}
SMALL = (
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
QUICK = [(f"{model}-{batch}", via) for model in SMALL for batch, via in (("dynamic", "fx"), ("4", "torchscript"))]
QUICK += [(f"{model}-1", via) for model in ("bert", "gpt2") for via in ("fx", "torchscript")]


def check(case: Case, frontend: str) -> None:
    result = run(case, frontend, "compiled")
    assert result.verdict == "pass", f"{result.verdict}: {result.text}"


@pytest.mark.parametrize(("name", "frontend"), QUICK)
def test_quick(name: str, frontend: str) -> None:
    check(MODELS[name], frontend)


@pytest.mark.e2e
@pytest.mark.parametrize(("name", "frontend"), [(c.name, via) for c in MODELS.values() for via in c.frontends])
def test_all(name: str, frontend: str) -> None:
    check(MODELS[name], frontend)
